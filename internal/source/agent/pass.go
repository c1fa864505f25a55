package agent

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"lifeboat/internal/replication"
	"lifeboat/internal/source/blocktrack"
)

// item is the changed blocks of one chunk on their way from a reader to the shipper.
type item struct {
	disk   int
	chunk  blocktrack.Chunk // without Raw
	codec  uint8
	packed []byte // what is in Data
	buf    *[]byte
}

// scattered is how many read what a tracker names: small pieces here and there, of
// which a disk serves many as fast as one.
const scattered = 16

// smallPacked is what is not worth a buffer of its own while it waits.
const smallPacked = 16 << 10

// queued is how many packed chunks may wait for the shipper.
const queued = 64

// passResult is what a pass over the disks found.
type passResult struct {
	chunks int   // that differed from the vault
	bytes  int64 // of the blocks that differed
	sent   int64 // after packing
}

// pass reads what may have changed, in parallel, and ships what did. What a failed
// pass was to read the next one is. Up to queue packed chunks wait for the line; read
// is called when all has been read and before it has been sent.
//
//	readers: read -> skip zeros, digest, compare -> pack --queue--> shipper: credit, throttle, send
func (c *cutter) pass(ctx context.Context, queue int, read func() error) (result passResult, err error) {
	lost, err := c.takeChanges(ctx)
	if err != nil {
		return result, err
	}
	todo := c.s.a.todo
	workers := c.s.a.cfg.Workers
	if c.s.a.live == nil && !c.bulk && len(c.answering) == 0 && c.restless.IsZero() {
		workers = 1 // nobody waits: the source's own work goes first
	}
	if c.s.a.live != nil && !slices.ContainsFunc(todo, func(c blocktrack.Changes) bool { return c.All }) {
		workers = scattered
	}
	result, err = c.send(ctx, c.readings, workers, queue, func() error {
		if err := read(); err != nil {
			return err
		}
		for _, l := range lost { // not before: it may have been read in a freeze
			c.s.a.log.Warn("the tracker lost sight of the writes to a disk: all of it is read", "disk", l.disk, "why", l.why)
		}
		return nil
	})
	if err != nil {
		return result, err
	}
	for i, d := range c.s.a.disks.all {
		if !d.joining.Load() {
			todo[i] = blocktrack.Changes{}
		}
	}
	c.s.a.readLater()
	for _, d := range c.s.a.disks.all {
		d.named.Store(0)
	}
	return result, nil
}

// send reads and ships what differs.
func (c *cutter) send(ctx context.Context, readings func(context.Context, chan<- item) []blocktrack.Reading, workers, queue int, read func() error) (result passResult, err error) {
	items := make(chan item, queue)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(items)
		if err := blocktrack.ReadAll(ctx, readings(ctx, items), workers); err != nil {
			return err
		}
		return read()
	})
	group.Go(func() error {
		if err := c.shipAll(ctx, items, &result); err != nil {
			return err
		}
		return c.ship.endPass(ctx)
	})
	err = group.Wait()
	return result, err
}

// readings is what is to be read of all disks.
func (c *cutter) readings(ctx context.Context, items chan<- item) []blocktrack.Reading {
	var list []blocktrack.Reading
	var named int64
	for i, d := range c.s.a.disks.all {
		if d.joining.Load() {
			continue
		}
		todo := c.s.a.todo[i]
		d.scanned.Store(0)
		if d.lost() != nil {
			continue
		}
		d.named.Store(todo.Bytes())
		if todo.All && d.whole != "" {
			d.meter.rescanned(d.whole)
			d.whole = ""
		}
		named += todo.Bytes()
		list = append(list, blocktrack.Reading{
			Device: d.dev, Table: d.table, Changes: todo, Done: &d.scanned, Read: &d.meter.read,
			Emit: func(chunk blocktrack.Chunk) error { return c.pack(ctx, items, i, chunk) },
		})
	}
	if c.s.a.complete && named > backlogFrom && c.s.a.disks.absent() == nil {
		c.s.phase(replication.PhaseBacklog, "", "")
	}
	return list
}

// backlogFrom is how much a tracker names that is told before it is sent.
const backlogFrom = 16 << 20

// blindness is why a disk has to be read as a whole.
type blindness struct{ disk, why string }

// takeChanges adds what the tracker names to what is to be read.
func (c *cutter) takeChanges(ctx context.Context) (lost []blindness, err error) {
	a := c.s.a
	changes, err := a.tracker.Swap(ctx)
	if err != nil {
		return nil, err
	}
	for i, named := range changes {
		if a.disks.all[i].joining.Load() {
			a.joinChanges(i, named)
			continue
		}
		if named.All && a.live != nil && !a.todo[i].All {
			lost = append(lost, blindness{a.disks.all[i].name, named.Why})
			a.disks.all[i].whole = trackerLost
			c.s.phase(replication.PhaseScanning, "", "")
		}
		a.todo[i] = blocktrack.Union(a.todo[i], named)
	}
	return lost, nil
}

// pack runs in a reader.
func (c *cutter) pack(ctx context.Context, items chan<- item, disk int, chunk blocktrack.Chunk) error {
	it := item{disk: disk, chunk: chunk}
	if chunk.Data != 0 {
		c.s.a.disks.all[disk].meter.changed.Add(int64(chunk.Data.Len()) * vaultBlock)
		// Where the line is what limits, smaller is faster.
		fast := c.bulk && (len(items) <= queued/2 || !c.ship.line.slow.Load())
		it.codec, it.packed, it.buf = c.packer.pack(chunk.Raw, fast)
		if len(it.packed) <= smallPacked {
			small := bytes.Clone(it.packed)
			c.packer.buffers.Put(it.buf)
			it.packed, it.buf = small, nil
		}
		it.chunk.Raw = nil
	}
	select {
	case items <- it:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *cutter) shipAll(ctx context.Context, items <-chan item, result *passResult) error {
	for {
		var it item
		var ok bool
		select {
		case it, ok = <-items:
		default: // nothing waits: send what is buffered before waiting
			if err := c.ship.flush(); err != nil {
				return err
			}
			select {
			case it, ok = <-items:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if !ok {
			return nil
		}
		if err := c.ship.chunk(ctx, it); err != nil {
			return err
		}
		result.chunks++
		result.bytes += it.chunk.Bytes()
		result.sent += int64(len(it.packed))
		c.s.a.disks.all[it.disk].meter.sent.Add(int64(len(it.packed)))
		if it.chunk.Data != 0 {
			c.s.a.cfg.Metrics.packed[it.codec].Add(1)
		}
		if it.buf != nil {
			c.packer.buffers.Put(it.buf)
		}
	}
}

const vaultBlock = 4096

// errRefused ends a pass whose epoch the server refused.
var errRefused = errors.New("the server refused the epoch")

// asRefusal returns the refusal that made a pass or a commit fail, if one did.
func (c *cutter) asRefusal(err error) *replication.Refused {
	if errors.Is(err, errRefused) {
		return c.s.a.ledger.refusal()
	}
	return nil
}
