package cached

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// kept returns a block from the disk, if it is there and whole.
func (c *Cache) kept(k key) ([]byte, bool) {
	if !c.blocks.touch(k) {
		return nil, false
	}
	b, err := os.ReadFile(c.path(k))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.complain("read", err)
		}
		c.blocks.remove(k)
		return nil, false
	}
	data, err := decode(k, b)
	if err != nil {
		c.damaged.Add(1)
		c.drop(k)
		return nil, false
	}
	return data, true
}

// keep has a block written, unless the disk cannot follow.
func (c *Cache) keep(k key, data []byte) {
	if len(data) == 0 || time.Now().UnixNano() < c.broken.Load() {
		return
	}
	select {
	case c.writes <- write{k, data}:
	default:
	}
}

// write is what a writer does until the cache is closed.
func (c *Cache) write() {
	for {
		select {
		case w := <-c.writes:
			c.store(w)
		case <-c.closing:
			for { // those that were promised
				select {
				case w := <-c.writes:
					c.store(w)
				default:
					return
				}
			}
		}
	}
}

// store writes a block and makes room for it. Nothing is synced: what a power cut
// leaves is found out by its checksum.
func (c *Cache) store(w write) {
	path := c.path(w.key)
	temp := path + ".new"
	err := writeFile(temp, encode(w.key, w.data))
	if errors.Is(err, fs.ErrNotExist) { // the first one there, or somebody deleted the folder
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = writeFile(temp, encode(w.key, w.data))
		}
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		_ = os.Remove(temp) // the next start removes it otherwise
		c.complain("write", err)
		return
	}
	for _, old := range c.blocks.add(w.key, int64(headerSize+len(w.data))) {
		if err := os.Remove(c.path(old)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.complain("make room", err)
		}
	}
}

func writeFile(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

// load finds the blocks that an earlier process left, the oldest first. Files that
// are not blocks are left alone, but for those a write was cut short in.
func (c *Cache) load() error {
	type found struct {
		key  key
		size int64
		at   time.Time
	}
	var all []found
	folders, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, folder := range folders {
		files, err := os.ReadDir(filepath.Join(c.dir, folder.Name()))
		if err != nil {
			continue // not a folder of ours, or just deleted
		}
		for _, file := range files {
			k, ok := keyFrom(folder.Name(), file.Name())
			if !ok {
				if filepath.Ext(file.Name()) == ".new" {
					_ = os.Remove(filepath.Join(c.dir, folder.Name(), file.Name())) // tried again at the next start
				}
				continue
			}
			if info, err := file.Info(); err == nil {
				all = append(all, found{k, info.Size(), info.ModTime()})
			}
		}
	}
	slices.SortFunc(all, func(a, b found) int { return a.at.Compare(b.at) })
	for _, f := range all {
		for _, old := range c.blocks.add(f.key, f.size) {
			_ = os.Remove(c.path(old)) // tried again at the next start
		}
	}
	return nil
}
