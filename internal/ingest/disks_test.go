package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/ingest"
	"lifeboat/internal/source/blocktrack/ebpf"
)

// A disk that grows goes on as the larger one.
func TestDiskGrows(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	disk := image(t, 8<<20+512, seed(t)) // the old last chunk is partial
	cfg := r.config(t.TempDir(), disk)
	a := runAgent(cfg)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()

	if err := os.Truncate(disk, 16<<20+1536); err != nil {
		t.Fatal(err)
	}
	write(t, disk, []byte("in the new part"), 12<<20)
	write(t, disk, []byte("at the seam"), 8<<20+500)
	p := r.takePoint(server)
	wantContent(t, r.vault, p, disk)
	r.catalog.await(t, "the new size", func() bool {
		info, props := r.catalog.info[server], r.catalog.props[server]
		return len(info.Disks) == 1 && info.Disks[0].Total == 16<<20+1536 && props.Disks[0].Bytes == 16<<20+1536
	})
	a.stop(t)

	// And while no agent runs.
	if err := os.Truncate(disk, 20<<20); err != nil {
		t.Fatal(err)
	}
	write(t, disk, []byte("grown offline"), 19<<20)
	a = runAgent(cfg)
	defer a.stop(t)
	wantContent(t, r.vault, r.takePoint(server), disk)
}

// A disk that shrinks or vanishes stalls replication, with the cause and the next
// step; what is in the vault stays, and all goes on when the disk is back.
func TestDiskShrinksOrVanishes(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	disk := image(t, 8<<20, seed(t))
	cfg := r.config(t.TempDir(), disk)
	a := runAgent(cfg)
	defer func() { a.stop(t) }()
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	first := r.catalog.points[server][0]
	before := content(t, r.vault, server, first.ID, 0)

	stalled := func(why string) {
		t.Helper()
		r.catalog.await(t, "STALLED: "+why, func() bool {
			info := r.catalog.info[server]
			return info.State == drs.ReplicationStalled && info.Error != nil && strings.Contains(info.Error.Raw, why) && strings.Contains(info.Error.Raw, "Next: ")
		})
	}
	goesOn := func() {
		t.Helper()
		r.catalog.await(t, "CONTINUOUS", func() bool {
			info := r.catalog.info[server]
			return info.State == drs.ReplicationContinuous && info.Error == nil
		})
		wantContent(t, r.vault, r.takePoint(server), disk)
	}

	if err := os.Truncate(disk, 4<<20); err != nil {
		t.Fatal(err)
	}
	stalled("shrank")
	if _, err := r.server.TakePoint(context.Background(), server); !errors.Is(err, ingest.ErrNoPoint) {
		t.Errorf("a point of a shrunk disk: %v", err)
	}
	if got := content(t, r.vault, server, first.ID, 0); string(got) != string(before) {
		t.Error("the recovery point changed")
	}
	os.Truncate(disk, 8<<20)
	goesOn()

	if err := os.Rename(disk, disk+".away"); err != nil {
		t.Fatal(err)
	}
	stalled("gone")
	write(t, disk+".away", []byte("while away"), 2<<20)
	os.Rename(disk+".away", disk)
	goesOn()

	// Shrunk while the agent was down: the server refuses, and shows why.
	a.stop(t)
	os.Truncate(disk, 4<<20)
	a = runAgent(cfg)
	stalled("its replica 8388608")
	os.Truncate(disk, 8<<20)
}

// Two disks are one server, and one point holds both.
func TestTwoDisks(t *testing.T) {
	t.Parallel()
	rng := seed(t)
	r := newRig(t, nil)
	disks := []string{image(t, 6<<20, rng), image(t, 9<<20, rng)}
	cfg := r.config(t.TempDir(), disks[0])
	cfg.Disks = disks
	a := runAgent(cfg)
	defer a.stop(t)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	write(t, disks[0], []byte("first"), 100)
	write(t, disks[1], []byte("second"), 8<<20)
	p := r.takePoint(server)
	for i, disk := range disks {
		want, err := os.ReadFile(disk)
		if err != nil {
			t.Fatal(err)
		}
		if got := content(t, r.vault, server, p.ID, i); string(got) != string(want) {
			t.Errorf("disk %d differs", i)
		}
	}
}

// A disk that is no longer named ends replication with the next step: a point
// holds all disks as of one moment. Named again, in whatever order, all go on.
func TestDiskLeftOut(t *testing.T) {
	t.Parallel()
	rng := seed(t)
	r := newRig(t, nil)
	one, two := image(t, 6<<20, rng), image(t, 9<<20, rng)
	cfg := r.config(t.TempDir(), one)
	a := runAgent(cfg)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	a.stop(t)

	cfg.Disks = []string{one, two} // added later, so the state directory does not know it
	a = runAgent(cfg)
	both := func(p drs.RecoveryPoint) bool {
		image, err := r.vault.OpenPoint(t.Context(), server, p.ID)
		if err != nil {
			t.Fatal(err)
		}
		defer image.Close()
		return len(image.Volumes()) == 2
	}
	r.catalog.await(t, "a point of both disks", func() bool { return both(r.catalog.points[server][len(r.catalog.points[server])-1]) })
	a.stop(t)
	points := len(r.catalog.points[server])

	cfg.Disks = []string{one}
	write(t, one, []byte("while the other is left out"), 100)
	refusedWith(t, cfg, two, "--disk again", "--drop-missing")
	r.catalog.await(t, "STALLED", func() bool {
		info := r.catalog.info[server]
		return info.State == drs.ReplicationStalled && info.Error != nil && strings.Contains(info.Error.Raw, two)
	})
	if now := len(r.catalog.points[server]); now != points {
		t.Errorf("%d points were made with a disk left out", now-points)
	}

	cfg.Disks = []string{two, one}
	a = runAgent(cfg)
	defer a.stop(t)
	p := r.takePoint(server)
	for i, disk := range []string{one, two} {
		want, err := os.ReadFile(disk)
		if err != nil {
			t.Fatal(err)
		}
		if got := content(t, r.vault, server, p.ID, i); !both(p) || string(got) != string(want) {
			t.Errorf("disk %d differs", i)
		}
	}
}

// A block device, read around the page cache.
func TestBlockDevice(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	back := image(t, 8<<20, seed(t))
	out, err := exec.Command("losetup", "--find", "--show", back).Output()
	if err != nil {
		t.Skipf("no loop device here: %v", err)
	}
	loop := strings.TrimSpace(string(out))
	defer exec.Command("losetup", "--detach", loop).Run()

	for _, tracker := range []string{"auto", "scan"} {
		t.Run(tracker, func(t *testing.T) { blockDevice(t, loop, tracker) })
	}
}

// bytesRead is what has been read of a device since it is there.
func bytesRead(t *testing.T, device string) int64 {
	t.Helper()
	raw, err := os.ReadFile("/sys/block/" + filepath.Base(device) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	var sectors int64
	if _, err := fmt.Sscanf(strings.Join(strings.Fields(string(raw))[2:], " "), "%d", &sectors); err != nil {
		t.Fatal(err)
	}
	return sectors * 512
}

// tracked tells whether writes to a device can be tracked here.
func tracked(device string) bool {
	tracker, err := ebpf.Open([]ebpf.Disk{{Path: device}})
	if err != nil {
		return false
	}
	_ = tracker.Close()
	return true
}

func blockDevice(t *testing.T, loop, tracker string) {
	r := newRig(t, nil)
	cfg := r.config(t.TempDir(), loop)
	cfg.Tracker = tracker
	a := runAgent(cfg)
	defer a.stop(t)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	before := bytesRead(t, loop)
	for range 3 {
		r.takePoint(server)
	}
	live := tracker == "auto" && tracked(loop)
	if n := bytesRead(t, loop) - before; live && n != 0 {
		t.Errorf("%d bytes read of a disk at rest", n)
	}
	f, err := os.OpenFile(loop, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("through the device"), 5<<20+7); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	p := r.takePoint(server)
	if n := bytesRead(t, loop) - before; live && n > 1<<20 {
		t.Errorf("%d bytes read for one write", n)
	}
	wantContent(t, r.vault, p, loop)
	if got := content(t, r.vault, server, p.ID, 0); string(got[5<<20+7:5<<20+25]) != "through the device" {
		t.Error("the write is not in the point")
	}
	// This machine is the source now, with all that it is.
	if props := r.catalog.props[server]; props.Cores() < 1 || len(props.OS) < len("linux x") || props.BootMode == drs.BootUnknown {
		t.Errorf("inventory %+v", props)
	}
}
