package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Limits say how much is kept of each account. Zero fields take the default.
type Limits struct {
	File  int64         // bytes, from which a new file is begun; 32 MiB
	Total int64         // bytes of all files of one account; 1 GiB
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

	accountsDir   = "accounts"
	unsignedDir   = "unsigned"
	unsignedShare = 8 // calls that nobody signed have one part in so many of Limits.Total
)

// Log keeps the calls of each account apart: one that makes any number of them does
// not push out those of others. Safe for concurrent use.
type Log struct {
	dir    string
	limits Limits
	log    *slog.Logger
	now    func() time.Time
	lost   atomic.Int64
	// unsigned keeps the calls that nobody signed, of which whoever reaches the server
	// can make any number.
	unsigned *folder
	// earlier holds what was recorded before accounts had folders of their own.
	earlier *folder

	mu       sync.Mutex
	accounts map[string]*folder // by number; guarded by mu
}

// Open returns the log in a directory, which it makes where there is none. Each start
// begins files of its own, so that a line torn by a power cut stays the last of
// its file. now is the clock, nil for the system's.
func Open(dir string, limits Limits, log *slog.Logger, now func() time.Time) (l *Log, err error) {
	if now == nil {
		now = time.Now
	}
	l = &Log{dir: dir, limits: limits.orDefaults(), log: log, now: now, accounts: map[string]*folder{}}
	if l.earlier, err = openFolder(dir, l.limits, log, now); err != nil {
		return nil, err
	}
	few := l.limits
	few.Total = max(1, few.Total/unsignedShare)
	few.File = min(few.File, max(1, few.Total/2))
	if l.unsigned, err = openFolder(filepath.Join(dir, unsignedDir), few, log, now); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(dir, accountsDir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list audit log: %w", err)
	}
	for _, e := range entries {
		if number.MatchString(e.Name()) {
			if _, err := l.of(e.Name()); err != nil {
				return nil, err
			}
		}
	}
	return l, nil
}

var number = regexp.MustCompile(`^[0-9]{12}$`)

// of returns the folder of an account; of none, that of unsigned calls.
func (l *Log) of(account string) (*folder, error) {
	if account == "" {
		return l.unsigned, nil
	}
	if !number.MatchString(account) { // no account has such a number; it must not name a directory
		return nil, fmt.Errorf("account %q is not 12 digits", account)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.accounts[account]; known != nil {
		return known, nil
	}
	made, err := openFolder(filepath.Join(l.dir, accountsDir, account), l.limits, l.log, l.now)
	if err == nil {
		l.accounts[account] = made
	}
	return made, err
}

// folders are all there are.
func (l *Log) folders() []*folder {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := []*folder{l.unsigned, l.earlier}
	for _, account := range slices.Sorted(maps.Keys(l.accounts)) {
		all = append(all, l.accounts[account])
	}
	return all
}

// Record keeps an event. It does not fail: what cannot be kept is counted.
func (l *Log) Record(e Event) {
	line, err := e.encoded()
	if err == nil {
		var to *folder
		if to, err = l.of(e.Identity.AccountID); err == nil {
			err = to.write(line)
		}
	}
	if err != nil {
		l.lost.Add(1)
		l.log.Error("a call is missing in the audit log", "event", e.Name, "request", e.RequestID, "err", err)
	}
}

// Lost is how many events could not be kept since the start.
func (l *Log) Lost() int64 { return l.lost.Load() }

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
	for _, f := range l.folders() {
		f.sync()
	}
}

// Sweep removes the oldest files beyond the limits. The present ones stay.
func (l *Log) Sweep() {
	for _, f := range l.folders() {
		f.sweep()
	}
}

// Close ends the present files.
func (l *Log) Close() (err error) {
	for _, f := range l.folders() {
		err = errors.Join(err, f.close())
	}
	return err
}
