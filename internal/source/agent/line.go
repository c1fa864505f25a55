package agent

import (
	"sync/atomic"
	"time"
)

// line measures what limits an agent that has much to send: packing, or the way
// to the vault. The shipper measures; anyone may ask.
type line struct {
	done time.Time // when the last chunk was sent
	// Means over the last fifty chunks or so, per chunk.
	sending, whole time.Duration
	bytes          float64
	slow           atomic.Bool
}

// A line is slow when the shipper spends more than slowShare of its time in
// sending, and no more than slowRate bytes per second come of it. The share alone
// does not tell: on a busy machine everything waits for the processor, and then
// packing better is the wrong answer.
const (
	slowShare = 0.75
	slowRate  = 100e6
)

// measure takes note of n bytes sent from start until now.
func (l *line) measure(start time.Time, n int) {
	now := time.Now()
	if !l.done.IsZero() {
		l.sending += (now.Sub(start) - l.sending) / 50
		l.whole += (now.Sub(l.done) - l.whole) / 50
		l.bytes += (float64(n) - l.bytes) / 50
		share := float64(l.sending) / float64(max(l.whole, 1))
		l.slow.Store(share > slowShare && l.bytes < slowRate*l.whole.Seconds())
	}
	l.done = now
}
