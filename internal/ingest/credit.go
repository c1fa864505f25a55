package ingest

import (
	"sync"
	"time"
)

// credits shares out how many bytes agents may have on their way and not in the vault.
// All of it may lie in this server's memory if the vault stands still, so it is bounded
// as a whole: each session has its base, and those that a long line keeps waiting share
// what is left, at most up to most each. Safe for concurrent use.
type credits struct {
	total, first, most int64

	mu     sync.Mutex
	joined map[*credit]bool
}

// credit is one session's share. Its methods are safe for concurrent use, but for
// charge, which is the receiver's.
type credit struct {
	pool *credits

	// Covered by pool.mu.
	base  int64     // from its beginning to its end
	extra int64     // on top, for as long as it needs that
	asked time.Time // when the agent last had to wait for credit; zero: never

	mu       sync.Mutex // covers what follows; taken after pool.mu
	granted  int64      // since the beginning
	received int64
	done     int64 // by the vault
	returned int64 // of done: given back, or kept back
}

const (
	// leastCredit is every session's, whatever the total.
	leastCredit = 1 << 20
	// hungryFor is how long a session that had to wait counts as one that may again.
	hungryFor = 30 * time.Second
)

func newCredits(total, first, most int64) *credits {
	return &credits{total: total, first: first, most: max(most, first), joined: map[*credit]bool{}}
}

// join gives a new session its base: less, the more sessions there are, so that three
// quarters of the total are left as long as there is enough for everybody.
func (c *credits) join() *credit {
	c.mu.Lock()
	defer c.mu.Unlock()
	base := min(c.first, c.total/4/int64(len(c.joined)+1), c.leftLocked())
	base = max(base, min(c.first, leastCredit))
	k := &credit{pool: c, base: base, granted: base}
	c.joined[k] = true
	return k
}

// leave gives all of it back.
func (k *credit) leave() {
	k.pool.mu.Lock()
	defer k.pool.mu.Unlock()
	delete(k.pool.joined, k)
}

// charge takes note of n bytes that came. It returns false where there was no credit
// left; the last message may overdraw.
func (k *credit) charge(n int) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.received >= k.granted {
		return false
	}
	k.received += int64(n)
	return true
}

// processed takes note of n bytes that are done with, and tells whether it is time to
// give credit back.
func (k *credit) processed(n int) (settle bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.done += int64(n)
	return k.done-k.returned >= k.base/4
}

// settle returns how much to give back: what is done, less what others need more.
func (k *credit) settle(now time.Time) uint32 {
	k.pool.mu.Lock()
	defer k.pool.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	give := k.done - k.returned
	k.returned = k.done
	if k.extra > 0 {
		keep := min(give, max(k.extra-k.pool.shareLocked(k, now), 0))
		k.extra -= keep
		give -= keep
	}
	k.granted += give
	return uint32(give) // never more than was granted
}

// want takes note that the agent has to wait for credit, and returns how much more it
// gets: as much again, where the line is what holds most of it, and not the vault.
func (k *credit) want(now time.Time) uint32 {
	k.pool.mu.Lock()
	defer k.pool.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	window := k.base + k.extra
	if k.received-k.done > window/4 {
		return 0
	}
	k.asked = now
	more := max(min(window, k.pool.shareLocked(k, now)-k.extra, k.pool.leftLocked()), 0)
	k.extra += more
	k.granted += more
	return uint32(more) // bounded by most, which is below 4 GiB
}

// shareLocked is how much a session may have on top of its base: all that had to wait
// lately have equal parts of what the others leave; one that had not has nothing.
func (c *credits) shareLocked(k *credit, now time.Time) int64 {
	if now.Sub(k.asked) >= hungryFor {
		return 0
	}
	hungry, others := int64(0), int64(0)
	for other := range c.joined {
		if now.Sub(other.asked) < hungryFor {
			hungry++
		} else {
			others += other.base + other.extra
		}
	}
	return max(min((c.total-others)/hungry, c.most)-k.base, 0)
}

// leftLocked is what nobody has. It may be less than nothing: a base is never refused.
func (c *credits) leftLocked() int64 {
	left := c.total
	for k := range c.joined {
		left -= k.base + k.extra
	}
	return left
}

// sum is what sessions may have on their way, all together.
func (c *credits) sum() (n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total - c.leftLocked()
}
