package agent

import (
	"errors"

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
	d.dev = lostDevice{d.name, block, why}
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

// absent is the error of the first disk that is not there; nil: all are.
func (s *diskSet) absent() error {
	for _, d := range s.all {
		if err := d.lost(); err != nil {
			return err
		}
	}
	return nil
}

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
