package qemu_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/source/blocktrack/qemu"
	"lifeboat/internal/source/blocktrack/tracktest"
)

func openKept(t *testing.T, g *tracktest.Machine, file string) *qemu.Tracker {
	t.Helper()
	tracker, err := qemu.Open(t.Context(), qemu.Options{Address: g.Address, Grain: 4096, Keep: file})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tracker.Close() })
	return tracker
}

func settle(t *testing.T, tracker *qemu.Tracker, note string) {
	t.Helper()
	if err := tracker.Settle([]byte(note)); err != nil {
		t.Fatal(err)
	}
}

// named fails the test unless a cut names these blocks of a disk, and no more.
func named(t *testing.T, c blocktrack.Changes, blocks ...int64) {
	t.Helper()
	var want []blocktrack.Range
	for _, b := range blocks {
		want = append(want, blocktrack.Range{Offset: b << 20, Length: 4096})
	}
	if got := fmt.Sprint(c.Ranges); c.All || got != fmt.Sprint(want) {
		t.Errorf("named %+v, want %v", c, want)
	}
}

// What is written while no tracker is there the next one names, with all that the one
// before named and had not settled, however that ended; and its note is found.
func TestTheNextTrackerGoesOn(t *testing.T) {
	for _, ends := range []string{"killed with a guard", "killed in a cut", "closed"} {
		t.Run(ends, func(t *testing.T) {
			g := tracktest.NewMachine(t, 2, diskSize)
			file := filepath.Join(t.TempDir(), "record")
			block := func(disk int, n int64) { g.Write(disk, byte(n), n<<20, 4096) }
			var guard []string
			if ends == "killed with a guard" {
				guard = command(t, "guard")
			}
			agent := followKept(t, g.Address, g.Dir, file, guard...)
			agent.does("swap", "all true")
			agent.does("release", "released: <nil>")
			block(0, 1)
			agent.does("swap", "all false bytes 4096")
			agent.does("release", "released: <nil>")
			agent.does("settle", "settled <nil>")
			for n := int64(2); n < 5; n++ {
				block(0, n)
				agent.does("swap", "all false bytes 4096")
				block(1, n)
				if n < 4 || ends == "closed" {
					agent.does("release", "released: <nil>")
				}
			}
			if ends == "closed" {
				agent.close()
			} else {
				agent.kill()
			}
			block(0, 6)

			tracker := openKept(t, g, file)
			if note, yes := tracker.Adopted(); !yes || string(note) != "note" {
				t.Fatalf("not adopted: %q", note)
			}
			block(0, 8)
			c := swap(t, tracker)
			named(t, c[0], 2, 3, 4, 6, 8)
			named(t, c[1], 2, 3, 4)
			release(t, tracker)

			// The second successor has what the first did not settle.
			tracker = reopened(t, g, tracker, file)
			c = swap(t, tracker)
			named(t, c[0], 2, 3, 4, 6, 8)
			release(t, tracker)
			settle(t, tracker, "other")
			tracker = reopened(t, g, tracker, file)
			if note, yes := tracker.Adopted(); !yes || string(note) != "other" {
				t.Errorf("adopted %t with %q", yes, note)
			}
			block(1, 9)
			c = swap(t, tracker)
			named(t, c[0])
			named(t, c[1], 9)
			release(t, tracker)

			// Where nobody is to go on nothing is left.
			tracker.Forget("no more")
			if err := tracker.Close(); err != nil {
				t.Fatal(err)
			}
			if left := leftovers(t, g); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func reopened(t *testing.T, g *tracktest.Machine, tracker *qemu.Tracker, file string) *qemu.Tracker {
	t.Helper()
	if err := tracker.Close(); err != nil {
		t.Fatal(err)
	}
	return openKept(t, g, file)
}

// Any doubt about the record has all disks named as a whole: QEMU started anew, a
// bitmap gone, one that stopped, a disk of another size, other disks, no settlement, a
// file of something else.
func TestNoDoubtIsAdopted(t *testing.T) {
	for name, doubt := range map[string]func(t *testing.T, g *tracktest.Machine, bitmap func() string){
		"QEMU killed": func(_ *testing.T, g *tracktest.Machine, _ func() string) {
			g.Kill()
			g.Start()
		},
		"bitmap removed": func(_ *testing.T, g *tracktest.Machine, bitmap func() string) {
			g.Run("block-dirty-bitmap-remove", map[string]any{"node": "image0", "name": bitmap()})
		},
		"bitmap stopped": func(_ *testing.T, g *tracktest.Machine, bitmap func() string) {
			g.Run("block-dirty-bitmap-disable", map[string]any{"node": "image0", "name": bitmap()})
		},
		"disk grown": func(_ *testing.T, g *tracktest.Machine, _ func() string) {
			g.Run("block_resize", map[string]any{"node-name": "image0", "size": diskSize + 1<<20})
		},
		"disk added": func(_ *testing.T, g *tracktest.Machine, _ func() string) {
			g.Plug(1, g.Image("more.img", diskSize))
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := tracktest.NewMachine(t, 1, diskSize)
			file := filepath.Join(t.TempDir(), "record")
			tracker := openKept(t, g, file)
			swap(t, tracker)
			release(t, tracker)
			settle(t, tracker, "note")
			if err := tracker.Close(); err != nil {
				t.Fatal(err)
			}
			doubt(t, g, func() string { return bitmapOf(t, g) })
			tracker = openKept(t, g, file)
			if _, yes := tracker.Adopted(); yes {
				t.Error("adopted")
			}
			for i, c := range swap(t, tracker) {
				if !c.All || c.Why == "" {
					t.Errorf("disk %d: %+v", i, c)
				}
			}
		})
	}
}

// bitmapOf is the name of the only bitmap on image0.
func bitmapOf(t *testing.T, g *tracktest.Machine) string {
	t.Helper()
	var drives []struct {
		Inserted *struct {
			Bitmaps []struct{ Name string } `json:"dirty-bitmaps"`
		}
	}
	if err := g.Control.Run(t.Context(), "query-block", nil, &drives); err != nil {
		t.Fatal(err)
	}
	for _, d := range drives {
		if d.Inserted != nil && len(d.Inserted.Bitmaps) == 1 && strings.HasPrefix(d.Inserted.Bitmaps[0].Name, "lifeboat-") {
			return d.Inserted.Bitmaps[0].Name
		}
	}
	t.Fatalf("not one bitmap: %+v", drives)
	return ""
}
