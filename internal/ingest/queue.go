package ingest

import (
	"context"
	"sync"

	"lifeboat/internal/replication"
)

// queue holds messages in their order between a session's receiver and its worker, one
// goroutine each. It takes memory for what is in it, and not for what could be.
type queue struct {
	most int

	mu        sync.Mutex
	items     []replication.Message
	came, fit chan struct{} // capacity 1: something was put in, or taken out
}

func newQueue(most int) *queue {
	return &queue{most: most, came: make(chan struct{}, 1), fit: make(chan struct{}, 1)}
}

// put appends a message, as soon as there is room.
func (q *queue) put(ctx context.Context, m replication.Message) error {
	for {
		q.mu.Lock()
		if len(q.items) < q.most {
			q.items = append(q.items, m)
			q.mu.Unlock()
			signal(q.came)
			return nil
		}
		q.mu.Unlock()
		select {
		case <-q.fit:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// take returns the first message, or nil where there is none: then came tells.
func (q *queue) take() replication.Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		q.items = nil
		return nil
	}
	m := q.items[0]
	q.items[0] = nil
	q.items = q.items[1:]
	signal(q.fit)
	return m
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
