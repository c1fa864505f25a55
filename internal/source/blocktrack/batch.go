package blocktrack

import (
	"errors"
	"io"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchMost is how many reads of a worker are on their way at a time: enough that one
// system call serves many, few enough that the machine's own writes do not queue up
// behind them.
const batchMost = 16

// batcher is a Device that reads several places at once.
type batcher interface {
	// readBatch does what ReadAt does for each of the reads, at most batchMost, and
	// sets its n and err.
	readBatch(reads []batchRead)
}

type batchRead struct {
	buf []byte
	off int64
	n   int
	err error
}

// batches are contexts of the kernel's asynchronous reading, each for one batch at a
// time. What the kernel does not do so is read one by one: a blocked thread and two
// switches of the processor for each 4 KiB, which a busy machine feels.
type batches struct {
	mu     sync.Mutex
	free   []*batch
	denied bool // the kernel has no more to give
	closed bool
}

// batch is one such context, with the memory that the kernel reads and writes.
type batch struct {
	context uintptr
	blocks  [batchMost]controlBlock
	list    [batchMost]*controlBlock
	events  [batchMost]event
}

// controlBlock is struct iocb, event struct io_event, of linux/aio_abi.h.
type controlBlock struct {
	data    uint64
	_       [8]byte // key and flags: none
	_       uint16  // opcode, 0: read
	_       int16
	file    uint32
	address uint64
	length  uint64
	offset  int64
	_       [16]byte
}

type event struct {
	data   uint64
	_      uint64
	result int64
	_      int64
}

// take returns a context, nil where there is none.
func (b *batches) take() *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.free); n > 0 {
		got := b.free[n-1]
		b.free = b.free[:n-1]
		return got
	}
	if b.denied {
		return nil
	}
	got := new(batch)
	//nolint:gosec // the kernel writes a word while the call holds it
	if _, _, errno := syscall.Syscall(unix.SYS_IO_SETUP, batchMost, uintptr(unsafe.Pointer(&got.context)), 0); errno != 0 {
		b.denied = true
		return nil
	}
	return got
}

func (b *batches) give(back *batch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		back.destroy()
		return
	}
	b.free = append(b.free, back)
}

// close ends all contexts, those in use when they are given back.
func (b *batches) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, one := range b.free {
		one.destroy()
	}
	b.free, b.denied, b.closed = nil, true, true
}

func (b *batch) destroy() {
	_, _, _ = syscall.Syscall(unix.SYS_IO_DESTROY, b.context, 0, 0) // nothing is under way there
}

func (d *Disk) readBatch(reads []batchRead) {
	begun := 0
	if one := d.batches.take(); one != nil {
		if raw, err := d.file.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { begun = one.read(uint32(fd), reads) }) // begun says what came of it
		}
		d.batches.give(one)
	}
	for i := range reads[:begun] {
		if r := &reads[i]; errors.Is(r.err, syscall.EAGAIN) || errors.Is(r.err, syscall.EINTR) || r.err == nil && r.n > 0 && r.n < len(r.buf) {
			r.n, r.err = d.ReadAt(r.buf, r.off)
		} else {
			r.err = d.explain(r.err)
		}
	}
	for i := begun; i < len(reads); i++ {
		r := &reads[i]
		r.n, r.err = d.ReadAt(r.buf, r.off)
	}
}

// read has the kernel read the first begun of the reads, and waits for all of those.
func (b *batch) read(file uint32, reads []batchRead) (begun int) {
	for i := range reads {
		r := &reads[i]
		b.blocks[i] = controlBlock{
			data: uint64(i), file: file, offset: r.off, length: uint64(len(r.buf)),
			address: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(r.buf)))), //nolint:gosec // kept alive below
		}
		b.list[i] = &b.blocks[i]
	}
	//nolint:gosec // the kernel reads the list while the call holds it, and the blocks, which the list holds
	n, _, errno := syscall.Syscall(unix.SYS_IO_SUBMIT, b.context, uintptr(len(reads)), uintptr(unsafe.Pointer(&b.list)))
	if errno != 0 {
		return 0
	}
	for left := int(n); left > 0; {
		// The buffers are the kernel's until it has said so of each: nothing ends the wait.
		//nolint:gosec // the kernel writes events while the call holds them
		got, _, errno := syscall.Syscall6(unix.SYS_IO_GETEVENTS, b.context, uintptr(left), uintptr(left), uintptr(unsafe.Pointer(&b.events)), 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			panic("blocktrack: io_getevents: " + errno.Error()) // the context and its memory are ours: it cannot be
		}
		for _, e := range b.events[:got] {
			r := &reads[e.data]
			switch {
			case e.result < 0:
				r.n, r.err = 0, syscall.Errno(-e.result)
			case e.result == 0:
				r.n, r.err = 0, io.EOF
			default:
				r.n, r.err = int(e.result), nil
			}
		}
		left -= int(got)
	}
	runtime.KeepAlive(reads)
	return int(n)
}
