package vault

import (
	"context"
	"fmt"
	"sync"
	"testing"
)

// The room of a frame goes to another one only when everyone who claimed it has
// let go: readers that hold on while the cache drops all there is see it unchanged.
func TestFrameRoomIsNotSharedWithItsReaders(t *testing.T) {
	const keys, rounds = 64, 2000
	c := newCache[int, []byte](16*2*frameBytes, freeFrame) // two frames per shard
	fill := func(k int) []byte {
		raw := frameRoom(frameBytes)[:frameBytes]
		for i := range raw {
			raw[i] = byte(k)
		}
		return raw
	}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range rounds {
				k := (i*7 + worker*13) % keys
				e, mine := c.claim(k)
				switch {
				case mine && i%50 == 0:
					c.fill(e, nil, 0, fmt.Errorf("round %d", i)) // it could not be loaded
				case mine:
					c.fill(e, fill(k), frameBytes, nil)
				}
				other, mine := c.claim((k + 1) % keys) // may drop ours
				if mine {
					c.fill(other, fill((k+1)%keys), frameBytes, nil)
				}
				if raw, err := e.wait(context.Background()); err == nil {
					for at := 0; at < len(raw); at += 4095 {
						if raw[at] != byte(k) {
							t.Errorf("frame %d holds bytes of frame %d", k, raw[at])
							return
						}
					}
				}
				c.release(other)
				c.release(e)
			}
		})
	}
	wg.Wait()
}
