package vault

import (
	"context"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// demand knows of readers that wait for the store, to whom a prefetch gives way.
type demand struct {
	waiting atomic.Int64
	slow    sync.Mutex // held by the one prefetch that goes on while others wait
}

// Prefetch loads the frames that a trace names, in its order and a few at a time, so
// that who reads them next finds them in memory. Of those that are more than half of
// the frame cache the stored bytes are read only: they are in the cache on disk then,
// or in the system's, and to decode them would drop what is needed first.
// While others wait for the store it goes on one request at a time. It returns when it
// is done or ctx ends, and must be over before the image is closed. What cannot be loaded
// is left to who reads it.
func (m *Image) Prefetch(ctx context.Context, t Trace) error {
	limit := m.v.prefetch
	load := (*Image).loadAhead
	var g errgroup.Group
	g.SetLimit(max(2, m.v.distance.fetches/2))
	for _, run := range t {
		r := m.readers[run.Volume]
		if r == nil {
			continue // that volume was not there yet
		}
		end := min(r.volume.Size, (int64(run.Chunk)+int64(run.Count))*ChunkSize)
		for off := int64(run.Chunk) * ChunkSize; off < end; off += aheadChunk {
			n := min(aheadChunk, end-off)
			if limit -= n; limit < 0 {
				load = (*Image).warm
			}
			if limit < 0 && !m.v.prewarm || ctx.Err() != nil || m.ctx.Err() != nil {
				break
			}
			load := load
			g.Go(func() error {
				r.prefetch(ctx, off, n, load)
				return nil
			})
		}
	}
	_ = g.Wait() // they do not fail
	return context.Cause(ctx)
}

// prefetch has [off, off+n) loaded by one of the two ways.
func (r *VolumeReader) prefetch(ctx context.Context, off, n int64, load func(*Image, context.Context, []piece)) {
	m := r.image
	if ctx.Err() != nil {
		return
	}
	if m.demand.waiting.Load() > 0 {
		m.demand.slow.Lock()
		defer m.demand.slow.Unlock()
	}
	pieces, err := r.pieces(ctx, m.view.Load(), nil, nil, off, n)
	if err != nil {
		return
	}
	load(m, ctx, pieces)
}

// warm reads the stored bytes of frames that are not in memory, and does no more with
// them: whether they are damaged finds out who needs them.
func (m *Image) warm(ctx context.Context, pieces []piece) {
	for i := range pieces {
		pieces[i].mine = !m.v.frames.has(frameKey{pieces[i].ref.id, uint32(pieces[i].frame)})
	}
	pooled := storedBuffers.Get().(*[]byte)
	defer storedBuffers.Put(pooled)
	for len(pieces) > 0 && ctx.Err() == nil {
		group := leading(pieces)
		pieces = pieces[max(1, len(group)):]
		if len(group) == 0 {
			continue
		}
		first := &group[0]
		n := int(group[len(group)-1].end() - first.begin())
		if cap(*pooled) < n {
			*pooled = make([]byte, 0, n)
		}
		_ = readFull(ctx, m.v.segments, first.ref.object(m.server), (*pooled)[:n], first.ref.offset+first.begin()) // likewise
	}
}
