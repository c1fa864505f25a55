package ebpf

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"

	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/source/blocktrack/tracktest"
)

const pinnedSize = 48<<20 + 4096

func openPinned(t *testing.T, dir string, devices ...string) *Tracker {
	t.Helper()
	var disks []Disk
	for _, d := range devices {
		disks = append(disks, Disk{d, pinnedSize})
	}
	tracker, err := OpenPinned(dir, disks)
	var unavailable *UnavailableError
	if errors.As(err, &unavailable) && os.Getenv("LIFEBOAT_NEED_EBPF") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tracker
}

func mustSwap(t *testing.T, tracker *Tracker) []blocktrack.Changes {
	t.Helper()
	c, err := tracker.Swap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// write changes a chunk of 64 KiB.
func write(t *testing.T, device string, chunk int) {
	t.Helper()
	tracktest.Command(t, "dd", "if=/dev/urandom", "of="+device, "bs=4k", fmt.Sprintf("seek=%d", chunk*16+3), "count=2", "oflag=direct", "status=none")
}

// chunksOf lists the chunks that changes touch.
func chunksOf(c blocktrack.Changes) (list []int) {
	for _, r := range c.Ranges {
		for k := r.Offset >> keptShift; k <= (r.Offset+r.Length-1)>>keptShift; k++ {
			list = append(list, int(k))
		}
	}
	return list
}

func want(t *testing.T, when string, c blocktrack.Changes, chunks ...int) {
	t.Helper()
	if got := chunksOf(c); c.All || !slices.Equal(got, chunks) {
		t.Errorf("%s: chunks %v (all: %v %s), want %v", when, got, c.All, c.Why, chunks)
	}
}

// A successor is told what was handed out and not settled and what was written while
// nobody was there, and nothing else; and what its predecessor noted.
func TestPinnedTrackerOutlivesItsProcess(t *testing.T) {
	dir := filepath.Join(tracktest.Pins(t), "agent")
	one, two := tracktest.Loop(t, pinnedSize), tracktest.Loop(t, pinnedSize)
	first := openPinned(t, dir, one, two)
	if _, yes := first.Adopted(); yes {
		t.Error("a new tracker says that it was taken over")
	}
	if c := mustSwap(t, first); !c[0].All || !c[1].All {
		t.Errorf("at first: %v", c)
	}
	if err := first.Settle([]byte("read")); err != nil {
		t.Fatal(err)
	}
	write(t, one, 1)
	want(t, "settled", mustSwap(t, first)[0], 1)
	if err := first.Settle([]byte("sent")); err != nil {
		t.Fatal(err)
	}
	write(t, one, 2)
	write(t, two, 9)
	want(t, "not settled", mustSwap(t, first)[0], 2)
	write(t, one, 4) // not even handed out
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, one, 6)

	second := openPinned(t, dir, one, two)
	if note, yes := second.Adopted(); !yes || string(note) != "sent" {
		t.Errorf("note %q, %v", note, yes)
	}
	if quiet, err := second.Quiet(); err != nil || quiet {
		t.Errorf("at rest before the first Swap: %v", err)
	}
	write(t, two, 10)
	c := mustSwap(t, second)
	want(t, "one, taken over", c[0], 2, 4, 6)
	want(t, "two, taken over", c[1], 9, 10)
	want(t, "one, at rest", mustSwap(t, second)[0])
	if quiet, err := second.Quiet(); err != nil || !quiet {
		t.Errorf("not at rest: %v", err)
	}
	if err := second.Close(); err != nil { // with nothing settled
		t.Fatal(err)
	}
	third := openPinned(t, dir, one, two)
	want(t, "one, taken over again", mustSwap(t, third)[0], 2, 4, 6)
	if err := third.Settle(nil); err != nil {
		t.Fatal(err)
	}
	if err := third.Close(); err != nil {
		t.Fatal(err)
	}
	if err := RemovePins(dir); err != nil {
		t.Fatal(err)
	}
	if err := RemovePins(dir); err != nil {
		t.Errorf("once more: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pins are still there: %v", err)
	}
}

// A Swap that came to its end nowhere loses nothing, wherever it stopped.
func TestSwapCutShort(t *testing.T) {
	for _, test := range []struct {
		name string
		cut  func(*Tracker)
	}{
		{"flipped", func(tr *Tracker) { atomic.StoreUint32(tr.control.half(0), tr.active^1) }},
		{"kept", func(tr *Tracker) {
			atomic.StoreUint32(tr.control.half(0), tr.active^1)
			tr.whole[0].kept.add(tr.whole[0].geometry.ranges(tr.whole[0].buffers[tr.active].words))
		}},
		{"wiped", func(tr *Tracker) {
			atomic.StoreUint32(tr.control.half(0), tr.active^1)
			words := tr.whole[0].buffers[tr.active].words
			tr.whole[0].kept.add(tr.whole[0].geometry.ranges(words))
			wipe(words) // and its state still says that it is dirty
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, loop := filepath.Join(tracktest.Pins(t), "agent"), tracktest.Loop(t, pinnedSize)
			first := openPinned(t, dir, loop)
			mustSwap(t, first)
			if err := first.Settle(nil); err != nil {
				t.Fatal(err)
			}
			write(t, loop, 5)
			test.cut(first)
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			write(t, loop, 7)
			second := openPinned(t, dir, loop)
			want(t, "taken over", mustSwap(t, second)[0], 5, 7)
			if err := second.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// What does not fit, or is not whole, is not taken over: everything is named.
func TestPinsThatDoNotFit(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, dir, loop string)
	}{
		{"first reading not settled", nil},
		{"another disk with the same number", func(t *testing.T, _, loop string) {
			other := filepath.Join(t.TempDir(), "other.img")
			tracktest.Command(t, "truncate", "-s", fmt.Sprint(pinnedSize), other)
			tracktest.Command(t, "losetup", "--detach", loop)
			tracktest.Command(t, "losetup", loop, other)
		}},
		{"a program let go", func(t *testing.T, dir, _ string) { remove(t, dir, "link-rq_complete_2") }},
		{"a map missing", func(t *testing.T, dir, _ string) { remove(t, dir, "kept-0") }},
		{"never finished", func(t *testing.T, dir, _ string) { remove(t, dir, "about") }},
		{"of another version", func(t *testing.T, dir, _ string) {
			m, err := ebpf.LoadPinnedMap(filepath.Join(dir, "about"), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			raw, err := m.LookupBytes(uint32(0))
			if err == nil {
				err = m.Put(uint32(0), bytes.Replace(raw, []byte(`"Layout":1`), []byte(`"Layout":9`), 1))
			}
			if err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, loop := filepath.Join(tracktest.Pins(t), "agent"), tracktest.Loop(t, pinnedSize)
			first := openPinned(t, dir, loop)
			mustSwap(t, first)
			if test.spoil != nil {
				if err := first.Settle([]byte("read")); err != nil {
					t.Fatal(err)
				}
			}
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			if test.spoil != nil {
				test.spoil(t, dir, loop)
			}
			second := openPinned(t, dir, loop)
			if _, yes := second.Adopted(); yes != (test.spoil == nil) {
				t.Errorf("taken over: %v", yes)
			}
			if c := mustSwap(t, second); !c[0].All {
				t.Errorf("%v named, want everything", c[0].Ranges)
			}
			if err := second.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// Where nothing can be pinned this is said, and nothing stays behind.
func TestPinsNeedTheirFilesystem(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "agent")
	_, err := OpenPinned(dir, []Disk{{tracktest.Loop(t, pinnedSize), pinnedSize}})
	var pin *PinError
	if !errors.As(err, &pin) || !strings.Contains(err.Error(), "BPF filesystem") {
		t.Errorf("got %v, want a PinError", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was made: %v", err)
	}
}

// Of two processes one has the tracker.
func TestPinsHaveOneOwner(t *testing.T) {
	dir, loop := filepath.Join(tracktest.Pins(t), "agent"), tracktest.Loop(t, pinnedSize)
	first := openPinned(t, dir, loop)
	var pin *PinError
	if _, err := OpenPinned(dir, []Disk{{loop, pinnedSize}}); !errors.As(err, &pin) || !strings.Contains(err.Error(), "another agent") {
		t.Errorf("opened twice: %v", err)
	}
	if err := RemovePins(dir); err == nil {
		t.Error("removed while it was open")
	}
	mustSwap(t, first)
	if err := first.Settle(nil); err != nil {
		t.Fatal(err)
	}
	write(t, loop, 3)
	want(t, "after that", mustSwap(t, first)[0], 3)
	for range 2 { // more than once does no harm
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemovePins(dir); err != nil {
		t.Error(err)
	}
}

// The maps that versions share look as they did when the layout got its number. If
// this fails, raise layout and write down the new shapes.
func TestLayout(t *testing.T) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	var shapes []string
	for _, name := range pinned {
		m := spec.Maps[name]
		shapes = append(shapes, fmt.Sprintf("%s %s %d:%d x%d", name, m.Type, m.KeySize, m.ValueSize, m.MaxEntries))
	}
	const shapes1 = "disks Hash 4:24 x256, slots Array 4:24 x64, control Array 4:8 x1, states Array 4:64 x64, " +
		"bitmaps ArrayOfMaps 4:4 x128, barrier ArrayOfMaps 4:4 x1"
	if got := strings.Join(shapes, ", "); layout != 1 || got != shapes1 {
		t.Errorf("layout %d: %s", layout, got)
	}
}

func TestPinnedIsATracker(t *testing.T) {
	tracktest.Suite(t, func(t *testing.T, devices []string, _ int64) blocktrack.Tracker {
		tracker := openPinned(t, filepath.Join(tracktest.Pins(t), "agent"), devices...)
		t.Cleanup(func() { _ = tracker.Close() })
		return tracker
	})
}
