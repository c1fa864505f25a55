package ebpf

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// memory is an array map seen as words of this process.
type memory struct {
	raw   []byte
	words []uint64
}

func mapMemory(m *ebpf.Map, n int64) (memory, error) {
	size := (n*8 + int64(unix.Getpagesize()) - 1) &^ int64(unix.Getpagesize()-1)
	raw, err := unix.Mmap(m.FD(), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return memory{}, fmt.Errorf("ebpf tracker: map memory: %w", err)
	}
	//nolint:gosec // mapped memory is aligned to pages, and raw keeps it
	return memory{raw, unsafe.Slice((*uint64)(unsafe.Pointer(&raw[0])), n)}, nil
}

func (m *memory) unmap() {
	if m.raw != nil {
		_ = unix.Munmap(m.raw) // of what was mapped so
		m.raw, m.words = nil, nil
	}
}

// half is the 32-bit number at an index, counted in halves of words.
func (m *memory) half(i int) *uint32 {
	return (*uint32)(unsafe.Pointer(&m.raw[4*i])) //nolint:gosec // aligned to 4 bytes, and raw keeps it
}

// state is a disk's struct state in track.c, of stateHalves halves.
type state struct {
	m    *memory
	base int // in halves
}

const stateHalves = 16 // 64 bytes

func (s state) dirty(buffer uint32) bool { return atomic.LoadUint32(s.m.half(s.base+int(buffer))) != 0 }
func (s state) clean(buffer uint32)      { atomic.StoreUint32(s.m.half(s.base+int(buffer)), 0) }
func (s state) void() uint32             { return atomic.LoadUint32(s.m.half(s.base + 2)) }

// answer clears the reasons to void that are dealt with.
func (s state) answer(void uint32) { atomic.AndUint32(s.m.half(s.base+2), ^void) }
func (s state) queued() uint64     { return atomic.LoadUint64(&s.m.words[s.base/2+2]) }

// reasons says why a disk's bits are not all there is; the order is track.c's.
var reasons = []string{
	"a command was passed through to the disk that may have written anywhere",
	"a write lay beyond the end that the disk had",
	"the kernel did something that the tracker does not know",
}

// doubts puts the bits of void into words.
func doubts(void uint32) []string {
	var why []string
	for i := 0; void != 0; i, void = i+1, void>>1 {
		if void&1 != 0 {
			why = append(why, reasons[i])
		}
	}
	return why
}
