package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/replication"
	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/source/inventory"
)

// lookEvery is how often the agent looks whether the machine's disks are what they
// were. It takes some system calls and reads no disk, unless one is lost.
const lookEvery = 2 * time.Second

// watchDisks finds out disks that grew, shrank, went, came back or are new, also
// while nothing is written to any.
func (c *cutter) watchDisks(ctx context.Context) error {
	a := c.s.a
	if time.Since(c.looked) < lookEvery {
		return nil
	}
	c.looked = time.Now()
	if a.outside != nil {
		return c.watchOutside(ctx)
	}
	for _, d := range a.disks.all {
		if d.lost() != nil {
			continue
		}
		size, err := d.dev.Size()
		switch {
		case err != nil:
			return err
		case size > d.size:
			return blocktrack.ErrGrown
		case size < d.size:
			return &blocktrack.ShrunkError{Device: d.name, Was: d.size, Now: size}
		}
	}
	if a.disks.lacks() {
		if back, err := a.isBack(); err != nil || back {
			if back {
				err = errDisksChanged
			}
			return err
		}
	}
	if slices.ContainsFunc(a.disks.all, a.overdue) {
		return errDisksChanged
	}
	if a.whole {
		return c.takeUpNew()
	}
	return nil
}

// isBack tells whether a disk that is lost can be opened again, under whatever name.
func (a *agent) isBack() (bool, error) {
	choices, _, err := a.look()
	if err != nil {
		return false, err
	}
	for _, c := range choices {
		if c.lost != "" {
			continue
		}
		known := slices.ContainsFunc(a.disks.all, func(d *disk) bool { return d.name == c.Name && d.lost() == nil })
		if known {
			continue
		}
		dev, err := blocktrack.Open(c.Name)
		if err != nil {
			a.log.Debug("a disk is back and cannot be opened", "disk", c.Name, "err", err)
			continue
		}
		_ = dev.Close() // read only: nothing can be lost
		return true, nil
	}
	return false, nil
}

// takeUpNew looks for disks that are new to the machine, and takes them up.
func (c *cutter) takeUpNew() error {
	a := c.s.a
	paths, err := a.cfg.WholeDisks()
	if err != nil {
		return err
	}
	var fresh []inventory.Disk
	for _, path := range paths {
		if !a.disks.has(path) {
			dev, err := blocktrack.Open(path)
			if err != nil {
				a.log.Debug("a new disk cannot be opened", "disk", path, "err", err)
				continue
			}
			size, err := dev.Size()
			_ = dev.Close() // read only: nothing can be lost
			if err == nil {
				fresh = append(fresh, inventory.Disk{Device: path, Bytes: size, Block: true})
			}
		}
	}
	return c.takeUp(inventory.Collector{}.Disks(fresh))
}

// takeUp returns errDisksChanged if there are new disks that are to be replicated, with
// their names in fresh. Where the user does not want that by itself they are told, and no more.
func (c *cutter) takeUp(fresh []drs.Disk) error {
	a := c.s.a
	c.s.mu.Lock()
	hold := c.s.settings.HoldNewDisks
	c.s.mu.Unlock()
	room := replication.MaxDisks
	for _, d := range a.disks.all {
		if d.left.IsZero() {
			room--
		}
	}
	if !hold && len(fresh) > 0 && room > 0 {
		fresh = fresh[:min(room, len(fresh))]
		a.fresh = nil
		for _, d := range fresh {
			a.fresh = append(a.fresh, d.Device)
		}
		a.log.Info("new disks are replicated from now on", "disks", a.fresh)
		return errDisksChanged
	}
	return c.tellNew(fresh)
}

// tellNew tells the server, when that is news, of disks that are not replicated.
func (c *cutter) tellNew(held []drs.Disk) error {
	a := c.s.a
	if slices.Equal(held, a.props.Unreplicated) {
		return nil
	}
	a.props.Unreplicated = held
	if len(held) > 0 {
		var names []string
		for _, d := range held {
			names = append(names, d.Device)
		}
		a.log.Warn("new disks are not replicated", "disks", names,
			"next_step", fmt.Sprintf("turn autoReplicateNewDisks on (UpdateReplicationConfiguration) to protect %s, too", strings.Join(names, ", ")))
	}
	props, err := json.Marshal(a.told())
	if err != nil {
		return fmt.Errorf("encode inventory: %w", err)
	}
	return c.s.conn.Send(&replication.Inventory{JSON: props})
}

// told is the inventory without disks that have left.
func (a *agent) told() drs.SourceProperties {
	props := a.props
	props.Disks = nil
	for i, d := range a.disks.all {
		if d.left.IsZero() {
			props.Disks = append(props.Disks, a.props.Disks[i])
		}
	}
	return props
}

// has tells whether the disk at a path, by whatever name, is one of the set.
func (s *diskSet) has(path string) bool {
	real, err := filepath.EvalSymlinks(path)
	return slices.ContainsFunc(s.all, func(d *disk) bool {
		if d.name == path {
			return true
		}
		own, ownErr := filepath.EvalSymlinks(d.name)
		return err == nil && ownErr == nil && own == real
	})
}

// goOnWithout goes on when a disk is gone: what changes on the others is in the vault
// soon. It makes no point, for a point is of all disks, until the disk has been waited for
// long enough. Once it is back little is left to send.
func (c *cutter) goOnWithout(ctx context.Context, gone error) error {
	c.tellGone(gone)
	if c.s.a.ledger.refusal() == nil {
		if err := c.ship.commit(ctx, replication.Commit{}); err != nil {
			return err
		}
	}
	c.s.a.readLater()
	return nil
}

func (c *cutter) tellGone(gone error) {
	a := c.s.a
	next := "attach the disk again: it is found under whatever name, and points are made again; what changes on the other disks is sent meanwhile. "
	waits := true // for ever
	var which *blocktrack.GoneError
	for _, d := range a.disks.all {
		if errors.As(gone, &which) && d.name == which.Device {
			if d.unfinished && a.mayLeave {
				return // it leaves, and points go on
			}
			waits = !a.graceEnds(d)
		}
	}
	if a.mayLeave && !waits {
		next += fmt.Sprintf("After %s points go on without it, and those there are keep it; at once, if the agent is started with --drop-missing", a.cfg.DiskGrace)
	} else {
		next += "It is waited for, as long as it takes. If it is gone for good, start the agent with --drop-missing: points go on without it, and those there are keep it"
	}
	c.s.phase(replication.PhaseStalled, gone.Error(), next)
	a.log.Error("a disk is gone: the others go on, without recovery points", "err", gone, "next_step", next)
}
