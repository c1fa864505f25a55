package qemu_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/source/blocktrack/qemu"
	"lifeboat/internal/source/blocktrack/tracktest"
)

// A disk that is unplugged in a cut is in that cut as it was; the tracker goes on without
// it, names what is written to the others, and has it again when it is plugged in. What it
// keeps for a successor is about the disks that are there.
func TestDisksComeAndGo(t *testing.T) {
	g := tracktest.NewMachine(t, 1, diskSize)
	image := g.Image("second.img", diskSize)
	file := filepath.Join(t.TempDir(), "record")
	tracker := openKept(t, g, file)
	swap(t, tracker)
	release(t, tracker)

	g.Plug(1, image)
	all, err := tracker.Attached(t.Context())
	if want := []qemu.Attached{{Name: "disk0", Size: diskSize}, {Name: "disk1", Size: diskSize}}; err != nil || !slices.Equal(all, want) {
		t.Fatalf("attached: %v (%v)", all, err)
	}
	second := tracker.Follow(all[1])
	g.Write(0, 1, 1<<20, 4096)
	g.Write(1, 2, 0, diskSize)
	c := swap(t, tracker)
	named(t, c[0], 1)
	if !c[1].All {
		t.Errorf("of the new disk: %+v", c[1])
	}
	g.Run("device_del", map[string]any{"id": "disk1"})
	if b := content(t, second); !bytes.Equal(b, bytes.Repeat([]byte{2}, diskSize)) {
		t.Error("unplugged in the cut, it does not hold what it was")
	}
	release(t, tracker)
	g.Run("blockdev-del", map[string]any{"node-name": "image1"})

	g.Write(0, 1, 2<<20, 4096)
	var gone *blocktrack.GoneError
	if _, err := tracker.Swap(t.Context()); !errors.As(err, &gone) || gone.Device != "disk1" || !errors.Is(err, qemu.ErrUnplugged) {
		t.Fatalf("swap without it: %v", err)
	}
	tracker.Leave(t.Context(), "disk1")
	c = swap(t, tracker)
	named(t, c[0], 2)
	if !c[1].Empty() {
		t.Errorf("of the disk that is left: %+v", c[1])
	}
	release(t, tracker)
	quiet(t, tracker, true)
	settle(t, tracker, "without")

	remembered := []qemu.Attached{{Name: "disk0", Size: diskSize}, {Name: "disk1", Size: diskSize}}
	again := func() *qemu.Tracker {
		t.Helper()
		if err := tracker.Close(); err != nil {
			t.Fatal(err)
		}
		next, err := qemu.Open(t.Context(), qemu.Options{Address: g.Address, Grain: 4096, Keep: file, Remembered: remembered})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = next.Close() })
		return next
	}
	tracker = again()
	if note, yes := tracker.Adopted(); !yes || string(note) != "without" || !tracker.Left(1) || tracker.Left(0) {
		t.Errorf("a successor adopted: %t, %q; left: %t", yes, note, tracker.Left(1))
	}
	g.Plug(1, image)
	tracker.Follow(remembered[1])
	g.Write(0, 1, 3<<20, 4096)
	c = swap(t, tracker)
	named(t, c[0], 3)
	if !c[1].All || !strings.Contains(c[1].Why, "away") {
		t.Errorf("of the disk that is back: %+v", c[1])
	}
	release(t, tracker)
	settle(t, tracker, "with")
	tracker = again()
	if note, yes := tracker.Adopted(); !yes || string(note) != "with" || tracker.Left(1) {
		t.Errorf("a successor adopted: %t, %q", yes, note)
	}

	remembered = []qemu.Attached{{Name: "disk7", Size: diskSize}}
	if err := tracker.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := qemu.Open(t.Context(), qemu.Options{Address: g.Address, Remembered: remembered}); err == nil || !strings.Contains(err.Error(), "disk7") {
		t.Errorf("with none of its disks: %v", err)
	}
}

// What libvirt detaches while a cut holds it is let go of by QEMU once the cut has ended,
// so that the image can be removed.
func TestLibvirtDetachesInACut(t *testing.T) {
	l := tracktest.NewLibvirt(t, 1, diskSize)
	image := l.Image("second.img", diskSize)
	l.Own(image)
	attach := func() { l.Virsh("attach-disk", "harbour", image, "sdb", "--targetbus", "scsi", "--cache", "none") }
	attach()
	tracker := open(t, l.Machine)
	swap(t, tracker)
	l.Virsh("detach-disk", "harbour", "sdb")
	release(t, tracker)
	isOpen := func() bool {
		var nodes []struct{ File string }
		if err := l.Control.Run(t.Context(), "query-named-block-nodes", nil, &nodes); err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(nodes, func(n struct{ File string }) bool { return n.File == image })
	}
	if !isOpen() {
		t.Error("libvirt closed the image by itself: this test tests nothing")
	}
	name := tracker.Devices()[1].Name()
	tracker.Leave(t.Context(), name)
	if isOpen() {
		t.Error("QEMU has the image still")
	}
	attach()
	all, err := tracker.Attached(t.Context())
	if err != nil || len(all) != 2 || all[1].Name != name {
		t.Fatalf("attached again: %v (%v), want %s", all, err, name)
	}
	tracker.Follow(all[1])
	if c := swap(t, tracker); c[0].All || !c[1].All {
		t.Errorf("with the disk that is back: %+v", c)
	}
	release(t, tracker)
}
