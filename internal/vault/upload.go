package vault

import (
	"context"
	"sync"
)

// uploadList is the segments of one epoch on their way to the store.
type uploadList struct {
	ctx    context.Context //nolint:containedctx // the epoch's, from Begin; ends with the first failure
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
}

// start runs put as soon as there is a token. It returns why the uploads ended.
func (u *uploadList) start(tokens chan struct{}, put func(context.Context) error) error {
	select {
	case tokens <- struct{}{}:
	case <-u.ctx.Done():
		return context.Cause(u.ctx)
	}
	u.wg.Go(func() {
		defer func() { <-tokens }()
		if err := put(u.ctx); err != nil {
			u.cancel(err)
		}
	})
	return nil
}

// wait returns, once nothing is under way any more, the first failure.
func (u *uploadList) wait() error {
	u.wg.Wait()
	if u.ctx.Err() != nil {
		return context.Cause(u.ctx)
	}
	return nil
}

// smallBuffer is what an epoch begins with; most need no more.
const smallBuffer = 256 << 10

// buffers are empty byte slices of two sizes, used again and again.
type buffers struct {
	full         int // bytes
	small, large sync.Pool
}

// begin returns a buffer for a segment that may stay small.
func (p *buffers) begin() []byte { return get(&p.small, smallBuffer) }

// grown returns a buffer with room for a full segment.
func (p *buffers) grown() []byte { return get(&p.large, p.full) }

func get(p *sync.Pool, size int) []byte {
	if b, ok := p.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, size)
}

// recycle takes back a buffer that nobody uses any more.
func (p *buffers) recycle(b []byte) {
	b = b[:0]
	switch {
	case cap(b) >= p.full:
		p.large.Put(&b)
	case cap(b) >= smallBuffer:
		p.small.Put(&b)
	}
}

// fullBuffer has room for the frames of a full segment, the last of which may
// reach beyond its size, and for an index of usual size.
func (l limits) fullBuffer() int { return l.segmentBytes + 2*MaxPayload + 256<<10 }
