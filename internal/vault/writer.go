package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/segment"
)

// Writer appends epochs to one branch. Safe for concurrent use, but only one epoch
// can be open at a time.
//
// After any failed write the writer is finished and returns that first error for
// ever: what the store did is not known. Open a new one and look at its Head.
type Writer struct {
	b *branch

	mu    sync.Mutex
	tip   tip    // what the next commit follows; guarded by mu
	epoch *Epoch // the open one; guarded by mu
	err   error  // why the writer is finished; guarded by mu
}

// tip is what a writer knows of its branch, so that it keeps no lists alive.
type tip struct {
	head Head
	seq  uint64
}

func (s *state) tip() tip { return tip{s.head(), s.seq} }

// follows tells whether nobody else has written to the branch.
func (t tip) follows(s *state) bool {
	return s.written == written{t.head.Number, t.head.Hash}
}

// ErrClosed: the writer, epoch or image was closed.
var ErrClosed = errors.New("closed")

// Writer opens a branch for appending. The newest writer wins: an older one of
// the same branch in this process is finished with ErrFenced, once its
// commit under way is over; one in another process fails in its next commit.
//
// ErrAbsent: no such server or branch. A *DamageError: the branch cannot be
// appended to.
func (v *Vault) Writer(ctx context.Context, server drs.SourceServerID, branch string) (*Writer, error) {
	w, err := v.writer(ctx, server, branch)
	if err != nil {
		return nil, fmt.Errorf("open branch %s of %s for writing: %w", branch, server, err)
	}
	return w, nil
}

func (v *Vault) writer(ctx context.Context, server drs.SourceServerID, name string) (*Writer, error) {
	b, err := v.branch(ctx, server, name)
	if err != nil {
		return nil, err
	}
	w := &Writer{b: b}
	b.mu.Lock()
	old := b.writer
	b.writer = w
	b.mu.Unlock()
	w.mu.Lock() // a still newer writer waits for us here
	defer w.mu.Unlock()
	if old != nil {
		old.finish(ErrFenced)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	// Read it all: listing makes sure that what is there is durable.
	st, err := b.readLocked(ctx)
	if err != nil {
		w.err = err
		return nil, err
	}
	w.tip = st.tip()
	return w, nil
}

// finish ends the writer and its open epoch, whose uploads are waited for.
func (w *Writer) finish(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finishLocked(why)
}

func (w *Writer) finishLocked(why error) {
	if w.err == nil {
		w.err = why
	}
	if e := w.epoch; e != nil {
		w.epoch = nil
		e.stop(w.err)
	}
}

// Close ends the writer, aborting its open epoch.
func (w *Writer) Close() error {
	w.finish(fmt.Errorf("writer of branch %s: %w", w.b.name, ErrClosed))
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	if w.b.writer == w {
		w.b.writer = nil
	}
	return nil
}

// Head returns the state after the last commit.
func (w *Writer) Head() Head {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.tip.head
	h.Volumes = slices.Clone(h.Volumes)
	return h
}

// Begin opens an epoch on these volumes, which are added, grown or renamed as
// needed; volumes not named stay as they are. A volume that shrinks is refused. The
// uploads of the epoch end with ctx.
func (w *Writer) Begin(ctx context.Context, volumes []Volume) (*Epoch, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.err
	}
	if w.epoch != nil {
		return nil, fmt.Errorf("begin epoch on branch %s: one is open: commit or abort it first", w.b.name)
	}
	after := w.tip.head.Volumes
	var changes []edit
	for _, vol := range volumes {
		if err := checkVolume(vol); err != nil {
			return nil, fmt.Errorf("begin epoch: %w", err)
		}
		if i, ok := findVolume(after, vol.ID); ok {
			if vol.Size < after[i].Size {
				return nil, fmt.Errorf("begin epoch: volume %d (%s) shrank from %d to %d bytes: a volume may only grow; replicate it as a new volume",
					vol.ID, vol.Device, after[i].Size, vol.Size)
			}
			if vol == after[i] {
				continue
			}
		}
		after = withVolume(after, vol)
		changes = append(changes, volumeEdit{vol})
	}
	e := &Epoch{w: w, tip: w.tip, volumes: slices.Clone(after), edits: changes, seq: w.tip.seq}
	e.uploads.ctx, e.uploads.cancel = context.WithCancelCause(ctx)
	w.epoch = e
	return e, nil
}

func (w *Writer) header(seq uint64) segment.Header {
	return newSegmentHeader(w.b.v.cipher, w.b.server, w.b.name, seq)
}
