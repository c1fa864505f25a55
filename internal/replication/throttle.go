package replication

import (
	"context"
	"sync"
	"time"
)

// Throttle spreads sent bytes over time so that they stay below a rate, which
// may change while running. The zero value lets everything pass. Safe for
// concurrent use.
type Throttle struct {
	mu      sync.Mutex
	rate    float64 // bytes per second, 0: unlimited
	due     time.Time
	changed chan struct{} // closed when the rate changes
}

// throttleBurst is how far sending may run ahead of the rate.
const throttleBurst = 50 * time.Millisecond

// Set changes the rate to mbps million bits per second, 0 for no limit. Waiting
// callers follow at once.
func (t *Throttle) Set(mbps uint32) {
	t.mu.Lock()
	t.rate = float64(mbps) * 1e6 / 8
	t.due = time.Now()
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
	t.mu.Unlock()
}

// Wait blocks until n more bytes may be sent, and tells for how long.
func (t *Throttle) Wait(ctx context.Context, n int) (time.Duration, error) {
	t.mu.Lock()
	if t.rate == 0 {
		t.mu.Unlock()
		return 0, nil
	}
	now := time.Now()
	if earliest := now.Add(-throttleBurst); t.due.Before(earliest) {
		t.due = earliest
	}
	t.due = t.due.Add(time.Duration(float64(n) / t.rate * float64(time.Second)))
	pause := t.due.Sub(now)
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	changed := t.changed
	t.mu.Unlock()
	if pause <= 0 {
		return 0, nil
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-changed:
	case <-ctx.Done():
		return time.Since(now), context.Cause(ctx)
	}
	return time.Since(now), nil
}
