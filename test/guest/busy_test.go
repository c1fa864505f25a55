package guest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/test/guest"
	"lifeboat/test/stamp"
)

// busy is a machine that a writer never leaves at rest: ext4 with online discard and
// a raw partition on a virtio disk, LVM on a second one, XFS with online discard on
// NVMe. What the agent keeps lies on a disk that it does not protect.
type busy struct {
	machine *guest.Machine
	plan    stamp.Plan
	logical string // where the logical volume lies: "START LENGTH" in sectors
	disks   []string
}

// protected are the disks that the agent is to replicate, in the order of busy.disks.
var protected = []string{"/dev/vda", "/dev/vdb", "/dev/nvme0n1"}

// Sizes of the disks in MiB; XFS is not made smaller. /dev/vda has two partitions.
var sizes = []int64{64, 64, 304}

const partitions = "label: dos\nstart=2048, size=81920\nstart=83968, size=32768\n"

const makeFilesystems = `
	lvm pvcreate -q -y /dev/vdb
	lvm vgcreate -q -y group /dev/vdb
	lvm lvcreate -q -y -Zn -l 12 -n volume group
	/bin/mke2fs -q -t ext4 /dev/vda1
	/bin/mke2fs -q -t ext4 /dev/group/volume
	mkfs.xfs -q -f /dev/nvme0n1
	/bin/mke2fs -q -t ext4 /dev/vdc`

const mountFilesystems = `
	mkdir -p /mnt/part /mnt/volume /mnt/nvme /mnt/state
	mount -t ext4 -o discard /dev/vda1 /mnt/part
	mount -t ext4 -o discard /dev/group/volume /mnt/volume
	mount -t xfs -o discard /dev/nvme0n1 /mnt/nvme
	mount -t ext4 /dev/vdc /mnt/state`

// noUdev has LVM make its device files itself.
const noUdev = `
	printf 'activation {\n udev_sync=0\n udev_rules=0\n verify_udev_operations=1\n}\ndevices {\n obtain_device_list_from_udev=0\n use_devicesfile=0\n}\n' >/etc/lvm/lvm.conf
	export DM_DISABLE_UDEV=1`

// newBusy boots the machine; more is what it has besides.
func newBusy(t *testing.T, seed uint64, s *site, more guest.Config) *busy {
	t.Helper()
	b := &busy{plan: stamp.Plan{Seed: seed, Targets: []stamp.Target{
		{Path: "/mnt/part/file", Kind: stamp.File, Blocks: 384},
		{Path: "/mnt/part/leaf", Kind: stamp.Leaf, Blocks: 8},
		{Path: "/mnt/volume/file", Kind: stamp.File, Blocks: 384},
		{Path: "/mnt/volume/leaf", Kind: stamp.Leaf, Blocks: 8},
		{Path: "/mnt/nvme/file", Kind: stamp.File, Blocks: 512},
		{Path: "/mnt/nvme/leaf", Kind: stamp.Leaf, Blocks: 24},
		{Path: "/mnt/nvme/other", Kind: stamp.Leaf, Blocks: 17},
		{Path: "/dev/vda2", Kind: stamp.Device, Blocks: 384},
	}}}
	dir := t.TempDir()
	buses := []guest.Bus{guest.Virtio, guest.Virtio, guest.NVMe}
	var disks []guest.Disk
	for i, mib := range sizes {
		b.disks = append(b.disks, blank(t, filepath.Join(dir, fmt.Sprint(i)), mib))
		disks = append(disks, guest.Disk{Path: b.disks[i], Bus: buses[i]})
	}
	table := exec.Command("sfdisk", "-q", b.disks[0])
	table.Stdin = strings.NewReader(partitions)
	if out, err := table.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v: %s", err, out)
	}
	disks = append(disks, guest.Disk{Path: blank(t, filepath.Join(dir, "state"), 256), Bus: guest.Virtio})
	b.machine = guest.Boot(t, guest.Config{
		Disks: disks, Logs: []string{"writer", "agent"}, Tools: more.Tools, Args: more.Args,
		Files: map[string]string{"lifeboat": binary, "ca.pem": s.server.CAFile},
	})
	b.shell(t, noUdev+makeFilesystems+mountFilesystems)
	fields := strings.Fields(b.shell(t, noUdev+"\ndmsetup table group-volume")) // 0 LENGTH linear MAJOR:MINOR START
	if len(fields) != 5 {
		t.Fatalf("the logical volume is %q", fields)
	}
	b.logical = fields[4] + " " + fields[1]
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("agent:\n%s", tail(b.machine.Log("agent"), 60))
			t.Logf("writer:\n%s", tail(b.machine.Log("writer"), 5))
		}
	})
	return b
}

func blank(t *testing.T, path string, mib int64) string {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(mib<<20), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (b *busy) shell(t *testing.T, script string) string {
	t.Helper()
	return b.machine.Run(t, "sh", "-ec", script)
}

// write starts the writer, which goes on from what the disks hold.
func (b *busy) write(t *testing.T) (pid string) {
	t.Helper()
	plan, err := json.Marshal(b.plan)
	if err != nil {
		t.Fatal(err)
	}
	return b.machine.Background(t, "writer", "/inside", "write", string(plan), fmt.Sprint(b.log(t).Last()))
}

// powerCut takes the machine's power away and boots it again.
func (b *busy) powerCut(t *testing.T) {
	t.Helper()
	b.machine.Restart(t)
	b.shell(t, noUdev+"\nlvm vgchange -q -ay group"+mountFilesystems)
}

// reset presses the machine's reset button.
func (b *busy) reset(t *testing.T) {
	t.Helper()
	if err := b.machine.Reset(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	b.shell(t, noUdev+"\nlvm vgchange -q -ay group"+mountFilesystems)
}

// log is what the host knows to be durable in the machine.
func (b *busy) log(t *testing.T) *stamp.Log {
	t.Helper()
	raw, err := os.ReadFile(b.machine.Log("writer"))
	if err != nil {
		t.Fatal(err)
	}
	if text := string(raw); strings.Contains(text, "BROKEN") {
		_, why, _ := strings.Cut(text, "BROKEN")
		t.Fatalf("seed %d: the writer gave up:%s", b.plan.Seed, why)
	}
	l, err := stamp.ReadLog(strings.NewReader(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// progress waits until some more operations are durable.
func (b *busy) progress(t *testing.T, more uint64) (last uint64) {
	t.Helper()
	from := b.log(t).Last()
	eventually(t, "the writer goes on", func() (string, bool) {
		last = b.log(t).Last()
		return fmt.Sprintf("%d operations, from %d", last, from), last >= from+more
	})
	return last
}

// follows waits until there is a point that must hold an operation.
func (s *site) follows(t *testing.T, b *busy, number uint64) {
	t.Helper()
	eventually(t, fmt.Sprintf("a point holds operation %d", number), func() (string, bool) {
		points := s.points(t)
		if len(points) == 0 {
			return "no point", false
		}
		last := points[len(points)-1]
		done, _ := b.log(t).At(last.taken, 0)
		return fmt.Sprintf("%d points, the last holds %d", len(points), done), done >= number
	})
}

func eventually(t *testing.T, what string, ask func() (now string, yes bool)) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		now, yes := ask()
		if yes {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s until %s; now: %s", patience, what, now)
		}
	}
}

func tail(file string, lines int) string {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
