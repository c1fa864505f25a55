package recovery

import (
	"context"
	"sync"

	"lifeboat/internal/drs"
)

// holds lets one at a time start or remove a machine: between reading an
// instance's record and acting on it, nobody else may act.
type holds struct {
	mu   sync.Mutex
	held map[drs.RecoveryInstanceID]chan struct{} // closed when it is let go; guarded by mu
}

// hold waits until nobody else holds the instance. The caller must call release.
func (h *holds) hold(ctx context.Context, id drs.RecoveryInstanceID) (release func(), err error) {
	for {
		h.mu.Lock()
		other, busy := h.held[id]
		if !busy {
			mine := make(chan struct{})
			h.held[id] = mine
			h.mu.Unlock()
			return func() {
				h.mu.Lock()
				defer h.mu.Unlock()
				delete(h.held, id)
				close(mine)
			}, nil
		}
		h.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
