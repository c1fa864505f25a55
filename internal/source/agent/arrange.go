package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lifeboat/internal/replication"
	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/source/blocktrack/ebpf"
	"lifeboat/internal/source/inventory"
)

// errDisksChanged ends a session whose disks are not those any more that the agent
// is to replicate: one came, or came back. The next one begins at once, with them.
var errDisksChanged = errors.New("the disks to replicate are others now")

// look finds the disks to replicate as they are called now.
func (a *agent) look() (choices []choice, all bool, err error) {
	m, err := loadMemory(a.cfg.State)
	if err != nil {
		return nil, false, err
	}
	if m.Outside {
		return nil, false, errOutside
	}
	now := machineDisks{identities: inventory.Collector{}.DiskClaims}
	if !onlyFiles(a.cfg.Disks, m) {
		if now.whole, err = a.cfg.WholeDisks(); err != nil {
			return nil, false, err
		}
	}
	return choose(a.cfg.Disks, m, now)
}

// arrange opens the disks to replicate, and those that are to be taken up. A disk that
// is remembered and not there is one of them, and lost; if none is there it is an error.
func (a *agent) arrange(fresh ...string) error {
	choices, all, err := a.look()
	if err != nil {
		return err
	}
	for _, path := range fresh {
		choices = append(choices, choice{memoryDisk: memoryDisk{Name: path}})
	}
	choices = withRoom(choices)
	switch {
	case len(choices) == 0:
		return errors.New("this machine has no disk of its own: name what to replicate with --disk")
	case len(choices) > replication.MaxDisks:
		return fmt.Errorf("%d disks: a source server has at most %d: name those to replicate with --disk", len(choices), replication.MaxDisks)
	}
	if err := a.oweDropped(choices); err != nil {
		return err
	}
	set := &diskSet{}
	for _, c := range choices {
		d, err := a.openChoice(c, slices.ContainsFunc(choices, func(other choice) bool { return other.lost == "" && other.Name == c.Name }))
		if err != nil {
			a.closeOthers(set)
			return err
		}
		set.all = append(set.all, d)
	}
	if len(set.present()) == 0 {
		a.closeOthers(set)
		return set.all[0].lost()
	}
	if a.disks != nil {
		old := a.disks
		a.disks = set
		a.closeOthers(old)
	}
	a.disks, a.whole = set, all
	return nil
}

// oweDropped takes note that the newest point may hold a disk that is not to be
// replicated any more: the next one is without it, though nothing was written.
func (a *agent) oweDropped(choices []choice) error {
	if !a.cfg.DropMissing || a.disks != nil {
		return nil
	}
	m, err := loadMemory(a.cfg.State)
	if err != nil {
		return err
	}
	for _, d := range m.Disks {
		named := slices.ContainsFunc(choices, func(c choice) bool {
			return c.Name == d.Name || c.Identity != "" && c.Identity == d.Identity || c.Arg != "" && c.Arg == d.Arg
		})
		a.owed = a.owed || !named && d.Left.IsZero()
	}
	return nil
}

// withRoom leaves out disks that have left, the earliest first, where there are more than
// a server may have.
func withRoom(choices []choice) []choice {
	for len(choices) > replication.MaxDisks {
		first := -1
		for i, c := range choices {
			if c.lost != "" && !c.Left.IsZero() && (first < 0 || c.Left.Before(choices[first].Left)) {
				first = i
			}
		}
		if first < 0 {
			break
		}
		choices = slices.Delete(choices, first, first+1)
	}
	return choices
}

// goneSuffix tells a disk that is gone from the one that has its name now.
const goneSuffix = " (gone)"

// openChoice opens a disk, or goes on with it if it is open. taken: a disk that is
// there has its name.
func (a *agent) openChoice(c choice, taken bool) (*disk, error) {
	if a.disks != nil {
		for _, d := range a.disks.all {
			if d.name == c.Name && c.lost == "" && d.lost() == nil && d.dev.Block() == isBlock(c.Name) {
				if _, err := d.dev.Size(); err == nil {
					return d, nil
				}
			}
		}
	}
	if c.lost != "" {
		return a.lostChoice(c, taken), nil
	}
	d := &disk{name: c.Name, arg: c.Arg, identity: c.Identity, size: c.Bytes}
	dev, err := blocktrack.Open(c.Name)
	if err != nil {
		return nil, err
	}
	d.dev = dev
	if d.size, err = dev.Size(); err != nil {
		_ = dev.Close() // read only: nothing can be lost
		return nil, err
	}
	return d, nil
}

// lostChoice is a disk that is not there: the one that the agent has, if it has it.
func (a *agent) lostChoice(c choice, taken bool) *disk {
	if a.disks != nil {
		for _, d := range a.disks.all {
			if d.lost() != nil && strings.TrimSuffix(d.name, goneSuffix) == c.Name && d.identity == c.Identity {
				return d
			}
		}
	}
	d := &disk{name: c.Name, arg: c.Arg, identity: c.Identity, size: c.Bytes, goneSince: time.Now(), left: c.Left}
	if taken {
		d.name += goneSuffix
	}
	if d.left.IsZero() && a.cfg.DropMissing {
		d.left, a.owed = time.Now(), true
	}
	d.dev = lostDevice{d.name, true, errors.New(c.lost)}
	return d
}

// closeOthers closes the disks of a set that are none of the agent's.
func (a *agent) closeOthers(set *diskSet) {
	for _, d := range set.all {
		ours := false
		if a.disks != nil {
			for _, own := range a.disks.all {
				ours = ours || own == d
			}
		}
		if !ours {
			_ = d.dev.Close() // read only: nothing can be lost
			d.setTable(nil)
		}
	}
}

// rearrange goes on with the disks as they are now, between sessions. What is known of
// those that stay is still known.
func (a *agent) rearrange(ctx context.Context) error {
	if a.outside != nil {
		return a.rearrangeOutside(ctx)
	}
	fresh, before := a.fresh, a.disks.all
	a.fresh = nil
	if err := a.arrange(fresh...); err != nil {
		return err
	}
	a.letGo()
	a.props.Disks = inventory.Collector{}.Disks(a.disks.inventory())
	if !a.extend(before) {
		a.loaded, a.complete, a.standing = false, false, nil
		if err := a.openTracker(); err != nil {
			return err
		}
	}
	return a.remember()
}

// extend goes on with the tracker when no disk is another one than before, and has those
// that were added watched, too. It tells whether it could.
func (a *agent) extend(before []*disk) bool {
	all := a.disks.all
	if !a.loaded || len(all) < len(before) || !slices.Equal(all[:len(before)], before) {
		return false
	}
	added := all[len(before):]
	if len(added) == 0 {
		return true
	}
	if a.live == nil {
		a.tracker = blocktrack.Scan{Disks: len(all)}
	} else {
		var disks []ebpf.Disk
		part := watched{}
		for i, d := range added {
			disks = append(disks, ebpf.Disk{Path: d.name, Size: d.size})
			part.at = append(part.at, len(before)+i)
		}
		tracker, err := ebpf.Open(disks)
		if err != nil {
			a.log.Warn("a new disk cannot be tracked beside the others: all are read", "err", err)
			return false
		}
		part.Watcher = tracker
		a.live = a.alongside(part)
		a.tracker = a.live
	}
	for range added {
		a.todo = append(a.todo, blocktrack.Changes{All: true})
	}
	return true
}

// remember keeps which disks are replicated for the next start.
func (a *agent) remember() error {
	if a.outside != nil && !a.whole {
		return nil // the user names them at each start
	}
	was, err := loadMemory(a.cfg.State)
	if err != nil {
		return err
	}
	m := memory{Version: memoryVersion, All: a.whole, Outside: a.outside != nil}
	identities := make([]string, len(a.disks.all))
	if a.outside == nil {
		identities = inventory.DiskIdentities(a.disks.names())
	}
	for i, d := range a.disks.all {
		if d.lost() == nil && identities[i] != "" {
			d.identity = identities[i]
		}
		arg := d.arg
		if arg == "" && !a.whole {
			arg = strings.TrimSuffix(d.name, goneSuffix)
		}
		m.Disks = append(m.Disks, memoryDisk{Arg: arg, Name: strings.TrimSuffix(d.name, goneSuffix), Identity: d.identity, Bytes: d.size, Left: d.left})
	}
	return m.save(a.cfg.State, was)
}
