package tracktest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"lifeboat/internal/source/blocktrack"
)

// Opener opens the tracker under test on block devices of a size in bytes each.
type Opener func(t *testing.T, devices []string, size int64) blocktrack.Tracker

const diskSize = 48<<20 + 4096

// Suite is what every tracker must do, on loop devices.
func Suite(t *testing.T, open Opener) { SuiteOn(t, loops, open) }

// SuiteOn is Suite on block devices, so many as asked for and of so many bytes each,
// zeros, that are gone when the test ends.
func SuiteOn(t *testing.T, disks func(t *testing.T, n int, size int64) []string, open Opener) {
	devices := func(t *testing.T, n int) []string { return disks(t, n, diskSize) }
	t.Run("everything at first", func(t *testing.T) { everythingAtFirst(t, devices, open) })
	t.Run("each write is named", func(t *testing.T) { eachWriteIsNamed(t, devices, open) })
	t.Run("copies stay equal under load", func(t *testing.T) { copiesStayEqual(t, devices, open) })
	t.Run("reader killed", func(t *testing.T) { readerKilled(t, devices, open) })
}

func loops(t *testing.T, n int, size int64) []string {
	var list []string
	for range n {
		list = append(list, Loop(t, size))
	}
	return list
}

func swap(t *testing.T, tracker blocktrack.Tracker, disks int) []blocktrack.Changes {
	t.Helper()
	changes, err := tracker.Swap(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(changes) != disks {
		t.Fatalf("changes of %d disks, want %d", len(changes), disks)
	}
	for _, c := range changes {
		if c.All && c.Ranges != nil {
			t.Error("all, and ranges besides")
		}
		end := int64(-1)
		for _, r := range c.Ranges {
			if r.Offset <= end || r.Length <= 0 || r.Offset+r.Length > diskSize {
				t.Fatalf("ranges %v: not sorted, or not apart, or not in the disk", c.Ranges)
			}
			end = r.Offset + r.Length
		}
	}
	return changes
}

func everythingAtFirst(t *testing.T, devices func(*testing.T, int) []string, open Opener) {
	tracker := open(t, devices(t, 2), diskSize)
	defer func() { _ = tracker.Close() }() // it may have been closed
	for i, c := range swap(t, tracker, 2) {
		if !c.All {
			t.Errorf("disk %d: the first Swap does not name all of it", i)
		}
	}
	if err := tracker.Close(); err != nil {
		t.Error(err)
	}
}

func covers(c blocktrack.Changes, block int64) bool {
	return c.All || slices.ContainsFunc(c.Ranges, func(r blocktrack.Range) bool {
		return r.Offset <= block*4096 && block*4096 < r.Offset+r.Length
	})
}

// Every changed block is named, none is named that lies far from a changed one,
// and what was named once is not named again.
func eachWriteIsNamed(t *testing.T, devices func(*testing.T, int) []string, open Opener) {
	seed := rand.Uint64() //nolint:gosec // of a test
	t.Logf("seed %d", seed)
	names := devices(t, 2)
	tracker := open(t, names, diskSize)
	defer func() { _ = tracker.Close() }() // it may have been closed
	swap(t, tracker, 2)
	watcher, live := tracker.(blocktrack.Watcher)
	for i, way := range Ways + Ways {
		w, err := NewWriter(names[i%2], 0, diskSize, seed+uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if err := w.Write(string(way)); err != nil {
				t.Fatal(err)
			}
		}
		w.Close() // a block device's cache may be written back here
		if live {
			if quiet, err := watcher.Quiet(); err != nil || quiet {
				t.Errorf("way %c: at rest after a write (%v)", way, err)
			}
		}
		changes := swap(t, tracker, 2)
		for b := range w.Changed {
			if !covers(changes[i%2], b) {
				t.Errorf("way %c: block %d changed and is not named", way, b)
			}
		}
		if !live {
			continue
		}
		if named, most := changes[i%2].Bytes(), int64(len(w.Changed))*4096; changes[i%2].All || named > most {
			t.Errorf("way %c: %d bytes named, %d changed (%q)", way, named, most, changes[i%2].Why)
		}
		for j, c := range swap(t, tracker, 2) {
			if c.All || len(c.Ranges) > 0 {
				t.Errorf("way %c: disk %d: %d bytes named twice (%q)", way, j, c.Bytes(), c.Why)
			}
		}
		if quiet, err := watcher.Quiet(); err != nil || !quiet {
			t.Errorf("way %c: not at rest, with nobody writing (%v)", way, err)
		}
	}
}

// mirror follows a device by its tracker, as an agent does.
type mirror struct {
	dev   *blocktrack.Disk
	table *blocktrack.Table
	mu    sync.Mutex
	copy  []byte
}

func newMirror(t *testing.T, device string) *mirror {
	t.Helper()
	dev, err := blocktrack.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() }) // read only
	digest := func(chunk []byte) blocktrack.Digest {
		s := sha256.Sum256(chunk)
		return blocktrack.Digest(s[:16])
	}
	return &mirror{dev: dev, table: blocktrack.NewTable(diskSize, digest), copy: make([]byte, diskSize)}
}

func (m *mirror) read(t *testing.T, c blocktrack.Changes) {
	t.Helper()
	err := blocktrack.Read(context.Background(), m.dev, m.table, c, 2, new(atomic.Int64), func(chunk blocktrack.Chunk) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		chunk.Each(func(r blocktrack.Range, content []byte) {
			dst := m.copy[r.Offset:min(r.Offset+r.Length, int64(len(m.copy)))]
			clear(dst)
			copy(dst, content)
		})
		m.table.Keep(chunk)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Swaps and reads under load lose nothing: when the writers have ended, one more
// makes the copy the disk's equal. What a quiet moment says is true at once.
func copiesStayEqual(t *testing.T, devices func(*testing.T, int) []string, open Opener) {
	seed := rand.Uint64() //nolint:gosec // of a test
	t.Logf("seed %d", seed)
	names := devices(t, 2)
	tracker := open(t, names, diskSize)
	defer func() { _ = tracker.Close() }() // it may have been closed
	mirrors := []*mirror{newMirror(t, names[0]), newMirror(t, names[1])}
	pass := func() {
		for i, c := range swap(t, tracker, 2) {
			mirrors[i].read(t, c)
		}
	}
	var writers sync.WaitGroup
	for i := range 6 {
		const part = 16 << 20
		w, err := NewWriter(names[i%2], int64(i/2)*part, part, seed+uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		writers.Go(func() {
			defer w.Close()
			for range 250 {
				if err := w.Write(Ways); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { defer close(done); writers.Wait() }()
	passes := 0
	for running := true; running; passes++ {
		select {
		case <-done:
			running = false
		default:
		}
		pass()
	}
	watcher, live := tracker.(blocktrack.Watcher)
	if live {
		if quiet, err := watcher.Quiet(); err != nil || !quiet {
			t.Errorf("not at rest after the writers ended (%v)", err)
		}
	}
	t.Logf("%d passes", passes)
	for i, m := range mirrors {
		now, err := os.ReadFile(names[i])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(now, m.copy) {
			t.Errorf("disk %d: the copy differs after %d passes", i, passes)
		}
	}
}

// A tracker opened anew knows nothing of what its predecessor had not handed out,
// and says so.
func readerKilled(t *testing.T, devices func(*testing.T, int) []string, open Opener) {
	names := devices(t, 1)
	first := open(t, names, diskSize)
	swap(t, first, 1)
	w, err := NewWriter(names[0], 0, diskSize, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Write(Ways); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(Ways); err != nil {
		t.Fatal(err)
	}
	second := open(t, names, diskSize)
	defer func() { _ = second.Close() }()
	if c := swap(t, second, 1); !c[0].All {
		t.Errorf("after a break: %v", c)
	}
}
