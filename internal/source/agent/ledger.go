package agent

import (
	"context"
	"sync"
	"time"

	"lifeboat/internal/replication"
	"lifeboat/internal/source/blocktrack"
)

// ledger remembers what was sent and not acknowledged: the tables take it for the
// vault's once it is, and forget it when it will not be. The cutter writes it, the
// receiver settles it.
type ledger struct {
	mu      sync.Mutex
	epochs  []openEpoch          // not acknowledged, oldest first
	changes int                  // in all of them
	doubt   []openEpoch          // of the session before: sent, and what became of them is not known
	head    head                 // after the last acknowledged epoch
	refused *replication.Refused // the server refused; cleared by rollback
	settled chan struct{}        // closed and replaced when epochs or refused change
}

// head names a state of the server's main branch.
type head struct {
	number uint64
	hash   [32]byte
}

type openEpoch struct {
	id      uint64
	changes []change
	taken   time.Time // of the point that its commit asked for; zero: it was no point, or not committed
}

// change is a chunk that was sent.
type change struct {
	disk  *disk
	chunk int64
	entry blocktrack.Entry
	bytes int64
}

// changesMost bounds the changes that wait for an acknowledgement, and so the
// memory of an agent whose vault is far away: 10 MiB, for at most 4 GiB on their way.
const changesMost = 64 << 10

func (l *ledger) begin(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epochs = append(l.epochs, openEpoch{id: id})
}

// note records a sent chunk in the open epoch.
func (l *ledger) note(c change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &l.epochs[len(l.epochs)-1]
	e.changes = append(e.changes, c)
	l.changes++
	c.disk.table.Put(c.chunk, c.entry, e.id)
}

// committing notes that the open epoch's commit is about to be sent, with the time of
// its point, if it is one.
func (l *ledger) committing(taken time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epochs[len(l.epochs)-1].taken = taken
}

// resolve looks for the head that the server names among what was sent in the session
// before and not acknowledged. Where it is the point that one of those epochs asked for,
// by the time that only this agent gave it, as many commits later, then those epochs are
// in the vault, and nothing else came since: another writer would have ended this one.
func (l *ledger) resolve(now head, taken time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.doubt {
		if e := &l.doubt[k]; now.number != l.head.number+uint64(k)+1 || e.taken.IsZero() || !e.taken.Equal(taken) {
			continue
		}
		for _, e := range l.doubt[:k+1] {
			for _, c := range e.changes {
				c.disk.table.Settle(c.chunk, c.entry, e.id)
			}
		}
		l.doubt, l.head = nil, now
		return true
	}
	return false
}

// crowded tells whether acknowledgements must come before there is more to wait for,
// and which epoch's would help.
func (l *ledger) crowded() (id uint64, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changes < changesMost || len(l.epochs) == 0 {
		return 0, false
	}
	return l.epochs[len(l.epochs)/2].id, true
}

// acknowledge settles an epoch and those before it.
func (l *ledger) acknowledge(m *replication.Ack) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.epochs) > 0 && l.epochs[0].id <= m.Epoch {
		e := l.epochs[0]
		for _, c := range e.changes {
			c.disk.table.Settle(c.chunk, c.entry, e.id)
		}
		l.changes -= len(e.changes)
		l.epochs = l.epochs[1:]
	}
	l.head = head{m.HeadNumber, m.HeadHash}
	l.notifyLocked()
}

func (l *ledger) refuse(m *replication.Refused) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused = m
	l.notifyLocked()
}

func (l *ledger) notifyLocked() {
	if l.settled != nil {
		close(l.settled)
		l.settled = nil
	}
}

// refusal returns the refusal that no rollback has answered yet.
func (l *ledger) refusal() *replication.Refused {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused
}

// await waits until the epoch is acknowledged or refused.
func (l *ledger) await(ctx context.Context, id uint64) (*replication.Refused, error) {
	for {
		l.mu.Lock()
		if l.refused != nil || len(l.epochs) == 0 || l.epochs[0].id > id {
			defer l.mu.Unlock()
			return l.refused, nil
		}
		if l.settled == nil {
			l.settled = make(chan struct{})
		}
		settled := l.settled
		l.mu.Unlock()
		select {
		case <-settled:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// backlog is the bytes of each disk that were sent and not acknowledged.
func (l *ledger) backlog(disks []*disk) []int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := map[*disk]int64{}
	for _, e := range l.epochs {
		for _, c := range e.changes {
			of[c.disk] += c.bytes
		}
	}
	sums := make([]int64, len(disks))
	for i, d := range disks {
		sums[i] = of[d]
	}
	return sums
}

// rollback forgets in the tables what was not acknowledged, and returns it by disk.
// No pass may be running.
func (l *ledger) rollback(disks []*disk) []blocktrack.Changes {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := map[*disk][]blocktrack.Range{}
	for _, e := range l.epochs {
		for _, c := range e.changes {
			of[c.disk] = append(of[c.disk], blocktrack.Range{Offset: c.chunk * blocktrack.ChunkSize, Length: blocktrack.ChunkSize})
		}
	}
	undone := make([]blocktrack.Changes, len(disks))
	for i, d := range disks {
		undone[i].Ranges = blocktrack.Join(of[d])
		if d.table != nil {
			d.table.Rollback()
		}
	}
	l.doubt = l.epochs
	if l.refused != nil {
		l.doubt = nil // they are not in the vault
	}
	l.epochs, l.changes, l.refused = nil, 0, nil
	l.notifyLocked()
	return undone
}

// reset makes the ledger follow a head that the server named.
func (l *ledger) reset(h head) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epochs, l.changes, l.doubt, l.refused, l.head = nil, 0, nil, nil, h
}

// idle tells whether all that was sent is acknowledged.
func (l *ledger) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.epochs) == 0 && l.refused == nil
}

func (l *ledger) at() head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}
