package qemu_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/source/blocktrack/qemu"
	"lifeboat/internal/source/blocktrack/tracktest"
)

const diskSize = 48<<20 + 4096

func open(t *testing.T, g *tracktest.Machine) *qemu.Tracker {
	t.Helper()
	tracker, err := qemu.Open(t.Context(), qemu.Options{Address: g.Address, Grain: 4096})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tracker.Close() })
	return tracker
}

// content reads all of a disk as the cut has it.
func content(t *testing.T, d *qemu.Device) []byte {
	t.Helper()
	b := make([]byte, diskSize)
	for off := 0; off < len(b); off += 1 << 20 {
		if _, err := d.ReadAt(b[off:min(off+1<<20, len(b))], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func swap(t *testing.T, tracker *qemu.Tracker) []blocktrack.Changes {
	t.Helper()
	changes, err := tracker.Swap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

func release(t *testing.T, tracker *qemu.Tracker) {
	t.Helper()
	if err := tracker.Release(); err != nil {
		t.Fatal(err)
	}
}

func quiet(t *testing.T, tracker *qemu.Tracker, want bool) {
	t.Helper()
	if got, err := tracker.Quiet(); err != nil || got != want {
		t.Errorf("quiet: %t (%v), want %t", got, err, want)
	}
}

// Each way to change a disk is named, once, and no more than that.
func TestEachWriteIsNamed(t *testing.T) {
	g := tracktest.NewMachine(t, 2, diskSize)
	tracker := open(t, g)
	for i, c := range swap(t, tracker) {
		if !c.All {
			t.Errorf("disk %d: the first Swap names %v", i, c)
		}
	}
	release(t, tracker)
	quiet(t, tracker, true)
	for i, command := range []string{"write -q -P 7 %d %d", "write -q -z %d %d", "discard -q %d %d", "write -q -f -P 9 %d %d"} {
		off, n := int64(i+1)<<20, int64(8192)
		if err := g.IO(t.Context(), 1, fmt.Sprintf(command, off, n)); err != nil {
			t.Fatal(err)
		}
		quiet(t, tracker, false)
		c := swap(t, tracker)
		if len(c[0].Ranges) != 0 || c[0].All {
			t.Errorf("%s: of the other disk: %v", command, c[0])
		}
		if want := (blocktrack.Range{Offset: off, Length: n}); c[1].All || len(c[1].Ranges) != 1 || c[1].Ranges[0] != want {
			t.Errorf("%s: %v, want %v", command, c[1], want)
		}
		release(t, tracker)
		quiet(t, tracker, true)
	}
	for i, c := range swap(t, tracker) {
		if !c.Empty() {
			t.Errorf("disk %d: named twice: %v", i, c)
		}
	}
}

// A writer stamps a number on one disk and the other in turn, without a pause: a cut
// is a prefix of the numbers over both disks, and stays it while it is read.
func TestACutIsOneMoment(t *testing.T) {
	g := tracktest.NewMachine(t, 2, diskSize)
	tracker := open(t, g)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Stamp(ctx) }()
	for range 5 {
		swap(t, tracker)
		first := [2][]byte{content(t, tracker.Devices()[0]), content(t, tracker.Devices()[1])}
		for i, dev := range tracker.Devices() {
			if !bytes.Equal(first[i], content(t, dev)) {
				t.Errorf("disk %d: changed while the cut was held", i)
			}
		}
		release(t, tracker)
		t.Logf("%d numbers", tracktest.Stamped(t, first))
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A copy that follows the tracker equals the disk.
func TestCopiesFollow(t *testing.T) {
	g := tracktest.NewMachine(t, 1, diskSize)
	tracker := open(t, g)
	mirror := make([]byte, diskSize)
	for round := range 6 {
		changes := swap(t, tracker)[0]
		if round > 0 && changes.All {
			t.Fatalf("round %d: all, %s", round, changes.Why)
		}
		if changes.All {
			changes.Ranges = []blocktrack.Range{{Offset: 0, Length: diskSize}}
		}
		dev := tracker.Devices()[0]
		for i := range 10 { // the guest goes on
			g.Write(0, byte(round*10+i+1), int64(round*10+i)*700_416, 16384)
		}
		for _, r := range changes.Ranges {
			if _, err := dev.ReadAt(mirror[r.Offset:r.Offset+r.Length], r.Offset); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(mirror, content(t, dev)) {
			t.Errorf("round %d: the copy differs from the cut", round)
		}
		release(t, tracker)
	}
}

// QEMU killed during a cut: the disk is gone, then there again, and all of it is named.
func TestQEMUKilled(t *testing.T) {
	g := tracktest.NewMachine(t, 1, diskSize)
	tracker := open(t, g)
	swap(t, tracker)
	release(t, tracker)
	swap(t, tracker)
	g.Kill()
	var gone *blocktrack.GoneError
	if _, err := tracker.Devices()[0].ReadAt(make([]byte, 4096), 0); !errors.As(err, &gone) {
		t.Errorf("read: %v, want a GoneError", err)
	}
	if err := tracker.Release(); !errors.Is(err, qemu.ErrBroken) {
		t.Errorf("release: %v, want ErrBroken", err)
	}
	if _, err := tracker.Swap(t.Context()); !errors.As(err, &gone) {
		t.Errorf("swap: %v, want a GoneError", err)
	}
	g.Start()
	if c := swap(t, tracker); !c[0].All || !strings.Contains(c[0].Why, "no record") {
		t.Errorf("after a new start: %+v", c[0])
	}
	release(t, tracker)
	if c := swap(t, tracker); !c[0].Empty() {
		t.Errorf("afterwards: %+v", c[0])
	}
}

// An agent killed during a cut leaves jobs, nodes and bitmaps: the next one removes
// them, and names everything.
func TestAgentKilled(t *testing.T) {
	g := tracktest.NewMachine(t, 2, diskSize)
	killHolding(t, g)
	g.Write(0, 5, 0, 65536)
	tracker := open(t, g)
	for i, c := range swap(t, tracker) {
		if !c.All {
			t.Errorf("disk %d: %v", i, c)
		}
	}
	if err := tracker.Close(); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, g); len(left) > 0 {
		t.Errorf("something is left: %v", left)
	}
	files, err := os.ReadDir(g.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".qcow2") {
			t.Errorf("%s is left", f.Name())
		}
	}
}

// A Swap that fails after its transaction forgets nothing: here somebody else uses
// QEMU's only NBD server.
func TestAFailedCutForgetsNothing(t *testing.T) {
	g := tracktest.NewMachine(t, 1, diskSize)
	tracker := open(t, g)
	swap(t, tracker)
	release(t, tracker)
	g.Write(0, 1, 1<<20, 4096)
	g.Run("nbd-server-start", map[string]any{"addr": map[string]any{"type": "unix", "data": map[string]any{"path": g.Dir + "/other"}}})
	g.Run("block-export-add", map[string]any{"type": "nbd", "id": "other", "node-name": "image0"})
	var hindered *blocktrack.HinderedError
	if _, err := tracker.Swap(t.Context()); !errors.As(err, &hindered) || !strings.Contains(hindered.NextStep, "nbd-server-stop") {
		t.Errorf("swap: %v", err)
	}
	g.Write(0, 2, 2<<20, 4096)
	g.Run("nbd-server-stop", nil)
	c := swap(t, tracker)[0]
	want := []blocktrack.Range{{Offset: 1 << 20, Length: 4096}, {Offset: 2 << 20, Length: 4096}}
	if c.All || len(c.Ranges) != 2 || c.Ranges[0] != want[0] || c.Ranges[1] != want[1] {
		t.Errorf("after it: %+v, want %v", c, want)
	}
}

func TestRefusals(t *testing.T) {
	g := tracktest.NewMachine(t, 1, diskSize)
	for _, test := range []struct {
		options qemu.Options
		want    string
	}{
		{qemu.Options{Address: qemu.Address{Socket: g.Dir + "/absent"}}, "-qmp unix:"},
		{qemu.Options{Address: g.Address, Disks: []string{"disk7"}}, "no writable disk"},
		{qemu.Options{Address: g.Address, Disks: []string{"disk0", g.Images[0]}}, "named twice"},
	} {
		if _, err := qemu.Open(t.Context(), test.options); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.options, err, test.want)
		}
	}
}
