package agent

import (
	"errors"
	"time"

	"lifeboat/internal/source/blocktrack"
)

// lostDevice stands for a disk that is replicated and is not there. It is as large as
// the disk was.
type lostDevice struct {
	name  string
	block bool
	why   error
}

func (d lostDevice) gone() error                              { return &blocktrack.GoneError{Device: d.name, Err: d.why} }
func (d lostDevice) Name() string                             { return d.name }
func (d lostDevice) Size() (int64, error)                     { return 0, d.gone() }
func (d lostDevice) ReadAt([]byte, int64) (int, error)        { return 0, d.gone() }
func (d lostDevice) Data(int64) (r blocktrack.Range, _ error) { return r, d.gone() }
func (d lostDevice) Block() bool                              { return d.block }
func (d lostDevice) Cached() bool                             { return false }
func (d lostDevice) Close() error                             { return nil }

// lost tells why a disk is not there; nil: it is.
func (d *disk) lost() error {
	if l, is := d.dev.(lostDevice); is {
		return l.gone()
	}
	return nil
}

// lose takes note that a disk is gone. What is in the vault of it stays.
func (d *disk) lose(why error) {
	if d.lost() != nil {
		return
	}
	block := d.dev.Block()
	_ = d.dev.Close() // read only: nothing can be lost
	d.dev, d.goneSince = lostDevice{d.name, block, why}, time.Now()
	d.unfinished = d.joining.Swap(false)
}

// loseGone takes note of the disk that an error says is gone, and tells whether there
// are others to go on with.
func (s *diskSet) loseGone(err error) bool {
	var gone *blocktrack.GoneError
	if !errors.As(err, &gone) {
		return false
	}
	others := false
	for _, d := range s.all {
		if d.name == gone.Device {
			d.lose(gone.Err)
		}
		others = others || d.lost() == nil
	}
	return others
}

// absent is the error of the first disk that is not there and waited for; nil: none is.
func (s *diskSet) absent() error {
	for _, d := range s.all {
		if err := d.lost(); err != nil && d.left.IsZero() {
			return err
		}
	}
	return nil
}

// lacks tells whether some disk is not there, waited for or not.
func (s *diskSet) lacks() bool { return len(s.present()) < len(s.all) }

// readLater has the disks that are gone read as a whole once they are back.
func (a *agent) readLater() {
	for i, d := range a.disks.all {
		if d.lost() != nil {
			a.todo[i], d.whole = blocktrack.Changes{All: true}, diskReturned
		}
	}
}

// present lists the disks that are there, by their place in the set.
func (s *diskSet) present() (at []int) {
	for i, d := range s.all {
		if d.lost() == nil {
			at = append(at, i)
		}
	}
	return at
}

// defaultDiskGrace is how long a disk that is gone is waited for: slow starts, paths that
// fail over and cables that are put back take less.
const defaultDiskGrace = 10 * time.Minute

// overdue tells whether a disk has been waited for long enough.
func (a *agent) overdue(d *disk) bool {
	if d.lost() == nil || !d.left.IsZero() || !a.mayLeave {
		return false
	}
	return d.unfinished || a.graceEnds(d) && time.Since(d.goneSince) >= a.cfg.DiskGrace
}

// graceEnds tells whether a disk that is gone leaves by itself some time. The boot disk
// does not: no machine would start from points without it.
func (a *agent) graceEnds(d *disk) bool { return a.cfg.DiskGrace > 0 && d != a.disks.all[0] }

// letGo has points go on without the disks that were waited for long enough.
func (a *agent) letGo() {
	for _, d := range a.disks.all {
		if a.overdue(d) {
			d.left, a.owed = time.Now(), a.owed || !d.unfinished
			a.log.Warn("a disk has left: points go on without it, those there are keep it", "disk", d.name, "identity", d.identity,
				"gone_since", d.goneSince.UTC(), "next_step", "none, if that was meant; attached again the disk is taken up again")
		}
	}
}

// presentNames lists the disks that are there.
func (s *diskSet) presentNames() (names []string) {
	for _, i := range s.present() {
		names = append(names, s.all[i].name)
	}
	return names
}

// told lists the disks that the server is told the progress of: all that have not left.
func (s *diskSet) told() (all []*disk) {
	for _, d := range s.all {
		if d.left.IsZero() {
			all = append(all, d)
		}
	}
	return all
}
