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
// that who reads them next finds them in memory or, with a cache, on the disk beside.
// While others wait for the store it goes on one request at a time. It returns when it
// is done or ctx ends, and must be over before the image is closed. What cannot be loaded
// is left to who reads it.
func (m *Image) Prefetch(ctx context.Context, t Trace) error {
	limit := m.v.prefetch
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
			if limit -= n; limit < 0 || ctx.Err() != nil || m.ctx.Err() != nil {
				break
			}
			g.Go(func() error {
				r.prefetch(ctx, off, n)
				return nil
			})
		}
	}
	_ = g.Wait() // they do not fail
	return context.Cause(ctx)
}

func (r *VolumeReader) prefetch(ctx context.Context, off, n int64) {
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
	m.fetch(ctx, pieces, m.claim(pieces))
}
