package guest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/test/guest"
)

// image makes a blank disk.
func image(t *testing.T, mib int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(mib << 20)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Partitions, LVM (its linear target), dm-crypt, md raid0 and NVMe with online
// discard: every chunk that two readings of a disk find different was named by the
// eBPF tracker.
func TestTrackerSeesThroughStacks(t *testing.T) {
	partitioned := image(t, 96)
	table := exec.Command("sfdisk", "-q", partitioned)
	table.Stdin = strings.NewReader("label: dos\nstart=2048, size=65536\nstart=67584, size=65536\n")
	if out, err := table.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v: %s", err, out)
	}
	m := guest.Start(t,
		guest.Disk{Path: partitioned, Bus: guest.Virtio},
		guest.Disk{Path: image(t, 48), Bus: guest.Virtio},
		guest.Disk{Path: image(t, 32), Bus: guest.Virtio},
		guest.Disk{Path: image(t, 32), Bus: guest.Virtio},
		guest.Disk{Path: image(t, 304), Bus: guest.NVMe},
	)
	t.Log("\n" + m.Run(t, "/inside", "track"))
}
