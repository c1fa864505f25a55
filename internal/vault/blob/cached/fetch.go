package cached

import (
	"context"
	"errors"
	"io"
)

// flight is a block being fetched, by one reader for all who want it.
type flight struct {
	key   key
	block int64
	done  chan struct{} // closed when the rest is set
	data  []byte        // shorter than a block where the object ends
	err   error
	// abandoned: whoever fetched it gave up, which is no news of the block.
	abandoned bool
}

// want is a block that a reader waits for, or, where it is mine, fetches.
type want struct {
	*flight // nil: there already
	mine    bool
}

// claim returns the fetch of a block. Where it is the caller's, fetch must follow.
func (c *Cache) claim(k key, block int64) want {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flights[k]; f != nil {
		return want{flight: f}
	}
	f := &flight{key: k, block: block, done: make(chan struct{})}
	c.flights[k] = f
	return want{f, true}
}

// fetch fetches those of the wants that are the caller's, neighbours in one request.
func (c *Cache) fetch(ctx context.Context, name string, wants []want) {
	for i := 0; i < len(wants); {
		n := 0
		for i+n < len(wants) && n < maxFetch && wants[i+n].mine {
			n++
		}
		if n > 0 {
			c.fetchSome(ctx, name, wants[i:i+n])
		}
		i += max(n, 1)
	}
}

// fetchSome fetches blocks that follow one another.
func (c *Cache) fetchSome(ctx context.Context, name string, some []want) {
	p := make([]byte, len(some)*BlockSize)
	n, err := c.remote.ReadAt(ctx, name, p, some[0].block*BlockSize)
	if errors.Is(err, io.EOF) || n == len(p) {
		err = nil
	} else if err == nil {
		err = io.ErrNoProgress
	}
	for i, f := range some {
		begin, end := min(n, i*BlockSize), min(n, (i+1)*BlockSize)
		f.data, f.err, f.abandoned = p[begin:end:end], err, err != nil && ctx.Err() != nil
		if err == nil {
			c.misses.Add(1)
			c.keep(f.key, f.data)
		}
	}
	c.mu.Lock()
	for _, f := range some {
		delete(c.flights, f.key)
	}
	c.mu.Unlock()
	for _, f := range some {
		close(f.done)
	}
}
