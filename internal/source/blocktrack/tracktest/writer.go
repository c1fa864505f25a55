package tracktest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const block = 4096

// Writer changes a block device at random, by every way there is. One goroutine
// uses it.
type Writer struct {
	start, size      int64
	direct, buffered *os.File
	rng              *rand.Rand
	page             []byte // aligned

	// Changed are the blocks of 4096 bytes that were written to.
	Changed map[int64]bool
}

// Ways are the ways to change a device, each a letter: direct, buffered and
// fsynced, memory map, several blocks at once, discard, write zeroes.
const Ways = "dbmlxz"

// NewWriter opens the device for writing in [start, start+size), which are multiples
// of 4096. Where several write at once, each should have a part of its own: the
// kernel reports buffered writes that meet direct ones as failed.
func NewWriter(device string, start, size int64, seed uint64) (*Writer, error) {
	direct, err := os.OpenFile(device, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	buffered, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	page, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // of a test, to be repeated
	return &Writer{start: start, size: size, direct: direct, buffered: buffered, rng: rng, page: page, Changed: map[int64]bool{}}, nil
}

// Close ends writing.
func (w *Writer) Close() {
	w.direct.Close()
	w.buffered.Close()
	_ = unix.Munmap(w.page)
}

// Write changes something in one of the given ways. When it returns, the change is
// on the device.
func (w *Writer) Write(ways string) error {
	way := ways[w.rng.IntN(len(ways))]
	blocks := int64(1)
	switch way {
	case 'l':
		blocks = 1 + w.rng.Int64N(int64(len(w.page))/block)
	case 'x', 'z':
		blocks = 1 + w.rng.Int64N(64)
	}
	blocks = min(blocks, w.size/block)
	at := w.start + w.rng.Int64N(w.size/block-blocks+1)*block
	n := blocks * block
	for i := at / block; i < (at+n)/block; i++ {
		w.Changed[i] = true
	}
	data := w.page[:n]
	for i := 0; i < len(data); i += 64 {
		data[i] = byte(w.rng.Uint32())
	}
	var err error
	switch way {
	case 'd', 'l':
		_, err = w.direct.WriteAt(data, at)
	case 'b':
		if _, err = w.buffered.WriteAt(data[:1+w.rng.IntN(block)], at); err == nil {
			err = w.buffered.Sync()
		}
	case 'm':
		err = w.throughMap(at, data)
	case 'x':
		err = w.ranged(unix.BLKDISCARD, at, n)
	case 'z':
		err = w.ranged(unix.BLKZEROOUT, at, n)
	default:
		err = fmt.Errorf("no way %q", way)
	}
	if err != nil {
		return fmt.Errorf("write %d bytes at %d (%c): %w", n, at, way, err)
	}
	return nil
}

func (w *Writer) throughMap(at int64, data []byte) error {
	m, err := unix.Mmap(int(w.buffered.Fd()), at, len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(m, data)
	err = unix.Msync(m, unix.MS_SYNC)
	_ = unix.Munmap(m)
	return err
}

func (w *Writer) ranged(request uint, at, n int64) error {
	span := [2]uint64{uint64(at), uint64(n)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, w.buffered.Fd(), uintptr(request), uintptr(unsafe.Pointer(&span))) //nolint:gosec // two numbers, read by the call
	if errno != 0 {
		return errno
	}
	return nil
}
