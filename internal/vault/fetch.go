package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"lifeboat/internal/vault/extent"
	"lifeboat/internal/vault/segment"
)

// frameKey names a frame in all the world.
type frameKey struct {
	id    segment.ID
	frame uint32
}

// piece is a part of a read that lies in one frame.
type piece struct {
	dst   []byte // nil when read ahead
	ref   *segmentRef
	ix    *segment.Index
	frame int
	from  int // where in the frame's raw bytes

	entry *cacheEntry[frameKey, []byte]
	mine  bool // this read must load the frame
}

// maxFetch is how many stored bytes are read at once when frames follow one another.
const maxFetch = 512 << 10

// pieces appends what [off, off+n) consists of to out, and zeroes the holes of p. With
// p nil only frames are found.
func (r *VolumeReader) pieces(ctx context.Context, vw *view, out []piece, p []byte, off, n int64) ([]piece, error) {
	m, origin := r.image, off
	r.loadIndexes(ctx, vw, off, n)
	err := walkMap(r.records(vw), off, n, func(off, n int64, rec *extent.Record) error {
		var dst []byte
		if p != nil {
			dst = p[off-origin : off-origin+n]
		}
		if rec == nil || rec.Zero() {
			clear(dst)
			return nil
		}
		ix, err := m.index(ctx, vw, rec.Seg)
		if err != nil {
			return err
		}
		skip := off - int64(rec.Block)*BlockSize // into the record
		for n > 0 {
			frame, from := ix.Place(rec.Pos + uint32(skip/BlockSize))
			from += int(skip % BlockSize)
			if frame >= len(ix.Frames) || from >= int(ix.Frames[frame].Raw) {
				return &CorruptError{Object: vw.segs[rec.Seg].object(m.server), Reason: "the map points beyond the segment's frames"}
			}
			k := min(n, int64(ix.Frames[frame].Raw)-int64(from))
			pc := piece{ref: &vw.segs[rec.Seg], ix: ix, frame: frame, from: from}
			if dst != nil {
				pc.dst, dst = dst[:k], dst[k:]
			}
			out = append(out, pc)
			n, skip = n-k, skip+k
		}
		return nil
	})
	return out, err
}

// loadIndexes has the frame tables of [off, off+n) loaded, several at a time, where the
// store is far. What it cannot load is met again, and told, by who needs it.
func (r *VolumeReader) loadIndexes(ctx context.Context, vw *view, off, n int64) {
	m := r.image
	if m.v.distance.indexes == 0 {
		return
	}
	var absent []uint32
	_ = walkMap(r.records(vw), off, n, func(_, _ int64, rec *extent.Record) error {
		if rec != nil && !rec.Zero() && !slices.Contains(absent, rec.Seg) && !m.v.indexes.has(vw.segs[rec.Seg].id) {
			absent = append(absent, rec.Seg)
		}
		return nil
	})
	if len(absent) < 2 {
		return
	}
	var g errgroup.Group
	g.SetLimit(m.v.distance.indexes)
	for _, seg := range absent {
		g.Go(func() error {
			_, err := m.index(ctx, vw, seg)
			return err
		})
	}
	_ = g.Wait()
}

// claim finds out which frames of pieces nobody else has or loads. They are ours: fetch
// must follow, and release when the pieces are not needed any more. It returns how many.
func (m *Image) claim(pieces []piece) (mine int) {
	for i := range pieces {
		pc := &pieces[i]
		pc.entry, pc.mine = m.v.frames.claim(frameKey{pc.ref.id, uint32(pc.frame)})
		if pc.mine {
			mine++
		}
	}
	return mine
}

// release gives back pieces that were claimed, and loaded where they were ours.
func (m *Image) release(pieces []piece) {
	for i := range pieces {
		m.v.frames.release(pieces[i].entry)
	}
}

// loadAhead loads the frames of pieces that nobody else has or loads.
func (m *Image) loadAhead(ctx context.Context, pieces []piece) {
	m.fetch(ctx, pieces, m.claim(pieces))
	m.release(pieces)
}

// fetch loads the frames of pieces that are ours, of which there are so many.
func (m *Image) fetch(ctx context.Context, pieces []piece, mine int) {
	if mine == 0 {
		return
	}
	var g errgroup.Group
	g.SetLimit(m.v.distance.fetches)
	for len(pieces) > 0 {
		group := leading(pieces)
		pieces = pieces[max(1, len(group)):]
		if len(group) == 0 {
			continue
		}
		mine -= len(group)
		if mine == 0 { // the last one needs no goroutine
			m.load(ctx, group)
			break
		}
		g.Go(func() error {
			m.load(ctx, group)
			return nil
		})
	}
	_ = g.Wait() // the entries have the errors
}

// leading returns the pieces at the begin that are ours and can be read at once; none
// when the first one is not ours.
func leading(pieces []piece) []piece {
	if !pieces[0].mine {
		return nil
	}
	end := 1
	for end < len(pieces) && pieces[end].follows(&pieces[end-1]) && pieces[end].end()-pieces[0].begin() <= maxFetch {
		end++
	}
	return pieces[:end]
}

func (p *piece) begin() int64 { return p.ix.Frames[p.frame].Offset }
func (p *piece) end() int64   { return p.ix.Frames[p.frame].End() }

// follows tells whether p is to be loaded and lies right behind before.
func (p *piece) follows(before *piece) bool {
	return p.mine && p.ref.id == before.ref.id && p.frame == before.frame+1
}

var storedBuffers = sync.Pool{New: func() any { b := make([]byte, 0, maxFetch); return &b }}

// load reads frames that lie one behind the other and fills their entries, with the
// error if there is one.
func (m *Image) load(ctx context.Context, group []piece) {
	first, last := &group[0], &group[len(group)-1]
	pooled := storedBuffers.Get().(*[]byte)
	defer storedBuffers.Put(pooled)
	n := int(last.end() - first.begin())
	if cap(*pooled) < n {
		*pooled = make([]byte, 0, n)
	}
	stored := (*pooled)[:n]
	raws, errs := make([][]byte, len(group)), make([]error, len(group))
	err := m.v.readSegment(ctx, m.server, first.ref, stored, first.begin(), func() error {
		var damage error
		for i := range group {
			pc := &group[i]
			room := raws[i]
			if cap(room) == 0 {
				room = frameRoom(int(pc.ix.Frames[pc.frame].Raw))
			}
			raws[i], errs[i] = pc.ix.OpenInto(room[:0], pc.frame, stored[pc.begin()-first.begin():pc.end()-first.begin()])
			damage = errors.Join(damage, errs[i])
		}
		return damage
	})
	for i := range group {
		frameErr := errs[i]
		if err != nil && !damaged(err) || raws[i] == nil && frameErr == nil {
			frameErr = err // they could not even be read
		}
		m.v.frames.fill(group[i].entry, raws[i], int64(cap(raws[i]))+256, frameErr)
	}
}

// copyOut copies a piece once its frame is loaded.
func (m *Image) copyOut(ctx context.Context, pc *piece) error {
	raw, err := pc.entry.wait(ctx)
	for err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) {
			return err
		}
		// Another image began to load it and was closed: load it ourselves.
		m.v.frames.release(pc.entry)
		again := []piece{*pc}
		m.fetch(ctx, again, m.claim(again))
		pc.entry = again[0].entry
		raw, err = pc.entry.wait(ctx)
	}
	if pc.from+len(pc.dst) > len(raw) {
		return fmt.Errorf("frame %d of segment %s is %d bytes short", pc.frame, pc.ref.id, pc.from+len(pc.dst)-len(raw))
	}
	copy(pc.dst, raw[pc.from:])
	return nil
}
