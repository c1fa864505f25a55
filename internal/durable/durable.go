// Package durable is the only place that makes files and directory entries
// survive power loss. A file is durable after Sync returned nil; a name (new,
// linked, renamed or removed) after SyncDir of its directory returned nil. After
// an error from either, what is on the disk is unknown: the caller must not go on
// writing that file.
//
// What it cannot mend: a disk that acknowledges a flush it did not do.
package durable

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Files performs durable file operations. The zero value is ready for use, and
// safe for concurrent use. Every call carries op, a label of the calling site, so
// that a test can fail that site alone.
type Files struct {
	// Fault, when not nil, stands between each operation and its effect: it calls
	// do or not, and its result is the operation's. For tests.
	Fault func(op, path string, do func() error) error
}

func (fl Files) run(op, path string, do func() error) error {
	var err error
	if fl.Fault != nil {
		err = fl.Fault(op, path, do)
	} else {
		err = do()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	return nil
}

// Create makes a new file for writing that must not exist yet.
func (fl Files) Create(op, path string, perm fs.FileMode) (f *os.File, err error) {
	err = fl.run(op, path, func() error {
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
		return err
	})
	if err != nil && f != nil {
		f.Close()
		f = nil
	}
	return f, err
}

// Write writes all parts at the file's position.
func (fl Files) Write(op string, f *os.File, parts ...[]byte) error {
	return fl.run(op, f.Name(), func() error {
		for _, p := range parts {
			if _, err := f.Write(p); err != nil {
				return err
			}
		}
		return nil
	})
}

// Sync makes the file's bytes and size durable.
func (fl Files) Sync(op string, f *os.File) error {
	return fl.run(op, f.Name(), func() error {
		for {
			err := syscall.Fdatasync(int(f.Fd()))
			if err != syscall.EINTR {
				return wrapPath("fdatasync", f.Name(), err)
			}
		}
	})
}

func wrapPath(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// SyncDir makes the names in a directory durable.
func (fl Files) SyncDir(op, dir string) error {
	return fl.run(op, dir, func() error {
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		return errors.Join(d.Sync(), d.Close())
	})
}

// Link gives a file a second name that must not exist yet (fs.ErrExist).
func (fl Files) Link(op, oldpath, newpath string) error {
	return fl.run(op, newpath, func() error { return os.Link(oldpath, newpath) })
}

// Rename moves a file over newpath.
func (fl Files) Rename(op, oldpath, newpath string) error {
	return fl.run(op, newpath, func() error { return os.Rename(oldpath, newpath) })
}

// Remove removes a name.
func (fl Files) Remove(op, path string) error {
	return fl.run(op, path, func() error { return os.Remove(path) })
}

// Mkdir makes one directory, which may exist already. It is durable after SyncDir
// of its parent.
func (fl Files) Mkdir(op, path string) error {
	return fl.run(op, path, func() error {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		return nil
	})
}

// WriteFile replaces the file at path by data, durably and at once: after a crash
// either the old file or the new one is there, whole.
func (fl Files) WriteFile(op, path string, data []byte, perm fs.FileMode) error {
	return fl.writeFile(op, path, data, perm, fl.Rename)
}

// CreateFile is WriteFile for a path that must not exist yet (fs.ErrExist).
func (fl Files) CreateFile(op, path string, data []byte, perm fs.FileMode) error {
	return fl.writeFile(op, path, data, perm, fl.Link)
}

func (fl Files) writeFile(op, path string, data []byte, perm fs.FileMode, place func(op, from, to string) error) error {
	var rnd [8]byte
	rand.Read(rnd[:])
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+hex.EncodeToString(rnd[:])+".tmp")
	f, err := fl.Create(op+": create", tmp, perm)
	if err != nil {
		return err
	}
	defer os.Remove(tmp) // after a rename there is nothing left to remove
	err = fl.Write(op+": write", f, data)
	if err == nil {
		err = fl.Sync(op+": sync", f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := place(op+": place", tmp, path); err != nil {
		return err
	}
	return fl.SyncDir(op+": sync directory", filepath.Dir(path))
}
