package blocktrack

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ChunkSize is the grain in which disks are compared with the vault, in bytes.
const ChunkSize = 64 << 10

const blockSize = 4096

// Digest is the content digest of a chunk, in the vault's terms.
type Digest [16]byte

// DigestFunc digests one chunk; the last chunk of a disk is shorter, and padded
// with zeros to a multiple of 4096 bytes.
type DigestFunc func(chunk []byte) Digest

// Table holds what the vault has of one disk: an Entry for each chunk, in a file
// of 128 bytes for each 64 KiB that are not zeros. What was sent and is not
// acknowledged lies over the file in memory, and so does, until there is much of
// it, what was acknowledged since: a disk that holds the table itself comes to
// rest. Memory does not grow with the disk.
//
// Different chunks may be read and changed concurrently; Grow, Load, Seal and
// Close need the Table alone.
type Table struct {
	file   *os.File
	head   tableHeader
	digest DigestFunc
	zero   uint64 // sum of a block of zeros
	length int64  // chunks
	held   atomic.Bool

	mu      sync.RWMutex
	pending map[int64]pendingEntry // sent, not acknowledged: over settled
	settled map[int64]Entry        // acknowledged or learned: over the file
}

type pendingEntry struct {
	Entry
	epoch uint64
}

// spillAt is how many settled entries are kept in memory, about 6 MiB.
const spillAt = 32 << 10

// TableError: the table's own file cannot be read or written.
type TableError struct{ Err error }

func (e *TableError) Error() string { return fmt.Sprintf("table of digests: %v", e.Err) }
func (e *TableError) Unwrap() error { return e.Err }

// NewTable returns the table of a disk of the given size in bytes, all zeros, in
// memory: for those who compare and keep nothing.
func NewTable(size int64, digest DigestFunc) *Table {
	fd, err := unix.MemfdCreate("digests", unix.MFD_CLOEXEC)
	if err != nil {
		panic(fmt.Sprintf("memory for a table of digests: %v", err))
	}
	t, err := createTable(os.NewFile(uintptr(fd), "digests"), Origin{Size: size}, digest)
	if err != nil {
		panic(fmt.Sprintf("memory for a table of digests: %v", err))
	}
	return t
}

var zeros [ChunkSize]byte

func (t *Table) init(digest DigestFunc) {
	t.digest, t.length = digest, chunksOf(t.head.origin.Size)
	t.zero = t.head.sum(zeros[:blockSize])
	t.pending, t.settled = map[int64]pendingEntry{}, map[int64]Entry{}
}

func chunksOf(size int64) int64 { return (size + ChunkSize - 1) / ChunkSize }

// Size is the disk's size in bytes.
func (t *Table) Size() int64 { return t.head.origin.Size }

// Len is the number of chunks.
func (t *Table) Len() int64 { return t.length }

// blocks is the number of blocks of chunk i.
func (t *Table) blocks(i int64) int {
	return int(min(t.Size()-i*ChunkSize+blockSize-1, ChunkSize) / blockSize)
}

// Put says that a chunk was sent in an epoch, which is not acknowledged.
func (t *Table) Put(chunk int64, e Entry, epoch uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending[chunk] = pendingEntry{e, epoch}
}

// Settle says that a chunk that was Put in the epoch is in the vault as it was then.
func (t *Table) Settle(chunk int64, e Entry, epoch uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settled[chunk] = e
	if t.pending[chunk].epoch == epoch {
		delete(t.pending, chunk)
	}
}

// Keep is Put and Settle at once.
func (t *Table) Keep(c Chunk) { t.learn(c.Index, c.Entry) }

func (t *Table) learn(i int64, e Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settled[i] = e
}

// Rollback forgets all that was Put and not Settled.
func (t *Table) Rollback() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.pending)
}

// Hold keeps the table from writing its file, which may be on a filesystem that is
// about to be frozen, until it is let go.
func (t *Table) Hold(hold bool) { t.held.Store(hold) }

// Load fills chunks with the digests that the vault has of them. Digest{} stands
// for one that equals none.
func (t *Table) Load(first int64, digests []Digest) error {
	zero, last := t.digest(zeros[:]), t.length-1
	entries := make([]Entry, len(digests))
	for i, d := range digests {
		of := zero
		if first+int64(i) == last {
			of = t.digest(zeros[:t.blocks(last)*blockSize])
		}
		if d != of {
			entries[i] = digestEntry(d)
		}
	}
	return t.write(first, entries)
}

// Grow adapts the table to a larger disk, whose new part is zeros in the vault.
// The chunk that used to be last may change its length; it is forgotten, which
// makes the next pass send it again.
func (t *Table) Grow(size int64) error {
	last := t.length - 1
	t.head.origin.Size, t.length = size, chunksOf(size)
	if err := t.file.Truncate(tableHeaderSize + t.length*entrySize); err != nil {
		return &TableError{err}
	}
	t.mu.Lock()
	t.settled[last] = digestEntry(Digest{})
	t.mu.Unlock()
	return t.writeHeader()
}

// Newest returns the newest entry of chunk i.
func (t *Table) Newest(i int64) (Entry, error) {
	var e [1]Entry
	err := t.entries(i, e[:])
	return e[0], err
}

// entries returns the newest entries of chunks first to first+len(into).
func (t *Table) entries(first int64, into []Entry) error {
	if err := t.spill(spillAt); err != nil {
		return err
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	if err := t.read(first, into); err != nil {
		return err
	}
	if len(t.pending)+len(t.settled) == 0 {
		return nil
	}
	for i := range into {
		if p, ok := t.pending[first+int64(i)]; ok {
			into[i] = p.Entry
		} else if e, ok := t.settled[first+int64(i)]; ok {
			into[i] = e
		}
	}
	return nil
}

// spill writes the settled entries to the file, once there are so many.
func (t *Table) spill(many int) error {
	if t.held.Load() {
		return nil
	}
	t.mu.RLock()
	n := len(t.settled)
	t.mu.RUnlock()
	if n < many {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	order := make([]int64, 0, len(t.settled))
	for i := range t.settled {
		order = append(order, i)
	}
	slices.Sort(order)
	var run []Entry
	for k, i := range order {
		run = append(run, t.settled[i])
		if k+1 < len(order) && order[k+1] == i+1 && len(run) < 4096 {
			continue
		}
		if err := t.write(i+1-int64(len(run)), run); err != nil {
			return err // what is settled stays where it is
		}
		run = run[:0]
	}
	clear(t.settled)
	return nil
}
