package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
)

const (
	// stuckAfter is how long one operation of the store may take before people are told.
	stuckAfter = 10 * time.Second
	// scarce is how little free space is worth a word, in bytes, and as a part of all.
	scarce, scarcePart = 1 << 30, 50
)

// storeWatch is the vault's store, and notes how it does: the newest outcome of writing
// and of reading counts. Safe for concurrent use.
type storeWatch struct {
	blob.Store
	path string // of a vault in a directory, for its free space; empty: in a bucket

	mu          sync.Mutex
	write, read *blob.Trouble // nil: none; guarded by mu
	changed     chan struct{} // closed with the next change of write; guarded by mu
}

func watchStore(store blob.Store, path string) *storeWatch {
	return &storeWatch{Store: store, path: path, changed: make(chan struct{})}
}

// PutIfAbsent implements blob.Store.
func (w *storeWatch) PutIfAbsent(ctx context.Context, name string, parts ...[]byte) error {
	defer w.stuck(true)()
	err := w.Store.PutIfAbsent(ctx, name, parts...)
	w.note(true, err)
	return err
}

// Delete implements blob.Store.
func (w *storeWatch) Delete(ctx context.Context, name string) error {
	defer w.stuck(true)()
	err := w.Store.Delete(ctx, name)
	w.note(true, err)
	return err
}

// ReadAt implements blob.Store.
func (w *storeWatch) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	defer w.stuck(false)()
	n, err := w.Store.ReadAt(ctx, name, p, off)
	w.note(false, err)
	return n, err
}

// Size implements blob.Store.
func (w *storeWatch) Size(ctx context.Context, name string) (int64, error) {
	defer w.stuck(false)()
	n, err := w.Store.Size(ctx, name)
	w.note(false, err)
	return n, err
}

// List implements blob.Store.
func (w *storeWatch) List(ctx context.Context, folder string) ([]string, error) {
	defer w.stuck(false)()
	names, err := w.Store.List(ctx, folder)
	w.note(false, err)
	return names, err
}

// stuck tells of an operation that does not return, until the function that it returns
// is called. The outcome of the operation itself is noted before that.
func (w *storeWatch) stuck(writing bool) (done func()) {
	timer := time.AfterFunc(stuckAfter, func() {
		w.set(writing, &blob.Trouble{
			Text: fmt.Sprintf("the vault's store has not answered for %s", stuckAfter), Away: true,
			NextStep: "look whether the store runs and this host reaches it; all goes on by itself when it answers",
		})
	})
	return func() { timer.Stop() }
}

func (w *storeWatch) note(writing bool, err error) {
	trouble := blob.TroubleOf(err)
	answered := err == nil || errors.Is(err, io.EOF) || errors.Is(err, blob.ErrAbsent) || errors.Is(err, blob.ErrExists)
	switch {
	case trouble != nil:
		w.set(writing, trouble)
	case answered:
		w.set(writing, nil)
	}
}

func (w *storeWatch) set(writing bool, trouble *blob.Trouble) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !writing {
		w.read = trouble
		return
	}
	if (w.write == nil) != (trouble == nil) || trouble != nil && trouble.Away != w.write.Away {
		close(w.changed)
		w.changed = make(chan struct{})
	}
	w.write = trouble
}

// writeTrouble is why nothing can be stored right now, or nil, and a channel that is
// closed when that changes.
func (w *storeWatch) writeTrouble() (*blob.Trouble, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.write, w.changed
}

// troubles are what a person should know of the store. away: the vault cannot even be
// read, or that is not known.
func (w *storeWatch) troubles() (texts []string, away bool) {
	w.mu.Lock()
	all := []*blob.Trouble{w.read, w.write}
	w.mu.Unlock()
	for _, t := range all {
		if t == nil {
			continue
		}
		text := t.Text + ": " + t.NextStep
		if len(texts) == 0 || texts[0] != text {
			texts = append(texts, text)
		}
		away = away || t.Away
	}
	if text := scarceSpace(w.path); text != "" {
		texts = append(texts, text)
	}
	return texts, away
}

// scarceSpace says that a file system is nearly full, or read-only; path may be empty.
func scarceSpace(path string) string {
	var fs unix.Statfs_t
	if path == "" || unix.Statfs(path, &fs) != nil {
		return ""
	}
	free, all := fs.Bavail*uint64(fs.Bsize), fs.Blocks*uint64(fs.Bsize)
	switch {
	case fs.Flags&unix.ST_RDONLY != 0:
		return fmt.Sprintf("the file system of the vault, %s, is mounted read-only: nothing is stored until it is mounted for writing", path)
	case free < scarce && free < all/scarcePart:
		return fmt.Sprintf("the file system of the vault, %s, has %d MiB left: replication stops when it is full; add space, or shorten --journal and the point-in-time policies", path, free>>20)
	}
	return ""
}

// errStore ends the wait for a point that the store would not take.
type errStore struct{ blob.Trouble }

func (e errStore) Error() string { return e.Text + ": " + e.NextStep }

// pointTaker takes points on demand, and does not wait for a store that is in trouble:
// who recovers has older points.
type pointTaker struct {
	take interface {
		TakePoint(ctx context.Context, server drs.SourceServerID) (drs.RecoveryPoint, error)
	}
	store *storeWatch
}

// TakePoint implements recovery.PointTaker.
func (p pointTaker) TakePoint(ctx context.Context, server drs.SourceServerID) (drs.RecoveryPoint, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			trouble, changed := p.store.writeTrouble()
			if trouble != nil && trouble.Away {
				cancel(errStore{*trouble})
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	point, err := p.take.TakePoint(ctx, server)
	cancel(nil)
	<-ended
	return point, err
}
