package iam

import (
	"crypto/sha256"
	"sync"
	"time"
)

// maxSeen bounds each of the two generations of Replays: 4 MiB of hashes.
const maxSeen = 1 << 16

// replayWindow is for how long a signature would be accepted again: from the clock's
// earliest to its latest.
const replayWindow = 2 * MaxSkew

// Replays remembers signatures for as long as they would be accepted again, in two
// generations: a new one begins when the older one's signatures have all expired, or
// when the newer one is full. Then the memory is shorter than the validity of a
// signature, by as much as there are more than maxSeen changes in that time; only
// those who hold a secret can fill it. The zero value is ready, and forgets with its
// process; that of OpenReplays does not. Safe for concurrent use.
type Replays struct {
	mu         sync.Mutex
	began      time.Time
	new, older map[[sha256.Size]byte]struct{}
	journal    *replayJournal // nil: none
}

// first tells whether a signature is seen for the first time, and remembers it.
func (m *Replays) first(signature string, now time.Time, validity time.Duration) bool {
	hash := sha256.Sum256([]byte(signature))
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.new == nil || now.Sub(m.began) > validity || len(m.new) >= maxSeen {
		m.new, m.older, m.began = map[[sha256.Size]byte]struct{}{}, m.new, now
		m.journal.turn()
	}
	if _, ok := m.new[hash]; ok {
		return false
	}
	if _, ok := m.older[hash]; ok {
		return false
	}
	m.new[hash] = struct{}{}
	m.journal.note(hash, now)
	return true
}
