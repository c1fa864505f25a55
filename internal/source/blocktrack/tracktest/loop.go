package tracktest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Loop makes a loop device of the given size in bytes, zeros, that is gone when
// the test ends. Without root the test is skipped.
func Loop(t *testing.T, size int64) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	back := filepath.Join(t.TempDir(), "back.img")
	f, err := os.Create(back)
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return LoopOn(t, back)
}

// LoopOn makes a loop device of a file, until the test ends.
func LoopOn(t *testing.T, back string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "losetup", "--find", "--show", back).Output()
	if err != nil {
		t.Skipf("no loop device here: %v", err)
	}
	loop := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if err := exec.CommandContext(context.WithoutCancel(t.Context()), "losetup", "--detach", loop).Run(); err != nil {
			t.Errorf("detach %s: %v", loop, err)
		}
	})
	return loop
}

// Pins mounts a BPF filesystem that is gone when the test ends, with all that was
// pinned there. Without root the test is skipped.
func Pins(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Skipf("no BPF filesystem here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// Mount puts a filesystem on a device and mounts it with the given options.
func Mount(t *testing.T, device, filesystem, options string) (dir string, unmount func()) {
	t.Helper()
	force := map[string]string{"ext4": "-F", "xfs": "-f"}[filesystem]
	dir = t.TempDir()
	Command(t, "mkfs."+filesystem, "-q", force, device)
	Command(t, "mount", "-t", filesystem, "-o", options, device, dir)
	mounted := true
	unmount = func() {
		if mounted {
			mounted = false
			Command(t, "umount", dir)
		}
	}
	t.Cleanup(unmount)
	return dir, unmount
}

// Command runs an administrator's tool, which must succeed.
func Command(t *testing.T, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/usr/sbin/" + name
	}
	if out, err := exec.CommandContext(context.WithoutCancel(t.Context()), path, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}
