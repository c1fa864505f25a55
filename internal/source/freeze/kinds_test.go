package freeze_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/source/blocktrack/tracktest"
	"lifeboat/internal/source/freeze"
)

// Of a machine that mounts its disks in all kinds of ways each filesystem is found once, by
// a path that leads to it, and frozen; those that cannot be are named.
func TestKindsOfMounts(t *testing.T) {
	type kind struct {
		name  string
		mount func(t *testing.T, disk string) (writable string)
		want  []string // what is found: types
		loose []string // what of that is not frozen
	}
	format := func(t *testing.T, filesystem, disk string) {
		t.Helper()
		needs(t, filesystem)
		tracktest.Command(t, "mkfs."+filesystem, "-q", disk)
	}
	mount := func(t *testing.T, args ...string) (dir string) {
		t.Helper()
		dir = args[len(args)-1]
		tracktest.Command(t, "mount", args...)
		t.Cleanup(func() { tracktest.Command(t, "umount", dir) })
		return dir
	}
	for _, k := range []kind{
		{"btrfs", func(t *testing.T, disk string) string {
			format(t, "btrfs", disk)
			dir := mount(t, disk, t.TempDir())
			tracktest.Command(t, "btrfs", "subvolume", "create", dir+"/home")
			return mount(t, "-o", "subvol=home", disk, t.TempDir())
		}, []string{"btrfs"}, nil},
		{"overlay", func(t *testing.T, disk string) string {
			needs(t, "overlay")
			format(t, "xfs", disk)
			dir := mount(t, disk, t.TempDir())
			for _, sub := range []string{"lower", "upper", "work"} {
				if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			return mount(t, "-t", "overlay", "-o", fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir), "overlay", t.TempDir())
		}, []string{"xfs"}, nil},
		{"bound elsewhere", func(t *testing.T, disk string) string {
			format(t, "ext4", disk)
			return mount(t, "--bind", mount(t, disk, t.TempDir()), t.TempDir())
		}, []string{"ext4"}, nil},
		{"bound for reading first", func(t *testing.T, disk string) string {
			format(t, "ext4", disk)
			dir := mount(t, disk, t.TempDir())
			mount(t, "--bind", dir, dir)
			tracktest.Command(t, "mount", "-o", "remount,bind,ro", dir)
			return mount(t, disk, t.TempDir())
		}, []string{"ext4"}, nil},
		{"read-only", func(t *testing.T, disk string) string {
			format(t, "ext4", disk)
			mount(t, "-o", "ro", disk, t.TempDir())
			return ""
		}, nil, nil},
		{"hidden", func(t *testing.T, disk string) string {
			format(t, "ext4", disk)
			dir := mount(t, disk, t.TempDir())
			mount(t, "-t", "tmpfs", "none", dir)
			return ""
		}, []string{"ext4"}, []string{"ext4"}},
		{"hidden at one place", func(t *testing.T, disk string) string {
			format(t, "ext4", disk)
			dir := mount(t, disk, t.TempDir())
			mount(t, "-t", "tmpfs", "none", dir)
			return mount(t, disk, t.TempDir())
		}, []string{"ext4"}, nil},
		{"served by a process", func(t *testing.T, disk string) string {
			needs(t, "fuse")
			format(t, "ext4", disk)
			dir := t.TempDir()
			tracktest.Command(t, "fuse2fs", disk, dir, "-o", "fakeroot")
			t.Cleanup(func() { tracktest.Command(t, "umount", dir) })
			return ""
		}, []string{"fuse.ext4"}, []string{"fuse.ext4"}},
	} {
		t.Run(k.name, func(t *testing.T) {
			disk := tracktest.Loop(t, 320<<20)
			writable := k.mount(t, disk)
			found, err := freeze.Mounts([]string{disk})
			if err != nil || !slices.Equal(types(found), k.want) {
				t.Fatalf("found %+v (%v), want %v", found, err, k.want)
			}
			g := guard(t)
			frozen, err := g.Freeze(found, time.Minute, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(types(frozen.Loose), k.loose) || frozen.Whole != (k.loose == nil) {
				t.Errorf("not frozen: %+v (whole: %t), want %v", frozen.Loose, frozen.Whole, k.loose)
			}
			wrote := holdsWrites(t, writable)
			if _, err := frozen.Thaw(); err != nil {
				t.Error(err)
			}
			if err := <-wrote; err != nil {
				t.Error(err)
			}
		})
	}
}

// needs skips the test where the kernel has no such filesystem.
func needs(t *testing.T, filesystem string) {
	t.Helper()
	_ = exec.Command("modprobe", filesystem).Run() // it may be built in
	known, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(strings.Fields(string(known)), filesystem) {
		t.Skipf("this kernel has no %s", filesystem)
	}
}

func types(mounts []freeze.Mount) (all []string) {
	for _, m := range mounts {
		all = append(all, m.Type)
	}
	return all
}

// holdsWrites fails the test where a write to a folder comes back now. What it comes to is
// sent later. No folder: it comes to nothing at once.
func holdsWrites(t *testing.T, dir string) <-chan error {
	t.Helper()
	wrote := make(chan error, 1)
	if dir == "" {
		wrote <- nil
		return wrote
	}
	go func() { wrote <- os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600) }()
	select {
	case err := <-wrote:
		t.Errorf("a write came back while all was frozen: %v", err)
		wrote <- err
	case <-time.After(50 * time.Millisecond): // it would have by then, as others do
	}
	return wrote
}
