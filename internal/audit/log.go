package audit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Limits say how much is kept. Zero fields take the default.
type Limits struct {
	File  int64         // bytes, from which a new file is begun; 32 MiB
	Total int64         // bytes of all files; 1 GiB
	Age   time.Duration // of a file's latest event; 90 days
}

func (l Limits) orDefaults() Limits {
	if l.File == 0 {
		l.File = 32 << 20
	}
	if l.Total == 0 {
		l.Total = 1 << 30
	}
	if l.Age == 0 {
		l.Age = 90 * 24 * time.Hour
	}
	return l
}

const (
	// syncEvery is how old an event may be before it is on disk.
	syncEvery = time.Second
	// sweepEvery spaces the removal of what has become too old.
	sweepEvery = time.Hour
	suffix     = ".jsonl"
	nameForm   = "20060102T150405.000000000Z"

	unsignedDir   = "unsigned"
	unsignedShare = 8 // calls that nobody signed have one part in so many of Limits.Total, besides
)

// Log is safe for concurrent use.
type Log struct {
	dir    string
	limits Limits
	log    *slog.Logger
	now    func() time.Time
	lost   atomic.Int64
	// unsigned keeps the calls that nobody signed: whoever reaches the server can
	// make any number of them, and must not push the others out. nil in that log.
	unsigned *Log

	mu    sync.Mutex
	file  *os.File // nil: the next event begins one
	size  int64
	dirty bool
	last  string // the name of the latest file
}

// Open returns the log in a folder, which it makes where there is none. Each start
// begins a file of its own, so that a line torn by a power cut stays the last of
// its file. now is the clock, nil for the system's.
func Open(dir string, limits Limits, log *slog.Logger, now func() time.Time) (*Log, error) {
	limits = limits.orDefaults()
	l, err := openOne(dir, limits, log, now)
	if err != nil {
		return nil, err
	}
	limits.Total = max(1, limits.Total/unsignedShare)
	limits.File = min(limits.File, max(1, limits.Total/2))
	l.unsigned, err = openOne(filepath.Join(dir, unsignedDir), limits, log, now)
	return l, err
}

func openOne(dir string, limits Limits, log *slog.Logger, now func() time.Time) (*Log, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make audit log: %w", err)
	}
	if now == nil {
		now = time.Now
	}
	l := &Log{dir: dir, limits: limits, log: log, now: now}
	names, err := l.files()
	if err != nil {
		return nil, err
	}
	if len(names) > 0 {
		l.last = names[len(names)-1]
	}
	return l, nil
}

// Record keeps an event. It does not fail: what cannot be kept is counted.
func (l *Log) Record(e Event) {
	if l.unsigned != nil && e.Identity.AccountID == "" {
		l.unsigned.Record(e)
		return
	}
	line, err := e.encoded()
	if err == nil {
		err = l.write(line)
	}
	if err != nil {
		l.lost.Add(1)
		l.log.Error("a call is missing in the audit log", "event", e.Name, "request", e.RequestID, "err", err)
	}
}

// Lost is how many events could not be kept since the start.
func (l *Log) Lost() int64 {
	if l.unsigned != nil {
		return l.lost.Load() + l.unsigned.Lost()
	}
	return l.lost.Load()
}

func (l *Log) write(line []byte) error {
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

func (l *Log) beginLocked() error {
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
func (l *Log) endLocked() error {
	file := l.file
	l.file, l.dirty = nil, false
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("end audit file: %w", err)
	}
	return nil
}

// Run brings events to disk and removes old files until ctx ends; then it closes
// the log, which may be used again all the same.
func (l *Log) Run(ctx context.Context) error {
	flush, sweep := time.NewTicker(syncEvery), time.NewTicker(sweepEvery)
	defer flush.Stop()
	defer sweep.Stop()
	l.Sweep()
	for {
		select {
		case <-flush.C:
			l.sync()
		case <-sweep.C:
			l.Sweep()
		case <-ctx.Done():
			return l.Close()
		}
	}
}

func (l *Log) sync() {
	if l.unsigned != nil {
		l.unsigned.sync()
	}
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

// Close ends the present files.
func (l *Log) Close() (err error) {
	if l.unsigned != nil {
		err = l.unsigned.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		err = errors.Join(err, l.endLocked())
	}
	return err
}

// Sweep removes the oldest files beyond the limits. The present one stays.
func (l *Log) Sweep() {
	if l.unsigned != nil {
		l.unsigned.Sweep()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweepLocked()
}

func (l *Log) sweepLocked() {
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

// files lists the names of the log's files, oldest first.
func (l *Log) files() ([]string, error) {
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
