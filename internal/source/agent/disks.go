package agent

import (
	"os"
	"sync/atomic"
	"time"

	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/source/inventory"
)

// device is a disk as the agent reads it: of the machine that it runs on, or of one
// that it protects from outside.
type device interface {
	blocktrack.Device
	// Block tells whether this is a block device of the machine that the agent runs on.
	Block() bool
	// Cached tells whether what is read may be older than what the disk holds.
	Cached() bool
	Close() error
}

// disk is one replicated disk.
type disk struct {
	name   string // absolute path; of a machine protected from outside, its name there
	arg    string // what the user named it; empty: it is one of all
	dev    device
	size   int64             // as replicated; a grown disk follows between epochs
	volume uint32            // in the vault; set in each session
	table  *blocktrack.Table // what the vault holds; nil until the first session
	// identity tells the disk from others, whatever its name; empty: nothing does.
	identity string

	meter *diskMeter // set at the beginning of each session
	whole reason     // why all of it is to be read; empty: it is not, or that was counted

	// A disk that is gone is waited for, from goneSince on, until it has left.
	goneSince, left time.Time
	// unfinished: it went before any point held it, and is not waited for.
	unfinished bool
	// joining: points go on without the disk while it is read piece by piece; joined
	// bytes were.
	joining atomic.Bool
	joined  int64
	entire  bool // in this session its agent has said that points can hold it

	scanned atomic.Int64 // bytes dealt with in the latest pass
	named   atomic.Int64 // bytes that the pass under way was to deal with, where a tracker named them
}

type diskSet struct{ all []*disk }

// reopen opens the disks that are there afresh. What
// cannot be opened stays as it is; a disk that is smaller than it was is an error.
func (s *diskSet) reopen() error {
	for _, d := range s.all {
		if d.lost() != nil {
			continue
		}
		dev, err := blocktrack.Open(d.name)
		if err != nil {
			return err
		}
		_ = d.dev.Close() // read only: nothing can be lost
		d.dev = dev
		size, err := dev.Size()
		if err != nil {
			return err
		}
		if size < d.size {
			return &blocktrack.ShrunkError{Device: d.name, Was: d.size, Now: size}
		}
	}
	return nil
}

// cached names the block devices that are read through the page cache.
func (s *diskSet) cached() []string {
	var names []string
	for _, d := range s.all {
		if d.dev.Cached() {
			names = append(names, d.name)
		}
	}
	return names
}

func (s *diskSet) names() []string {
	var names []string
	for _, d := range s.all {
		names = append(names, d.name)
	}
	return names
}

func (s *diskSet) close() {
	for _, d := range s.all {
		_ = d.dev.Close() // read only: nothing can be lost
	}
}

func (s *diskSet) inventory() []inventory.Disk {
	var list []inventory.Disk
	for _, d := range s.all {
		list = append(list, inventory.Disk{Device: d.name, Bytes: d.size, Block: d.dev.Block()})
	}
	return list
}

// isBlock tells whether a path is a block device.
func isBlock(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&os.ModeDevice != 0
}
