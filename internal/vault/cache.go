package vault

import (
	"container/list"
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// cache keeps loaded values up to a number of bytes, dropping the ones least
// recently used, and sees to it that each is loaded by one caller at a time. Values
// are shared and must not be changed. Safe for concurrent use.
type cache[K comparable, V any] struct {
	seed maphash.Seed
	// free takes back a value that was dropped and that everyone who claimed it has
	// released; nil: values are left to the garbage collector, and need no release.
	free   func(V)
	shards [16]cacheShard[K, V]
}

type cacheShard[K comparable, V any] struct {
	mu      sync.Mutex
	limit   int64
	used    int64
	entries map[K]*cacheEntry[K, V]
	order   *list.List // of *cacheEntry that are loaded, newest first
}

// cacheEntry is a value that is loaded or being loaded.
type cacheEntry[K comparable, V any] struct {
	key   K
	ready chan struct{} // closed when value and err are set
	value V
	err   error
	size  int64
	place *list.Element // guarded by the shard's mu; nil while loading

	users atomic.Int32 // claims that are not released, and one for the cache itself
}

func newCache[K comparable, V any](limit int64, free func(V)) *cache[K, V] {
	c := &cache[K, V]{seed: maphash.MakeSeed(), free: free}
	for i := range c.shards {
		c.shards[i] = cacheShard[K, V]{limit: limit / int64(len(c.shards)), entries: map[K]*cacheEntry[K, V]{}, order: list.New()}
	}
	return c
}

func (c *cache[K, V]) shard(key K) *cacheShard[K, V] {
	return &c.shards[maphash.Comparable(c.seed, key)%uint64(len(c.shards))]
}

// claim returns the entry of a key, whose value stays as it is until release. When
// mine is true the caller must fill it, whatever happens; otherwise it can be waited for.
func (c *cache[K, V]) claim(key K) (e *cacheEntry[K, V], mine bool) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil {
		if e.place != nil {
			s.order.MoveToFront(e.place)
		}
		e.users.Add(1) // it is in the map, so that the cache uses it still
		return e, false
	}
	e = &cacheEntry[K, V]{key: key, ready: make(chan struct{})}
	e.users.Store(2)
	s.entries[key] = e
	return e, true
}

// release ends the use of an entry: its value may become another one's. Call it once
// for each claim, after the entry was filled if it was to be.
func (c *cache[K, V]) release(e *cacheEntry[K, V]) {
	if e.users.Add(-1) == 0 && c.free != nil {
		c.free(e.value)
	}
}

// fill sets the value of a claimed entry, or the error that everyone waiting for
// it gets; errors are not kept.
func (c *cache[K, V]) fill(e *cacheEntry[K, V], value V, size int64, err error) {
	e.value, e.err, e.size = value, err, size
	s := c.shard(e.key)
	s.mu.Lock()
	if err != nil {
		delete(s.entries, e.key)
		c.release(e)
	} else {
		e.place = s.order.PushFront(e)
		s.used += size
		for s.used > s.limit && s.order.Len() > 1 {
			old := s.order.Remove(s.order.Back()).(*cacheEntry[K, V])
			delete(s.entries, old.key)
			s.used -= old.size
			c.release(old)
		}
	}
	s.mu.Unlock()
	close(e.ready)
}

// has tells whether a value is loaded or being loaded.
func (c *cache[K, V]) has(key K) bool {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entries[key] != nil
}

// wait returns the value once it is loaded.
func (e *cacheEntry[K, V]) wait(ctx context.Context) (V, error) {
	select {
	case <-e.ready:
		return e.value, e.err
	default:
	}
	select {
	case <-e.ready:
		return e.value, e.err
	case <-ctx.Done():
		var none V
		return none, context.Cause(ctx)
	}
}

// get returns the value of a key, loading it if need be.
func (c *cache[K, V]) get(ctx context.Context, key K, load func() (V, int64, error)) (V, error) {
	for {
		e, mine := c.claim(key)
		if mine {
			value, size, err := load()
			c.fill(e, value, size, err)
			return value, err
		}
		value, err := e.wait(ctx)
		if err != nil && ctx.Err() == nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
			continue // the one who loaded it gave up, we did not
		}
		return value, err
	}
}
