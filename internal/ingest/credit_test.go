package ingest

import (
	"math/rand/v2"
	"testing"
	"time"
)

const mib = 1 << 20

// line is an agent and the server's worker at the two ends of a line, as far as credit
// goes.
type line struct {
	k      *credit
	agent  int64 // credit that the agent has
	queued int64 // came and is not in the vault
}

func (l *line) send(t *testing.T, n int64) {
	t.Helper()
	if l.agent <= 0 {
		t.Fatal("a test of an agent that keeps to its credit sends without")
	}
	l.agent -= n
	l.queued += n
	if !l.k.charge(int(n)) {
		t.Fatalf("refused with %d bytes of credit left", l.agent+n)
	}
}

func (l *line) store(n int64, now time.Time) {
	l.queued -= n
	if l.k.processed(int(n)) {
		l.agent += int64(l.k.settle(now))
	}
}

// exhaust sends all that there is credit for, has it stored, and asks for more.
func (l *line) exhaust(t *testing.T, now time.Time) {
	t.Helper()
	for l.agent > 0 {
		l.send(t, min(l.agent, mib))
	}
	held := l.queued
	l.queued = 0
	l.k.processed(int(held)) // before it asks, as on a long line
	l.agent += int64(l.k.want(now))
	l.agent += int64(l.k.settle(now))
}

// An agent that its line keeps waiting gets more and more credit, one that the vault
// keeps waiting none; who needs it no more gives it back as it sends on.
func TestCreditGrowsWithTheLine(t *testing.T) {
	now := time.Now()
	c := newCredits(1<<30, 8*mib, 64*mib)
	long, slow := &line{k: c.join()}, &line{k: c.join()}
	long.agent, slow.agent = long.k.base, slow.k.base
	for range 8 {
		long.exhaust(t, now)
	}
	if long.agent != 64*mib {
		t.Errorf("%d bytes of credit for the long line, want 64 MiB", long.agent)
	}
	for slow.agent > 0 {
		slow.send(t, 64<<10)
	}
	if n := slow.k.want(now); n != 0 {
		t.Errorf("%d bytes more for an agent whose data the vault has not taken", n)
	}
	later := now.Add(time.Minute)
	for range 64 {
		for range 16 {
			long.send(t, 64<<10)
			long.store(64<<10, later)
		}
	}
	long.agent += int64(long.k.settle(later))
	if long.agent != 8*mib || c.sum() != 16*mib {
		t.Errorf("%d bytes of credit after a while without need, all have %d", long.agent, c.sum())
	}
}

// However many agents come, wait, send and go, what is granted stays within the total,
// but for the least of each, and every one of them that has to wait gets its share.
func TestCreditIsSharedOut(t *testing.T) {
	const total = 256 * mib
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	now := time.Now()
	c := newCredits(total, 8*mib, 64*mib)
	var lines []*line
	for step := range 1500 {
		now = now.Add(time.Duration(rng.IntN(2000)) * time.Millisecond)
		switch n := rng.IntN(10); {
		case n == 0 && len(lines) < 60 || len(lines) == 0:
			k := c.join()
			lines = append(lines, &line{k: k, agent: k.base})
		case n == 1:
			i := rng.IntN(len(lines))
			lines[i].k.leave()
			lines = append(lines[:i], lines[i+1:]...)
		default:
			lines[rng.IntN(len(lines))].exhaust(t, now)
		}
		if sum := c.sum(); sum > total+60*leastCredit {
			t.Fatalf("step %d: %d bytes granted to %d agents of %d", step, sum, len(lines), total)
		}
		for _, l := range lines {
			if l.agent+l.queued > l.k.base+l.k.extra || l.agent < 0 {
				t.Fatalf("step %d: an agent with a window of %d has %d left and %d queued", step, l.k.base+l.k.extra, l.agent, l.queued)
			}
		}
	}
	for len(lines) < 30 {
		k := c.join()
		lines = append(lines, &line{k: k, agent: k.base})
	}
	for range 20 {
		for _, l := range lines {
			l.exhaust(t, now)
		}
	}
	least, largest := lines[0].agent, lines[0].agent
	for _, l := range lines {
		least, largest = min(least, l.agent), max(largest, l.agent)
	}
	if largest > 4*least || c.sum() < total*3/4 {
		t.Errorf("of %d bytes %d are granted, to the one %d and to the other %d", int64(total), c.sum(), least, largest)
	}
	for range 500 {
		c.join()
	}
	if k := c.join(); k.base != leastCredit {
		t.Errorf("one of hundreds begins with %d bytes", k.base)
	}
}

// An agent that sends without credit is told off.
func TestCreditIsHeld(t *testing.T) {
	k := newCredits(1<<30, mib, mib).join()
	for range 16 {
		if !k.charge(64 << 10) {
			t.Fatal("refused what there is credit for")
		}
	}
	if k.charge(1) {
		t.Error("took more than there is credit for")
	}
}
