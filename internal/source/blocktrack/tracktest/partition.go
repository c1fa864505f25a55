package tracktest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

type blkpgPartition struct {
	start, length int64
	number        int32
	_             [128]byte // names, for nobody
	_             [4]byte
}

type blkpgArg struct {
	op, flags, length int32
	data              *blkpgPartition
}

// Partition makes the kernel know a partition of a disk, without a table on it. It
// is gone when the test ends: the kernel would remember it for the next disk of
// that name.
func Partition(t *testing.T, disk string, number int, start, length int64) string {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := blkpgPartition{start: start, length: length, number: int32(number)}
	blkpg := func(f *os.File, op int32) error {
		arg := blkpgArg{op: op, length: int32(unsafe.Sizeof(p)), data: &p}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&arg))) //nolint:gosec // read by the call
		if errno != 0 {
			return errno
		}
		return nil
	}
	if err := blkpg(f, unix.BLKPG_ADD_PARTITION); err != nil {
		t.Fatalf("add partition %d to %s: %v", number, disk, err)
	}
	t.Cleanup(func() {
		f, err := os.OpenFile(disk, os.O_RDWR, 0)
		if err == nil {
			err = blkpg(f, unix.BLKPG_DEL_PARTITION)
			f.Close()
		}
		if err != nil {
			t.Errorf("remove partition %d of %s: %v", number, disk, err)
		}
	})
	name := fmt.Sprintf("%sp%d", filepath.Base(disk), number)
	var major, minor uint32
	raw, err := os.ReadFile("/sys/class/block/" + name + "/dev")
	if err == nil {
		_, err = fmt.Sscanf(string(raw), "%d:%d", &major, &minor)
	}
	if err != nil {
		t.Fatal(err)
	}
	// Nobody may be there to make the device's file.
	path := filepath.Join(t.TempDir(), name)
	if err := unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(major, minor))); err != nil {
		t.Fatal(err)
	}
	return path
}
