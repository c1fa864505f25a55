package vault

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/envelope"
	"lifeboat/internal/vault/extent"
	"lifeboat/internal/vault/seal"
	"lifeboat/internal/vault/segment"
)

// Epoch is a set of changes that becomes visible at once, or never. Its methods
// may be called from one goroutine at a time.
type Epoch struct {
	w       *Writer
	tip     tip      // what it follows
	volumes []Volume // as they will be; sorted
	edits   []edit
	seq     uint64 // of the last segment begun

	mu      sync.Mutex // Append and Zero against the writer being finished
	offered bool       // its manifest was on its way to the store: what became of it is not known
	builder *segment.Builder
	runs    []extent.Record // scratch of Append
	done    error           // why nothing can be added; guarded by mu
	uploads uploadList
}

// maxExtents closes a segment whose index grows faster than its frames.
const maxExtents = 1 << 16

// Append adds a frame. It copies the payload; a full segment is written out while
// the caller goes on. Frames and zeros added later hide those added before. An error
// about the frame itself leaves the epoch as it was; any other ends it.
func (e *Epoch) Append(f Frame) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done != nil {
		return e.done
	}
	vol, err := e.volume(f.Volume)
	if err != nil {
		return err
	}
	e.runs = e.runs[:0]
	for _, x := range f.Extents {
		e.runs = append(e.runs, extent.Record{Block: x.Block, Count: x.Count})
	}
	if err := segment.CheckFrame(e.runs, f.Codec, f.RawLen, len(f.Payload), vol.Blocks()); err != nil {
		return fmt.Errorf("append to volume %d: %w", f.Volume, err)
	}
	b := e.open()
	if b.Room() < len(f.Payload)+64 {
		e.w.b.v.buffers.recycle(b.Move(e.w.b.v.buffers.grown()))
	}
	b.Frame(uint32(f.Volume), e.runs, f.Codec, f.RawLen, f.Payload, f.Digest)
	return e.closeFull()
}

// Zero makes blocks read as zeros.
func (e *Epoch) Zero(volume VolumeID, block uint64, count uint32) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done != nil {
		return e.done
	}
	vol, err := e.volume(volume)
	if err != nil {
		return err
	}
	if n := vol.Blocks(); count == 0 || block >= n || uint64(count) > n-block {
		return fmt.Errorf("zero volume %d: blocks %d+%d lie beyond its %d", volume, block, count, n)
	}
	e.open().Zero(uint32(volume), block, count)
	return e.closeFull()
}

func (e *Epoch) volume(id VolumeID) (Volume, error) {
	i, ok := findVolume(e.volumes, id)
	if !ok {
		return Volume{}, fmt.Errorf("volume %d: %w: name it in Begin", id, ErrAbsent)
	}
	return e.volumes[i], nil
}

// open returns the segment being built.
func (e *Epoch) open() *segment.Builder {
	if e.builder == nil {
		e.seq++
		e.builder = segment.NewBuilder(e.w.header(e.seq), e.w.b.key, e.w.b.v.buffers.begin())
	}
	return e.builder
}

// closeFull hands a full segment to the uploads.
func (e *Epoch) closeFull() error {
	l := e.w.b.v.limits
	if e.builder.Size() < l.segmentBytes && e.builder.Frames() < l.segmentFrames && e.builder.Extents() < maxExtents {
		return nil
	}
	if err := e.upload(e.builder.Finish()); err != nil {
		e.done = err
		return err
	}
	e.builder = nil
	return nil
}

// upload puts a segment as an object of its own, in the background.
func (e *Epoch) upload(s segment.Sealed) error {
	e.edits = append(e.edits, segmentEdit{segmentRef: newSegmentRef(s)})
	v, name := e.w.b.v, segmentName(e.w.b.server, s.Header.ID)
	return e.uploads.start(v.uploads, func(ctx context.Context) error {
		err := v.store.PutIfAbsent(ctx, name, s.Bytes)
		v.buffers.recycle(s.Bytes)
		if errors.Is(err, blob.ErrExists) {
			return nil // the name is random: it was this very put, repeated below us
		}
		return err
	})
}

// Commit makes the epoch durable and visible, and ends it. With a point it becomes
// that recovery point, whose Epoch is set to the number of the commit; without
// one it is progress that a later point builds on. An epoch without any change and
// point commits nothing.
//
// ErrFenced: another writer took the branch. After any other error it is not known
// whether the epoch was committed; the head of a new writer tells.
func (e *Epoch) Commit(ctx context.Context, point *drs.RecoveryPoint) (Head, error) {
	w := e.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil && w.epoch != e {
		return Head{}, fmt.Errorf("commit: epoch: %w", ErrClosed)
	}
	if w.err != nil {
		return Head{}, w.err
	}
	if point != nil {
		if err := e.checkPoint(ctx, *point); err != nil {
			return Head{}, fmt.Errorf("commit: %w", err)
		}
	}
	st, err := e.commit(ctx, point)
	if err != nil {
		err = fmt.Errorf("commit epoch after %d of branch %s of %s: %w", e.tip.head.Number, w.b.name, w.b.server, err)
		w.finishLocked(err)
		return Head{}, err
	}
	w.epoch = nil
	e.stop(ErrClosed)
	w.tip = st.tip()
	return st.head(), nil
}

func (e *Epoch) checkPoint(ctx context.Context, p drs.RecoveryPoint) error {
	if _, err := drs.ParseRecoverySnapshotID(string(p.ID)); err != nil {
		return err
	}
	if p.SourceServer != "" && p.SourceServer != e.w.b.server {
		return fmt.Errorf("point %s belongs to server %s, this is %s", p.ID, p.SourceServer, e.w.b.server)
	}
	st, err := e.w.b.latest(ctx)
	if err != nil {
		return err
	}
	if _, ok := st.point(p.ID); ok {
		return fmt.Errorf("point %s: %w", p.ID, ErrExists)
	}
	if len(p.Consistency) > 64 || len(p.Method) > 64 {
		return fmt.Errorf("point %s: consistency or method is longer than 64 bytes", p.ID)
	}
	return nil
}

func (e *Epoch) commit(ctx context.Context, point *drs.RecoveryPoint) (*state, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done != nil {
		return nil, e.done
	}
	b := e.w.b
	var inline []byte
	inlineAt := -1
	if e.builder != nil {
		s := e.builder.Finish()
		e.builder = nil
		if len(s.Bytes) <= b.v.limits.inlineBytes {
			inline, inlineAt = s.Bytes, len(e.edits)
			e.edits = append(e.edits, segmentEdit{segmentRef: newSegmentRef(s)})
		} else if err := e.upload(s); err != nil {
			return nil, err
		}
	}
	// No manifest before everything it names is durable.
	if err := e.uploads.wait(); err != nil {
		return nil, err
	}
	st, err := b.amend(ctx, func(st *state) (proposal, error) {
		if !e.tip.follows(st) {
			return proposal{}, ErrFenced
		}
		edits := slices.Clone(e.edits)
		if point != nil {
			p := *point
			p.Epoch, p.SourceServer = st.number+1, b.server
			edits = append(edits, clockEdit{b.tell(st, point)}, pointEdit{p, e.seq})
		}
		if inlineAt >= 0 {
			ref := edits[inlineAt].(segmentEdit)
			ref.host, ref.offset = st.number+1, envelope.Size(b.v.cipher, len(putEdits(edits)))
			edits[inlineAt] = ref // fields have fixed lengths: the offset holds
		}
		e.offered = e.offered || len(edits) > 0
		p := propose(edits...)
		p.inline = inline
		return p, nil
	})
	if inline != nil {
		b.v.buffers.recycle(inline)
	}
	if errors.Is(err, ErrAbsent) {
		err = fmt.Errorf("%w: %w", ErrFenced, err) // the branch was dropped
	}
	return st, err
}

// Abort drops the epoch. Segments that were written out are of no effect. It may
// be called at any time, also after Commit, when it does nothing.
func (e *Epoch) Abort() {
	w := e.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.epoch == e {
		w.epoch = nil
	}
	e.stop(ErrClosed)
}

// stop ends the epoch and waits for its uploads.
func (e *Epoch) stop(why error) {
	e.uploads.cancel(why)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done == nil {
		e.done = fmt.Errorf("epoch: %w", why)
	}
	e.builder = nil
	_ = e.uploads.wait() // nobody needs them any more
	if !e.offered {
		e.discard()
	}
}

// discard deletes the segments of an epoch that no manifest ever named, so that an
// epoch which did not fit leaves room for those that do. What cannot be deleted is
// garbage for a collector.
func (e *Epoch) discard() {
	v, server := e.w.b.v, e.w.b.server
	var names []string
	for _, edit := range e.edits {
		if s, ok := edit.(segmentEdit); ok {
			names = append(names, segmentName(server, s.id))
		}
	}
	e.edits = nil
	if len(names) == 0 {
		return
	}
	v.background("discard "+names[0], func(ctx context.Context) error {
		for _, name := range names {
			if err := v.store.Delete(ctx, name); err != nil && !errors.Is(err, blob.ErrAbsent) {
				return err
			}
		}
		return nil
	})
}

func newSegmentHeader(c seal.Cipher, server drs.SourceServerID, branch string, seq uint64) segment.Header {
	h := segment.Header{Cipher: c, FrameBlocks: FrameBlocks, Salt: seal.NewSalt(), Sequence: seq, Server: string(server), Branch: branch}
	rand.Read(h.ID[:])
	return h
}

func newSegmentRef(s segment.Sealed) segmentRef {
	seq := s.Header.Sequence
	return segmentRef{seq: seq, id: s.Header.ID, length: int64(len(s.Bytes)), index: s.IndexOffset, sum: s.IndexSum,
		from: seq, to: seq, blocks: uint32(s.Blocks), zeros: uint32(s.Zeros)}
}
