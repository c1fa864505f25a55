package tracktest

import (
	"context"
	"crypto/sha256"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"lifeboat/internal/source/blocktrack"
)

// Follower compares what a tracker names of a disk with what readings of the whole
// disk find.
//
// A disk is never at rest for sure: ext4 goes on making its inode tables after the
// first mount, and discards come when a journal has been written. What lands after a
// swap a reading sees at once, and the next swap names. So a block that two readings
// find different must have been named by the swap before the second reading or by
// the one after it.
type Follower struct {
	dev   *blocktrack.Disk
	table *blocktrack.Table
	named blocktrack.Changes // since the last reading of the whole disk began
	found []blocktrack.Range // that differed in the last reading, and were not named by then
}

// NewFollower takes the first reading of a disk. The tracker was swapped before it.
func NewFollower(dev *blocktrack.Disk) (*Follower, error) {
	size, err := dev.Size()
	if err != nil {
		return nil, err
	}
	f := &Follower{dev: dev, table: blocktrack.NewTable(size, func(chunk []byte) blocktrack.Digest {
		s := sha256.Sum256(chunk)
		return blocktrack.Digest(s[:16])
	})}
	_, err = f.read(blocktrack.Changes{All: true})
	return f, err
}

// Read reads what a swap has named and then the whole disk. It returns the number of
// runs of blocks that were named and differed.
func (f *Follower) Read(swapped blocktrack.Changes) (changed int, err error) {
	f.named = blocktrack.Union(f.named, swapped)
	differ, err := f.read(f.named)
	if err == nil {
		f.found, err = f.read(blocktrack.Changes{All: true})
	}
	return len(differ), err
}

// Missed takes what the swap after Read names, and returns the blocks that differed
// and that no swap has named.
func (f *Follower) Missed(swapped blocktrack.Changes) (missed []blocktrack.Range) {
	for _, r := range f.found {
		missed = append(missed, unnamed(blocktrack.Union(f.named, swapped), r)...)
	}
	f.named, f.found = swapped, nil
	return missed
}

// unnamed returns the blocks of a run that no range touches.
func unnamed(c blocktrack.Changes, r blocktrack.Range) (missed []blocktrack.Range) {
	for off := r.Offset; off < r.Offset+r.Length; off += block {
		named := func(n blocktrack.Range) bool { return n.Offset < off+block && off < n.Offset+n.Length }
		if !c.All && !slices.ContainsFunc(c.Ranges, named) {
			missed = append(missed, blocktrack.Range{Offset: off, Length: block})
		}
	}
	return blocktrack.Join(missed)
}

// read returns the blocks that differ from the reading before.
func (f *Follower) read(c blocktrack.Changes) (differ []blocktrack.Range, err error) {
	var mu sync.Mutex
	err = blocktrack.Read(context.Background(), f.dev, f.table, c, 2, new(atomic.Int64), func(chunk blocktrack.Chunk) error {
		f.table.Keep(chunk)
		mu.Lock()
		defer mu.Unlock()
		chunk.Each(func(r blocktrack.Range, _ []byte) { differ = append(differ, r) })
		return nil
	})
	return differ, err
}

// Follow takes a full reading of a disk. The function it returns takes a second one
// and fails the test for each block that differs and that the tracker does not name.
func Follow(t *testing.T, dev *blocktrack.Disk, tracker blocktrack.Tracker) func() {
	t.Helper()
	swap := func() blocktrack.Changes {
		c, err := tracker.Swap(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return c[0]
	}
	swap()
	f, err := NewFollower(dev)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		c := swap()
		if c.All {
			t.Errorf("the tracker names all of the disk: %s", c.Why)
		}
		changed, err := f.Read(c)
		if err != nil {
			t.Fatal(err)
		}
		if missed := f.Missed(swap()); len(missed) > 0 || changed == 0 {
			t.Errorf("blocks changed unnamed: %v; %d named", missed, changed)
		}
		t.Logf("%d runs of blocks changed, %d bytes named", changed, c.Bytes())
	}
}
