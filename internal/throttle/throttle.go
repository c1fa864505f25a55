// Package throttle holds each account to a rate of requests, operation by
// operation: one that loops does not slow the others down.
package throttle

import (
	"sync"
	"time"
)

// Rate is how many requests are let through: Burst at once, and PerSecond in the
// long run. A PerSecond of zero or less lets all through.
type Rate struct {
	PerSecond float64 `json:"perSecond"`
	Burst     int     `json:"burst"`
}

// Throttle is a token bucket for each account and operation. Safe for concurrent
// use. Callers name only accounts and operations that exist, so that there are
// never more buckets than those.
type Throttle struct {
	rate func(operation string) Rate
	now  func() time.Time

	mu      sync.Mutex
	buckets map[key]*bucket
	refused map[string]int64 // by operation
}

type key struct{ account, operation string }

type bucket struct {
	tokens float64
	at     time.Time
}

// New returns a throttle with full buckets. rate tells the rate of an operation
// and must always say the same; now is the clock, nil for the system's.
func New(rate func(operation string) Rate, now func() time.Time) *Throttle {
	if now == nil {
		now = time.Now
	}
	return &Throttle{rate: rate, now: now, buckets: map[key]*bucket{}, refused: map[string]int64{}}
}

// Take lets a request through, or returns how long to wait before the next try.
func (t *Throttle) Take(account, operation string) (wait time.Duration) {
	rate := t.rate(operation)
	if rate.PerSecond <= 0 {
		return 0
	}
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	most := float64(max(rate.Burst, 1))
	b := t.buckets[key{account, operation}]
	if b == nil {
		b = &bucket{tokens: most, at: now}
		t.buckets[key{account, operation}] = b
	}
	if since := now.Sub(b.at).Seconds(); since > 0 { // a clock that was set back gives nothing
		b.tokens = min(most, b.tokens+since*rate.PerSecond)
		b.at = now
	}
	if b.tokens >= 1 {
		b.tokens--
		return 0
	}
	t.refused[operation]++
	return time.Duration((1 - b.tokens) / rate.PerSecond * float64(time.Second))
}

// Refused tells how many requests were held back since the start, by operation.
func (t *Throttle) Refused() map[string]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make(map[string]int64, len(t.refused))
	for operation, n := range t.refused {
		out[operation] = n
	}
	return out
}
