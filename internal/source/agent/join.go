package agent

import (
	"context"
	"fmt"
	"time"

	"lifeboat/internal/replication"
	"lifeboat/internal/source/blocktrack"
)

// A disk that is new to a server that has points joins it: it is read piece by piece
// between the passes over the others, whose points go on. What is written to it meanwhile the
// tracker collects. Once its end is reached the server is told, and the next point holds it.

// joinPiece is how much of a joining disk is read at a time, in bytes: on a slow line the
// points of the other disks wait for no more than that.
const joinPiece = 8 << 20

// setJoining takes up what the server said of the disks. afresh: nothing is known of what
// was read of them before.
func (s *session) setJoining(volumes []replication.Volume, afresh bool) {
	a := s.a
	for i, d := range a.disks.all {
		if volumes[i].Apart && d.lost() != nil {
			d.unfinished = true
		}
		switch apart, was := volumes[i].Apart && d.lost() == nil, d.joining.Load(); {
		case apart && (afresh || !was):
			d.joined = 0
			d.scanned.Store(0)
			d.named.Store(0)
			a.todo[i] = blocktrack.Changes{}
			if !was {
				a.log.Info("a disk joins: points go on without it until all of it is in the vault", "disk", d.name, "bytes", d.size)
			}
			d.joining.Store(true)
		case !apart && was:
			d.joining.Store(false)
			a.todo[i], a.complete = blocktrack.Changes{All: true}, false
		}
	}
}

// joinChanges takes up what was written to a joining disk.
func (a *agent) joinChanges(i int, named blocktrack.Changes) {
	d := a.disks.all[i]
	switch {
	case !named.All:
		a.todo[i] = blocktrack.Union(a.todo[i], named)
	case a.live != nil: // what was read before may have changed unseen
		d.joined = 0
		d.scanned.Store(0)
		a.todo[i] = blocktrack.Changes{}
	}
	// Without a tracker each pass after it has joined reads all of it.
}

// join reads of the first joining disk until the next epoch is due.
func (c *cutter) join(ctx context.Context) error {
	i := c.s.a.joiner()
	if i < 0 || !c.s.a.complete {
		return nil
	}
	for {
		whole, err := c.joinSome(ctx, i)
		if err != nil {
			return err
		}
		if whole {
			return c.joins(ctx, i)
		}
		if c.asked() || time.Since(c.lastStart) >= c.s.spacing() {
			return c.ship.commit(ctx, replication.Commit{})
		}
	}
}

// joiner is the first disk that joins; -1: none does.
func (a *agent) joiner() int {
	for i, d := range a.disks.all {
		if d.joining.Load() {
			return i
		}
	}
	return -1
}

// joinSome reads the next piece of a joining disk. It tells whether that was the last one.
func (c *cutter) joinSome(ctx context.Context, i int) (whole bool, err error) {
	d := c.s.a.disks.all[i]
	piece := blocktrack.Range{Offset: d.joined, Length: min(joinPiece, d.size-d.joined)}
	readings := func(ctx context.Context, items chan<- item) []blocktrack.Reading {
		return []blocktrack.Reading{{
			Device: d.dev, Table: d.table, Changes: blocktrack.Changes{Ranges: []blocktrack.Range{piece}}, Done: &d.scanned, Read: &d.meter.read,
			Emit: func(chunk blocktrack.Chunk) error { return c.pack(ctx, items, i, chunk) },
		}}
	}
	if _, err := c.send(ctx, readings, c.s.a.cfg.Workers, queued, func() error { return nil }); err != nil {
		return false, err
	}
	d.joined = piece.Offset + piece.Length
	d.scanned.Store(d.joined)
	return d.joined >= d.size, nil
}

// joins tells the server that all of a disk was sent: the next point holds it.
func (c *cutter) joins(ctx context.Context, i int) error {
	if err := c.ship.commit(ctx, replication.Commit{}); err != nil {
		return err
	}
	if refused, err := c.s.a.ledger.await(ctx, c.ship.last); err != nil {
		return err
	} else if refused != nil {
		return errRefused
	}
	d := c.s.a.disks.all[i]
	d.entire = true
	d.joining.Store(false)
	if _, err := c.s.announce(ctx); err != nil {
		return fmt.Errorf("announce that disk %s is complete: %w", d.name, err)
	}
	c.unsealed = true
	c.s.a.log.Info("all of the new disk is in the vault: points hold it from now on", "disk", d.name)
	return nil
}

// asked tells whether somebody waits for a point.
func (c *cutter) asked() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return len(c.s.requests) > 0 || len(c.answering) > 0
}
