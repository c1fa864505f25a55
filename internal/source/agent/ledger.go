package agent

import (
	"context"
	"sync"

	"lifeboat/internal/replication"
	"lifeboat/internal/source/blocktrack"
)

// ledger remembers what was sent and not acknowledged, so that the tables can go
// back to what the vault surely holds. The cutter writes it, the receiver
// settles it.
type ledger struct {
	mu      sync.Mutex
	epochs  []openEpoch          // not acknowledged, oldest first
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
	id   uint64
	undo []undo
}

// undo is how a chunk's digest was before it was sent.
type undo struct {
	disk  int
	chunk int64
	old   blocktrack.Digest
	bytes int64
}

func (l *ledger) begin(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epochs = append(l.epochs, openEpoch{id: id})
}

// note records a sent chunk in the open epoch.
func (l *ledger) note(u undo) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := &l.epochs[len(l.epochs)-1]
	e.undo = append(e.undo, u)
}

// acknowledge forgets an epoch and those before it.
func (l *ledger) acknowledge(m *replication.Ack) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.epochs) > 0 && l.epochs[0].id <= m.Epoch {
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
func (l *ledger) backlog(disks int) []int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	sums := make([]int64, disks)
	for _, e := range l.epochs {
		for _, u := range e.undo {
			sums[u.disk] += u.bytes
		}
	}
	return sums
}

// rollback undoes in the tables what was not acknowledged, and returns it by disk.
// No pass may be running.
func (l *ledger) rollback(disks []*disk) []blocktrack.Changes {
	l.mu.Lock()
	defer l.mu.Unlock()
	undone := make([]blocktrack.Changes, len(disks))
	for i := len(l.epochs) - 1; i >= 0; i-- {
		log := l.epochs[i].undo
		for j := len(log) - 1; j >= 0; j-- {
			u := log[j]
			disks[u.disk].table.Set(u.chunk, u.old)
			undone[u.disk].Ranges = append(undone[u.disk].Ranges, blocktrack.Range{Offset: u.chunk * blocktrack.ChunkSize, Length: u.bytes})
		}
	}
	for i := range undone {
		undone[i].Ranges = blocktrack.Join(undone[i].Ranges)
	}
	l.epochs, l.refused = nil, nil
	l.notifyLocked()
	return undone
}

// reset makes the ledger follow a head that the server named.
func (l *ledger) reset(h head) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epochs, l.refused, l.head = nil, nil, h
}

func (l *ledger) at() head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}
