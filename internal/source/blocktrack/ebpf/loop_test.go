package ebpf_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/source/blocktrack/ebpf"
	"lifeboat/internal/source/blocktrack/tracktest"
)

// open opens the tracker, or skips the test where the kernel has no use for it.
func open(t *testing.T, devices []string, size int64) *ebpf.Tracker {
	t.Helper()
	var disks []ebpf.Disk
	for _, d := range devices {
		disks = append(disks, ebpf.Disk{Path: d, Size: size})
	}
	tracker, err := ebpf.Open(disks)
	var unavailable *ebpf.UnavailableError
	if errors.As(err, &unavailable) && os.Getenv("LIFEBOAT_NEED_EBPF") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tracker.Close() })
	return tracker
}

func TestEBPFIsATracker(t *testing.T) {
	tracktest.Suite(t, func(t *testing.T, devices []string, size int64) blocktrack.Tracker {
		return open(t, devices, size)
	})
}

// Filesystems with online discard, at work and at rest: what differs between two
// images of the disk was named.
func TestFilesystems(t *testing.T) {
	for _, filesystem := range []string{"ext4", "xfs"} {
		t.Run(filesystem, func(t *testing.T) {
			const size = 512 << 20
			loop := tracktest.Loop(t, size)
			dir, unmount := tracktest.Mount(t, loop, filesystem, "discard")
			tracker := open(t, []string{loop}, size)
			dev, err := blocktrack.Open(loop)
			if err != nil {
				t.Fatal(err)
			}
			defer dev.Close()
			tracktest.Command(t, "sync")
			changed := tracktest.Follow(t, dev, tracker)

			tracktest.Command(t, "sh", "-c", "cd "+dir+` &&
				for i in $(seq 200); do dd if=/dev/urandom of=f$i bs=20k count=1 status=none; done && sync &&
				for i in $(seq 1 2 200); do rm f$i; done && sync &&
				dd if=/dev/urandom of=direct bs=1M count=8 oflag=direct status=none &&
				dd if=/dev/urandom of=appended bs=4k count=50 oflag=append,sync status=none &&
				fstrim . && rm direct && sync`)
			unmount()
			changed()
		})
	}
}

// A partition is watched as a part of its disk, whoever writes to it.
func TestPartition(t *testing.T) {
	const size, start, length = 32 << 20, 4<<20 + 512, 8 << 20
	loop := tracktest.Loop(t, size)
	part := tracktest.Partition(t, loop, 1, start, length)
	tracker := open(t, []string{loop, part}, size)
	swap := func() []blocktrack.Changes {
		t.Helper()
		c, err := tracker.Swap(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	swap()
	tracktest.Command(t, "dd", "if=/dev/urandom", "of="+part, "bs=4k", "seek=100", "count=1", "oflag=direct", "status=none")
	c := swap()
	whole := blocktrack.Range{Offset: (start + 100*4096) / 4096 * 4096, Length: 8192}
	if len(c[0].Ranges) != 1 || c[0].Ranges[0] != whole {
		t.Errorf("of the disk: %v, want %v", c[0].Ranges, whole)
	}
	if inside := (blocktrack.Range{Offset: whole.Offset - start, Length: 8192}); len(c[1].Ranges) != 1 || c[1].Ranges[0] != inside {
		t.Errorf("of the partition: %v, want %v", c[1].Ranges, inside)
	}
	tracktest.Command(t, "dd", "if=/dev/urandom", "of="+loop, "bs=4k", "seek=4", "count=1", "oflag=direct", "status=none")
	if c := swap(); len(c[0].Ranges) != 1 || len(c[1].Ranges) != 0 {
		t.Errorf("a write beside the partition: %v", c)
	}
}

// A discard of gigabytes is one range and little more than itself.
func TestLargeRanges(t *testing.T) {
	const size = 12 << 30
	loop := tracktest.Loop(t, size)
	tracker := open(t, []string{loop}, size)
	if _, err := tracker.Swap(t.Context()); err != nil {
		t.Fatal(err)
	}
	tracktest.Command(t, "blkdiscard", "--offset", "1052672", "--length", "10g", loop)
	tracktest.Command(t, "dd", "if=/dev/zero", "of="+loop, "bs=4k", "count=1", "seek=3145727", "oflag=direct", "status=none")
	c, err := tracker.Swap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c[0].All || len(c[0].Ranges) != 2 {
		t.Fatalf("got %+v", c[0])
	}
	first, last := c[0].Ranges[0], c[0].Ranges[1]
	if first.Offset > 1052672 || first.Offset+first.Length < 1052672+10<<30 || first.Length > 10<<30+64<<20 {
		t.Errorf("discarded 10 GiB, named %+v", first)
	}
	if want := (blocktrack.Range{Offset: size - 4096, Length: 4096}); last != want {
		t.Errorf("wrote %+v, named %+v", want, last)
	}
}

func TestRefusals(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(file, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ path, want string }{
		{file, "no block device"},
		{file + ".absent", "is not there"},
		{"/dev/null", "no block device"},
	} {
		_, err := ebpf.Open([]ebpf.Disk{{Path: test.path, Size: 4096}})
		var unavailable *ebpf.UnavailableError
		if !errors.As(err, &unavailable) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want an UnavailableError that says %q", test.path, err, test.want)
		}
	}
}
