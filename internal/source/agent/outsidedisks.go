package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/source/blocktrack/qemu"
	"lifeboat/internal/source/inventory"
)

// outsideDisks are the disks of the machine that the user names, or else those that are
// remembered; neither: all that it has.
func (a *agent) outsideDisks() (named []string, remembered []qemu.Attached, err error) {
	if len(a.cfg.Disks) > 0 && !slices.Equal(a.cfg.Disks, []string{AllDisks}) {
		return a.cfg.Disks, nil, nil
	}
	m, err := loadMemory(a.cfg.State)
	if len(m.Disks) > 0 && !m.Outside {
		return nil, nil, errInside
	}
	for _, d := range m.Disks {
		remembered = append(remembered, qemu.Attached{Name: d.Name, Size: d.Bytes})
	}
	return nil, remembered, err
}

// loseOutside takes note of a disk that the machine does not have at the agent's start.
func (a *agent) loseOutside(d *disk) error {
	m, err := loadMemory(a.cfg.State)
	if err != nil {
		return err
	}
	d.lose(qemu.ErrUnplugged)
	for _, known := range m.Disks {
		if known.Name == d.name {
			d.left = known.Left
		}
	}
	if d.left.IsZero() && a.cfg.DropMissing {
		d.left, a.owed = time.Now(), true
	}
	return nil
}

// watchOutside is watchDisks for a machine that the agent does not run on.
func (c *cutter) watchOutside(ctx context.Context) error {
	a := c.s.a
	attached, err := a.outside.Attached(ctx)
	if err != nil {
		return err
	}
	for _, d := range a.disks.all {
		at := slices.IndexFunc(attached, func(now qemu.Attached) bool { return now.Name == d.name })
		switch {
		case at < 0 && d.lost() == nil:
			return &blocktrack.GoneError{Device: d.name, Err: qemu.ErrUnplugged}
		case at >= 0 && d.lost() != nil:
			a.log.Info("a disk is back", "disk", d.name)
			return errDisksChanged
		case at >= 0 && attached[at].Size > d.size:
			return blocktrack.ErrGrown
		}
	}
	if slices.ContainsFunc(a.disks.all, a.overdue) {
		return errDisksChanged
	}
	if !a.whole {
		return nil
	}
	var fresh []drs.Disk
	for _, now := range attached {
		if !slices.Contains(a.disks.names(), now.Name) {
			fresh = append(fresh, drs.Disk{Device: now.Name, Bytes: now.Size})
		}
	}
	return c.takeUp(fresh)
}

// goneOutside takes note of a disk that the machine protected from outside does not have
// any more, and tells whether there are others to go on with.
func (a *agent) goneOutside(ctx context.Context, err error) bool {
	if a.outside == nil || !errors.Is(err, qemu.ErrUnplugged) || len(a.disks.present()) < 2 || !a.disks.loseGone(err) {
		return false
	}
	for _, d := range a.disks.all {
		if d.lost() != nil {
			a.outside.Leave(ctx, d.name)
		}
	}
	return true
}

// rearrangeOutside goes on with the disks that the machine has now: those that are back,
// and new ones that are to be taken up. The others go on as they are.
func (a *agent) rearrangeOutside(ctx context.Context) error {
	fresh := a.fresh
	a.fresh = nil
	attached, err := a.outside.Attached(ctx)
	if err != nil {
		return err
	}
	for _, now := range attached {
		i := slices.Index(a.disks.names(), now.Name)
		switch {
		case i >= 0 && a.disks.all[i].lost() != nil:
			a.disks.all[i].dev, a.disks.all[i].left = a.outside.Follow(now), time.Time{}
		case i < 0 && slices.Contains(fresh, now.Name):
			i = len(a.disks.all)
			a.disks.all = append(a.disks.all, &disk{name: now.Name, dev: a.outside.Follow(now), size: now.Size})
			a.todo = append(a.todo, blocktrack.Changes{})
			a.props.Disks = append(a.props.Disks, drs.Disk{Device: now.Name, Bytes: now.Size})
		default:
			continue
		}
		a.todo[i], a.disks.all[i].whole = blocktrack.Changes{All: true}, diskReturned
		a.complete = false
	}
	a.letGo()
	if _, err := a.describeOutside(ctx, inventory.Collector{}); err != nil {
		return err
	}
	return a.remember()
}
