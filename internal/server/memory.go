package server

import (
	"context"
	"runtime/debug"
	"time"
)

// shrink keeps a server at rest small. After a sync most of the heap is buffers
// that nobody needs; by itself the runtime would keep them for minutes, and their
// memory for good. A collection of a heap of ours takes a few milliseconds.
func shrink(ctx context.Context) {
	debug.SetGCPercent(50)
	tick := time.NewTicker(20 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			debug.FreeOSMemory()
		case <-ctx.Done():
			return
		}
	}
}
