package blocktrack

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Device is a disk as Read needs it. ReadAt, Size and Data may be called
// concurrently.
type Device interface {
	Name() string
	// Size is the size now, in bytes. A vanished disk is a *GoneError.
	Size() (int64, error)
	// ReadAt follows io.ReaderAt. Buffers are aligned to 4096 bytes, in memory
	// and on the disk, and so are their lengths: a device read around the page
	// cache needs that.
	ReadAt(p []byte, off int64) (int, error)
	// Data returns the first run of bytes at or after off that may be other than
	// zeros; io.EOF when there is none.
	Data(off int64) (Range, error)
}

// Disk is a block device or a disk image file, open for reading.
type Disk struct {
	path  string
	file  *os.File
	block bool
	// direct: reads go around the page cache. The cache of a block device is not
	// what its filesystem wrote; the disk is.
	direct  bool
	batches batches
}

// Open opens a disk for reading. The path is made absolute and becomes the
// disk's name. What is neither a block device nor a regular file is refused.
func Open(path string) (*Disk, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", path, err)
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &GoneError{path, err}
	} else if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", path, err)
	}
	d := &Disk{path: path}
	switch mode := info.Mode(); {
	case mode.IsRegular():
	case mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0:
		d.block = true
	default:
		return nil, fmt.Errorf("open disk %s: it is neither a block device nor a disk image file", path)
	}
	if d.block {
		d.file, err = os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECT, 0)
		d.direct = err == nil
	}
	if !d.direct {
		d.file, err = os.Open(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", path, err)
	}
	size, err := d.Size()
	if err == nil && size == 0 {
		err = fmt.Errorf("open disk %s: it is empty", path)
	}
	if err == nil && d.direct {
		err = d.probeDirect(size)
	}
	if err != nil {
		d.file.Close()
		return nil, err
	}
	return d, nil
}

// probeDirect falls back to the page cache where the driver refuses O_DIRECT.
func (d *Disk) probeDirect(size int64) error {
	_, err := d.file.ReadAt(alignedBuffer(4096)[:min(size, 4096)], 0)
	if !errors.Is(err, syscall.EINVAL) {
		return nil // other errors are the reader's to meet
	}
	cached, err := os.Open(d.path)
	if err != nil {
		return fmt.Errorf("open disk %s: %w", d.path, err)
	}
	d.file.Close()
	d.file, d.direct = cached, false
	return nil
}

func (d *Disk) Name() string { return d.path }

// Block tells whether this is a block device, not a file.
func (d *Disk) Block() bool { return d.block }

// Cached tells whether a block device is read through the page cache because
// it refuses direct reads. Writes of a mounted filesystem may then show late or
// not at all, so what is read is no proof of what the disk holds.
func (d *Disk) Cached() bool { return d.block && !d.direct }

// Close ends reading.
func (d *Disk) Close() error {
	d.batches.close()
	return d.file.Close()
}

// Size asks the device, or the file that has the disk's name now.
func (d *Disk) Size() (int64, error) {
	now, err := os.Stat(d.path)
	if err != nil {
		return 0, &GoneError{d.path, err}
	}
	opened, err := d.file.Stat()
	if err != nil {
		return 0, &GoneError{d.path, err}
	}
	if !os.SameFile(now, opened) {
		return 0, &GoneError{d.path, errors.New("another file or device has taken its name")}
	}
	if !d.block {
		return opened.Size(), nil
	}
	var size uint64
	//nolint:gosec // the kernel writes eight bytes while the call holds size
	if err := d.ioctl(unix.BLKGETSIZE64, unsafe.Pointer(&size)); err != nil {
		return 0, &GoneError{d.path, fmt.Errorf("ask for its size: %w", err)}
	}
	return int64(size), nil
}

func (d *Disk) ioctl(request uintptr, arg unsafe.Pointer) error {
	raw, err := d.file.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(arg))
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}

func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.file.ReadAt(p, off)
	return n, d.explain(err)
}

// explain tells of a vanished disk.
func (d *Disk) explain(err error) error {
	if errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ENODEV) {
		return &GoneError{d.path, err}
	}
	return err
}

// Data uses the holes of sparse files; a block device is all data.
func (d *Disk) Data(off int64) (Range, error) {
	size, err := d.Size()
	if err != nil {
		return Range{}, err
	}
	if off >= size {
		return Range{}, io.EOF
	}
	all := Range{off, size - off}
	if d.block {
		return all, nil
	}
	// The position of the file is not used for anything else, and Seek is atomic.
	start, err := d.file.Seek(off, unix.SEEK_DATA)
	if errors.Is(err, syscall.ENXIO) {
		return Range{}, io.EOF
	}
	if err != nil {
		return all, nil //nolint:nilerr // no holes known here
	}
	end, err := d.file.Seek(start, unix.SEEK_HOLE)
	if err != nil || end <= start {
		end = size
	}
	return Range{start, end - start}, nil
}

// alignedBuffer returns n bytes whose address is a multiple of 4096.
func alignedBuffer(n int) []byte {
	b := make([]byte, n+4096)
	shift := int(-uintptr(unsafe.Pointer(&b[0])) & 4095) //nolint:gosec // the address is only looked at; Go moves no heap
	return b[shift : shift+n : shift+n]
}
