package replication

import (
	"context"
	"sync"
)

// Window counts the bytes that may yet be sent. The receiver gives them back
// with Credit messages as it processes what came. Safe for concurrent use.
type Window struct {
	mu   sync.Mutex
	left int64         // may fall below zero by less than one message
	more chan struct{} // closed and replaced when left grows
}

// NewWindow starts with n bytes.
func NewWindow(n uint32) *Window { return &Window{left: int64(n), more: make(chan struct{})} }

// Take waits until any credit is left and takes n bytes of it. The last taker
// may overdraw, so a message larger than the window cannot wait for ever.
func (w *Window) Take(ctx context.Context, n int) error {
	for {
		w.mu.Lock()
		if w.left > 0 {
			w.left -= int64(n)
			w.mu.Unlock()
			return nil
		}
		more := w.more
		w.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// TryTake is Take without waiting; it tells whether the bytes were taken.
func (w *Window) TryTake(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left <= 0 {
		return false
	}
	w.left -= int64(n)
	return true
}

// Give puts n bytes back.
func (w *Window) Give(n uint32) {
	w.mu.Lock()
	w.left += int64(n)
	close(w.more)
	w.more = make(chan struct{})
	w.mu.Unlock()
}

// MessageCost is what a message weighs besides its payload, in bytes, so that many small
// ones are bounded too.
const MessageCost = 4096

// Cost is the credit that sending the message takes, in bytes.
func (m *Data) Cost() int { return len(m.Payload) + MessageCost }

// Cost is the credit that sending the message takes, in bytes.
func (m *Zero) Cost() int { return MessageCost }
