package vault

import (
	"context"
	"sync"
)

// uploadList is the segments of one epoch on their way to the store.
type uploadList struct {
	ctx    context.Context // the epoch's; ends with the first failure
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

// buffer returns an empty buffer with room for a full segment.
func (v *Vault) buffer() []byte {
	if b, ok := v.buffers.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, v.fullBuffer())
}

// recycle takes back a buffer that nobody uses any more.
func (v *Vault) recycle(b []byte) {
	if cap(b) >= v.fullBuffer() {
		b = b[:0]
		v.buffers.Put(&b)
	}
}

// fullBuffer has room for the frames of a full segment, the last of which may
// reach beyond its size, and for an index of usual size.
func (v *Vault) fullBuffer() int { return v.limits.segmentBytes + 2*MaxPayload + 256<<10 }
