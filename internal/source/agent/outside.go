package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/replication"
	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/source/blocktrack/qemu"
	"lifeboat/internal/source/inventory"
)

// outside tracks a machine that the agent does not run on. It knows the machine's
// disks, and holds what they were at the newest Swap until Release.
type outside interface {
	blocktrack.Watcher
	pinned
	// Forget makes the next Swap name everything.
	Forget(why string)
	Devices() []*qemu.Device
	// Left tells whether the disk with that place is gone on without.
	Left(i int) bool
	// Attached lists the disks that the machine has now.
	Attached(ctx context.Context) ([]qemu.Attached, error)
	// Follow takes up a disk that is new, and comes last, or that was left.
	Follow(disk qemu.Attached) *qemu.Device
	// Leave goes on without a disk.
	Leave(ctx context.Context, name string)
	// Cut tells of the newest Swap, until Release.
	Cut() qemu.Cut
	// Release ends the holding. nil: all that was read was of one moment. Else it was
	// not, and what was overwritten meanwhile is named by the next Swap.
	Release() error
	Describe(ctx context.Context) (qemu.Description, error)
}

// recordFile says, in the state directory, what the bitmaps in QEMU are about. It is of
// no use after QEMU's end.
const recordFile = "qemu.json"

// openOutside opens the machine that the agent protects from outside.
func (a *agent) openOutside(ctx context.Context) error {
	named, m, err := a.outsideDisks()
	if err != nil {
		return err
	}
	tracker, err := qemu.Open(ctx, qemu.Options{
		Address: a.cfg.Machine.Address, Disks: named, Remembered: m, Scratch: a.cfg.Machine.Scratch, Logger: a.log,
		Guard: a.cfg.Machine.Guard, Freeze: a.cfg.FreezeBound, Keep: filepath.Join(a.cfg.State, recordFile),
	})
	if err != nil {
		return err
	}
	set := &diskSet{}
	for i, dev := range tracker.Devices() {
		size, _ := dev.Size() // as Open learned it
		d := &disk{name: dev.Name(), dev: dev, size: size}
		if tracker.Left(i) {
			if err := a.loseOutside(d); err != nil {
				_ = tracker.Close() // nothing was recorded yet
				return err
			}
		}
		set.all = append(set.all, d)
	}
	if len(set.all) > replication.MaxDisks {
		_ = tracker.Close() // nothing was recorded yet
		return fmt.Errorf("the machine has %d disks, a source server has at most %d: name some with --disk", len(set.all), replication.MaxDisks)
	}
	a.outside, a.tracker, a.live, a.disks = tracker, tracker, tracker, set
	a.whole = len(named) == 0
	a.rescan(nobodyTracked)
	a.pinned = tracker
	a.inherit()
	return nil
}

// describeOutside is takeInventory for a machine that the agent does not run on. Of
// the host that it runs on it tells nothing.
func (a *agent) describeOutside(ctx context.Context, collector inventory.Collector) (hardware inventory.Identity, err error) {
	d, err := a.outside.Describe(ctx)
	if err != nil {
		return hardware, err
	}
	name := d.Name
	if name == "" && d.UUID != "" {
		name = "guest-" + d.UUID[:min(len(d.UUID), 8)]
	}
	if name == "" && a.cfg.Overrides.Hostname == "" {
		return hardware, errors.New("the machine has neither a name nor a UUID: name it with --hostname, or start QEMU with -name or -uuid")
	}
	a.props = drs.SourceProperties{
		LastUpdated: time.Now().UTC(), Hostname: name, CPUs: d.CPUs, RAMBytes: d.Memory, Architecture: d.Architecture,
		BootMode: d.BootMode, NetworkInterfaces: d.Cards,
	}
	for i, disk := range a.disks.all {
		a.props.Disks = append(a.props.Disks, drs.Disk{Device: disk.name, Bytes: disk.size, Bus: d.Buses[i]})
	}
	a.cfg.Overrides.Apply(&a.props)
	return collector.Guest(a.props, d.UUID, d.Images, a.cfg.Overrides), nil
}

// heldCut is a turn with a tracker that holds the disks as they were at a moment: what
// is read is a point, however busy the machine is. The moment is held until all has
// been read, and not until it is sent. A cut that did not hold makes no point; what
// was read of it is kept, and the next cut puts it right.
func (c *cutter) heldCut(ctx context.Context) error {
	a := c.s.a
	held, released := error(nil), false
	release := func() {
		if !released {
			released, held = true, a.outside.Release()
		}
	}
	defer release()
	var cut qemu.Cut
	result, err := c.pass(ctx, queued, func() error {
		cut = a.outside.Cut()
		release()
		return nil
	})
	c.took()
	c.unsealed = c.unsealed || result.chunks > 0
	if err != nil {
		return err
	}
	a.complete, c.bulk = true, false
	if a.disks.absent() != nil {
		return c.ship.commit(ctx, replication.Commit{}) // a point is of all disks
	}
	if held != nil {
		a.log.Warn("no recovery point of this cut", "err", held, "changed_bytes", result.bytes)
		c.s.phase(replication.PhaseBacklog, "", "")
		return c.ship.commit(ctx, replication.Commit{})
	}
	if result.chunks > 0 {
		a.log.Debug("cut", "changed_bytes", result.bytes, "sent_bytes", result.sent, "dur", c.lastTook)
	}
	if c.unsealed || len(c.answering) > 0 {
		commit := replication.Commit{
			Taken: cut.Taken, Consistency: replication.ConsistencyCrash, Method: replication.MethodCopyBeforeWrite, Freeze: cut.Freeze,
		}
		if cut.Frozen {
			commit.Consistency = replication.ConsistencyFilesystem
		}
		if err := c.seal(ctx, commit); err != nil {
			return err
		}
	}
	c.s.rest(cut.Taken)
	return nil
}

// errMoved: the disks changed while some of them were to be audited.
var errMoved = errors.New("not at rest")

// holdForAudit holds the disks, which are at rest, so that they can be read. errMoved
// when they are not any more; then the next pass begins at once.
func (a *agent) holdForAudit(ctx context.Context) error {
	changes, err := a.outside.Swap(ctx)
	if err != nil {
		return err
	}
	for i, named := range changes {
		a.todo[i] = blocktrack.Union(a.todo[i], named)
		if !named.Empty() {
			err = errMoved
		}
	}
	return err
}
