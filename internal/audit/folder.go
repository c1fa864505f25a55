package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	suffix   = ".jsonl"
	nameForm = "20060102T150405.000000000Z"
)

// folder is a part of the log: files of events, within limits of their own. Safe for
// concurrent use.
type folder struct {
	dir    string
	limits Limits
	log    *slog.Logger
	now    func() time.Time

	mu    sync.Mutex
	file  *os.File // nil: the next event begins one
	size  int64
	dirty bool
	last  string // the name of the latest file
}

// openFolder opens a folder, which it makes where there is none.
func openFolder(dir string, limits Limits, log *slog.Logger, now func() time.Time) (*folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make audit log: %w", err)
	}
	l := &folder{dir: dir, limits: limits, log: log, now: now}
	names, err := l.files()
	if err != nil {
		return nil, err
	}
	if len(names) > 0 {
		l.last = names[len(names)-1]
	}
	return l, nil
}

func (l *folder) write(line []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil && l.size >= l.limits.File {
		if err := l.endLocked(); err != nil {
			return err
		}
		l.sweepLocked()
	}
	if l.file == nil {
		if err := l.beginLocked(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	l.dirty = true
	if err != nil {
		// Its end is unknown: the next event begins a file of its own.
		return errors.Join(err, l.endLocked())
	}
	return nil
}

func (l *folder) beginLocked() error {
	name := l.now().UTC().Format(nameForm) + suffix
	if name <= l.last { // the clock was set back: names must not
		name = strings.TrimSuffix(l.last, suffix) + "~" + suffix // which sorts after it
	}
	file, err := os.OpenFile(filepath.Join(l.dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("begin audit file: %w", err)
	}
	l.file, l.size, l.last, l.dirty = file, 0, name, true
	return nil
}

// endLocked closes the file; whatever it answers, the file is done with.
func (l *folder) endLocked() error {
	file := l.file
	l.file, l.dirty = nil, false
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("end audit file: %w", err)
	}
	return nil
}

func (l *folder) sync() {
	l.mu.Lock()
	file, dirty := l.file, l.dirty
	l.dirty = false
	l.mu.Unlock()
	if file == nil || !dirty {
		return
	}
	// Without the lock: callers wait for no disk.
	if err := file.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		l.log.Error("audit log is not on disk", "err", err)
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.file == file {
			_ = l.endLocked() // told above
		}
	}
}

// close ends the present file.
func (l *folder) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	return l.endLocked()
}

// sweep removes the oldest files beyond the limits. The present one stays.
func (l *folder) sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweepLocked()
}

func (l *folder) sweepLocked() {
	names, err := l.files()
	if err != nil {
		l.log.Error("old audit files stay", "err", err)
		return
	}
	var total int64
	for i, name := range slices.Backward(names) {
		path := filepath.Join(l.dir, name)
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		total += info.Size()
		present := l.file != nil && i == len(names)-1
		if !present && (total > l.limits.Total || l.now().Sub(info.ModTime()) > l.limits.Age) {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				l.log.Error("old audit file stays", "file", path, "err", err)
			}
		}
	}
}

// files lists the names of the folder's files, oldest first.
func (l *folder) files() ([]string, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, fmt.Errorf("list audit log: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), suffix) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}
