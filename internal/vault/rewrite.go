package vault

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"slices"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/extent"
	"lifeboat/internal/vault/segment"
)

// rewriter writes what is live of a stretch into new segments.
type rewriter struct {
	b     *branch
	s     *survey
	at    stretch
	ids   []segment.ID // that were promised and are not used yet
	first bool         // nothing lies below the stretch

	items   []item
	held    int64 // bytes in items
	builder *segment.Builder
	pending packing
	out     []segmentRef
}

// item is a frame, or a part of one, on its way.
type item struct {
	volume  uint32
	runs    []extent.Record // Block and Count
	codec   segment.Codec
	raw     int
	payload []byte
	digest  [16]byte
	part    bool // payload is raw blocks of a frame of which others are dead
}

// packing is parts that are put together into a frame.
type packing struct {
	volume uint32
	runs   []extent.Record
	raw    bytes.Buffer
}

// batchBytes is how much is held in memory to be sorted by block: neighbours on the disk
// become neighbours in the segment.
const batchBytes = 64 << 20

// bottom tells whether there is nothing that zeros of the stretch could hide. One without
// data keeps them, lest nothing be left of the gap.
func (s *survey) bottom(st stretch, base *base) bool {
	data := int64(0)
	for i := st.lo; i < st.hi; i++ {
		data += s.live[i]
	}
	return st.lo == 0 && s.after == 0 && base == nil && data > 0
}

// newIDs returns names for as many segments as the stretch may become: never more than
// it was.
func (st stretch) newIDs(l limits) []segment.ID {
	n := 0
	if st.hi > st.lo {
		n = int(min(int64(st.hi-st.lo), st.live/int64(l.segmentBytes)*5/4+2))
	}
	ids := make([]segment.ID, n)
	for i := range ids {
		rand.Read(ids[i][:])
	}
	return ids
}

// run rewrites the stretch and returns what takes its place.
func (w *rewriter) run(ctx context.Context) ([]segmentRef, error) {
	live := w.located()
	for i := w.at.lo; i < w.at.hi; i++ {
		if err := w.take(ctx, i, live[uint32(i)]); err != nil {
			return nil, err
		}
		if w.held >= batchBytes {
			if err := w.emit(ctx); err != nil {
				return nil, err
			}
		}
	}
	if err := w.emit(ctx); err != nil {
		return nil, err
	}
	if w.builder != nil {
		if err := w.close(ctx); err != nil {
			return nil, err
		}
	}
	return w.out, nil
}

// located is a run of blocks of a segment that is live.
type located struct {
	volume uint32
	rec    extent.Record
}

// located returns what is live in each segment of the stretch, by position.
func (w *rewriter) located() map[uint32][]located {
	out := map[uint32][]located{}
	for id, records := range w.s.maps {
		for _, r := range records {
			if !r.Zero() && int(r.Seg) >= w.at.lo && int(r.Seg) < w.at.hi {
				out[r.Seg] = append(out[r.Seg], located{uint32(id), r})
			}
		}
	}
	for _, l := range out {
		slices.SortFunc(l, func(a, b located) int { return int(int64(a.rec.Pos) - int64(b.rec.Pos)) })
	}
	return out
}

// take reads what is live of segment i.
func (w *rewriter) take(ctx context.Context, i int, live []located) error {
	ref := &w.s.refs[i]
	if len(live) == 0 && ref.known() && ref.zeros == 0 {
		return nil
	}
	v, b := w.b.v, w.b
	ix, err := v.readIndex(ctx, b.server, b.key, ref)
	if err != nil {
		return err
	}
	w.zeros(ix)
	frames := framesOf(ix, live)
	for lo := 0; lo < len(frames); {
		hi := lo + 1
		begin := ix.Frames[frames[lo].frame].Offset
		for hi < len(frames) && frames[hi].frame == frames[hi-1].frame+1 && ix.Frames[frames[hi].frame].End()-begin <= 4<<20 {
			hi++
		}
		stored := make([]byte, ix.Frames[frames[hi-1].frame].End()-begin)
		if err := readFull(ctx, v.store, ref.object(b.server), stored, ref.offset+begin); err != nil {
			return err
		}
		for _, f := range frames[lo:hi] {
			at := ix.Frames[f.frame]
			if err := w.frame(ix, f, stored[at.Offset-begin:at.End()-begin]); err != nil {
				return err
			}
		}
		lo = hi
	}
	return nil
}

// zeros takes over what the segment made zeros, where it still is. Below the first
// stretch of all there is nothing to hide.
func (w *rewriter) zeros(ix *segment.Index) {
	for _, vol := range ix.Volumes {
		final := w.s.maps[VolumeID(vol.ID)]
		for _, z := range vol.Extents {
			if !z.Zero() || w.first {
				continue
			}
			for i := extent.Find(final, z.Block); i < len(final) && final[i].Block < z.End(); i++ {
				if !final[i].Zero() {
					continue
				}
				from, to := max(z.Block, final[i].Block), min(z.End(), final[i].End())
				w.items = append(w.items, item{volume: vol.ID, runs: []extent.Record{{Block: from, Count: uint32(to - from), Pos: extent.ZeroPos}}})
			}
		}
	}
}

// liveFrame is a frame of which something is live.
type liveFrame struct {
	frame int
	parts []located // by position; Pos counts within the frame
	live  uint32    // blocks
}

func framesOf(ix *segment.Index, live []located) []liveFrame {
	var out []liveFrame
	size := uint32(ix.Header.FrameBlocks)
	for _, l := range live {
		for l.rec.Count > 0 {
			frame, within := int(l.rec.Pos/size), l.rec.Pos%size
			n := min(l.rec.Count, size-within)
			if len(out) == 0 || out[len(out)-1].frame != frame {
				out = append(out, liveFrame{frame: frame})
			}
			f := &out[len(out)-1]
			f.parts = append(f.parts, located{l.volume, extent.Record{Block: l.rec.Block, Count: n, Pos: within}})
			f.live += n
			l.rec.Block, l.rec.Pos, l.rec.Count = l.rec.Block+uint64(n), l.rec.Pos+n, l.rec.Count-n
		}
	}
	return out
}

// frame takes over a frame as it is when all of it is live, else its live blocks.
func (w *rewriter) frame(ix *segment.Index, f liveFrame, stored []byte) error {
	at := ix.Frames[f.frame]
	whole := f.live*BlockSize == at.Raw && ix.Header.FrameBlocks == FrameBlocks
	for _, p := range f.parts {
		whole = whole && p.volume == f.parts[0].volume
	}
	if whole {
		payload, err := ix.Payload(f.frame, stored)
		if err != nil {
			return err
		}
		it := item{volume: f.parts[0].volume, codec: at.Codec, raw: int(at.Raw), payload: payload}
		if ix.Digests != nil {
			it.digest = ix.Digests[f.frame]
		}
		for _, p := range f.parts {
			it.runs = append(it.runs, extent.Record{Block: p.rec.Block, Count: p.rec.Count})
		}
		w.add(it)
		return nil
	}
	raw, err := ix.Open(f.frame, stored)
	if err != nil {
		return err
	}
	for _, p := range f.parts {
		part := raw[int(p.rec.Pos)*BlockSize:][:int(p.rec.Count)*BlockSize]
		w.add(item{volume: p.volume, runs: []extent.Record{{Block: p.rec.Block, Count: p.rec.Count}}, raw: len(part), payload: slices.Clone(part), part: true})
	}
	return nil
}

func (w *rewriter) add(it item) {
	w.items = append(w.items, it)
	w.held += int64(len(it.payload)) + 128
}

// emit writes the items, in the order of their blocks.
func (w *rewriter) emit(ctx context.Context) error {
	slices.SortStableFunc(w.items, func(a, b item) int {
		if a.volume != b.volume {
			return int(int64(a.volume) - int64(b.volume))
		}
		return int(int64(a.runs[0].Block) - int64(b.runs[0].Block))
	})
	for _, it := range w.items {
		if err := w.write(ctx, it); err != nil {
			return err
		}
	}
	w.items, w.held = w.items[:0], 0
	return w.flush(ctx)
}

func (w *rewriter) write(ctx context.Context, it item) error {
	switch {
	case it.payload == nil:
		w.open().Zero(it.volume, it.runs[0].Block, it.runs[0].Count)
		return w.closeFull(ctx)
	case !it.part:
		w.open().Frame(it.volume, it.runs, it.codec, it.raw, it.payload, it.digest)
		return w.closeFull(ctx)
	}
	p := &w.pending
	if p.raw.Len() > 0 && p.volume != it.volume {
		if err := w.flush(ctx); err != nil {
			return err
		}
	}
	p.volume = it.volume
	for at, run := it.payload, it.runs[0]; run.Count > 0; {
		n := min(run.Count, uint32(FrameBlocks-p.raw.Len()/BlockSize))
		p.runs = append(p.runs, extent.Record{Block: run.Block, Count: n})
		p.raw.Write(at[:n*BlockSize])
		at, run.Block, run.Count = at[n*BlockSize:], run.Block+uint64(n), run.Count-n
		if p.raw.Len() == ChunkSize {
			if err := w.flush(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush makes a frame of the parts so far.
func (w *rewriter) flush(ctx context.Context) error {
	p := &w.pending
	if p.raw.Len() == 0 {
		return nil
	}
	codec, payload := segment.Compress(p.raw.Bytes())
	w.open().Frame(p.volume, p.runs, codec, p.raw.Len(), payload, [16]byte{})
	p.raw.Reset()
	p.runs = p.runs[:0]
	return w.closeFull(ctx)
}

func (w *rewriter) open() *segment.Builder {
	if w.builder == nil {
		// The sequences are those of the segments that go.
		h := newSegmentHeader(w.b.v.cipher, w.b.server, w.b.name, w.s.refs[w.at.lo+len(w.out)].seq)
		h.ID, w.ids = w.ids[0], w.ids[1:]
		w.builder = segment.NewBuilder(h, w.b.key, w.b.v.buffers.grown())
	}
	return w.builder
}

// closeFull ends a segment that is full, unless it is the last that may be made.
func (w *rewriter) closeFull(ctx context.Context) error {
	l, b := w.b.v.limits, w.builder
	if len(w.ids) == 0 || b.Size() < l.segmentBytes && b.Frames() < l.segmentFrames && b.Extents() < maxExtents {
		return nil
	}
	return w.close(ctx)
}

func (w *rewriter) close(ctx context.Context) error {
	s := w.builder.Finish()
	w.builder = nil
	v := w.b.v
	err := v.store.PutIfAbsent(ctx, segmentName(w.b.server, s.Header.ID), s.Bytes)
	if err != nil && !errors.Is(err, blob.ErrExists) { // it was this very put, repeated below us
		return err
	}
	w.out = append(w.out, newSegmentRef(s))
	v.buffers.recycle(s.Bytes)
	return nil
}
