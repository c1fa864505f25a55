package nbd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// fileDevice serves a sparse file with every ability of a device.
type fileDevice struct {
	*os.File
	size int64
}

func openFileDevice(path string) (*fileDevice, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &fileDevice{f, info.Size()}, nil
}

func newFileDevice(t testing.TB, size int64) *fileDevice {
	t.Helper()
	path := t.TempDir() + "/disk.raw"
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	d, err := openFileDevice(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func (d *fileDevice) Size() int64 { return d.size }

func (d *fileDevice) Flush(context.Context) error { return d.Sync() }

func (d *fileDevice) Trim(_ context.Context, off, n int64) error {
	return d.punch(off, n)
}

func (d *fileDevice) Zero(_ context.Context, off, n int64, mayTrim bool) error {
	if !mayTrim {
		return fmt.Errorf("zero without a hole: %w", errors.ErrUnsupported)
	}
	return d.punch(off, n)
}

func (d *fileDevice) punch(off, n int64) error {
	if n == 0 {
		return nil
	}
	return unix.Fallocate(int(d.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (d *fileDevice) Extents(_ context.Context, off, n int64, yield func(int64, bool) bool) error {
	for end := off + n; off < end; {
		data, err := unix.Seek(int(d.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			data = end
		} else if err != nil {
			return err
		}
		if data = min(data, end); data > off && !yield(data-off, true) {
			return nil
		}
		if off = data; off == end {
			return nil
		}
		hole, err := unix.Seek(int(d.Fd()), off, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if hole = min(hole, end); !yield(hole-off, false) {
			return nil
		}
		off = hole
	}
	return nil
}

// plainDevice hides every ability but reading and writing.
type plainDevice struct{ d *fileDevice }

func (p plainDevice) ReadAt(b []byte, off int64) (int, error)  { return p.d.ReadAt(b, off) }
func (p plainDevice) WriteAt(b []byte, off int64) (int, error) { return p.d.WriteAt(b, off) }
func (p plainDevice) Size() int64                              { return p.d.Size() }
func (p plainDevice) Flush(ctx context.Context) error          { return p.d.Flush(ctx) }

var _ io.ReaderAt = plainDevice{}
