package vault

import (
	"context"
	"sync"
	"time"
)

// pace keeps work on many bytes below a rate. Safe for concurrent use; a nil or zero
// one keeps nobody waiting.
type pace struct {
	rate int64 // bytes per second; 0: any

	mu   sync.Mutex
	free time.Time // when what was spent is paid for; guarded by mu
}

// spend waits until n bytes more may be had.
func (p *pace) spend(ctx context.Context, n int) error {
	if p == nil || p.rate <= 0 {
		return ctx.Err()
	}
	p.mu.Lock()
	now := time.Now()
	if p.free.Before(now) {
		p.free = now
	}
	wait := p.free.Sub(now)
	p.free = p.free.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	p.mu.Unlock()
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
