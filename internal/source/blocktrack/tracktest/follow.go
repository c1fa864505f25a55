package tracktest

import (
	"context"
	"crypto/sha256"
	"sync/atomic"
	"testing"

	"lifeboat/internal/source/blocktrack"
)

// Follow takes a full reading of a disk. The function it returns takes a second one
// and fails the test for each chunk of 64 KiB that differs and that the tracker did
// not name in between.
func Follow(t *testing.T, dev *blocktrack.Disk, tracker blocktrack.Tracker) func() {
	t.Helper()
	size, err := dev.Size()
	if err != nil {
		t.Fatal(err)
	}
	table := blocktrack.NewTable(size, func(chunk []byte) blocktrack.Digest {
		s := sha256.Sum256(chunk)
		return blocktrack.Digest(s[:16])
	})
	swap := func() blocktrack.Changes {
		c, err := tracker.Swap(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return c[0]
	}
	read := func(c blocktrack.Changes) (differ int) {
		var n atomic.Int64
		err := blocktrack.Read(context.Background(), dev, table, c, 1, new(atomic.Int64), func(chunk blocktrack.Chunk) error {
			table.Set(chunk.Index, chunk.Digest)
			n.Add(1)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return int(n.Load())
	}
	swap()
	read(blocktrack.Changes{All: true})
	return func() {
		t.Helper()
		c := swap()
		if c.All {
			t.Errorf("the tracker names all of the disk: %s", c.Why)
		}
		changed := read(c)
		if missed := read(blocktrack.Changes{All: true}); missed > 0 || changed == 0 {
			t.Errorf("%d chunks changed unnamed, %d named", missed, changed)
		}
		t.Logf("%d chunks changed, %d bytes named", changed, c.Bytes())
	}
}
