package blocktrack

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// Entry is what the table knows of a chunk in the vault: sixteen words, the sums of
// its blocks. Three forms:
//
//	all words 0          the chunk is all zeros
//	all words not 0      the sum of each block, also of those past the disk's end
//	words 2 to 14 are 0  the chunk's digest in words 0 and 1, and 1 in word 15: the
//	                     vault told it, and the blocks are not known one by one
type Entry [chunkBlocks]uint64

const (
	chunkBlocks = ChunkSize / blockSize
	entrySize   = 8 * chunkBlocks
)

func digestEntry(d Digest) Entry {
	return Entry{0: binary.LittleEndian.Uint64(d[:8]), 1: binary.LittleEndian.Uint64(d[8:]), chunkBlocks - 1: 1}
}

// opaque tells whether only a digest of the whole is known, and which.
func (e *Entry) opaque() (d Digest, ok bool) {
	if e[chunkBlocks-2] != 0 || e[chunkBlocks-1] == 0 {
		return d, false
	}
	binary.LittleEndian.PutUint64(d[:8], e[0])
	binary.LittleEndian.PutUint64(d[8:], e[1])
	return d, true
}

// zeros tells whether the chunk is all zeros.
func (e *Entry) zeros() bool { return *e == Entry{} }

// plain is the entry with a sum in each word.
func (e *Entry) plain(zero uint64) Entry {
	if !e.zeros() {
		return *e
	}
	var out Entry
	for i := range out {
		out[i] = zero
	}
	return out
}

// canonical is the entry as it is kept.
func (e Entry) canonical(zero uint64) Entry {
	for _, sum := range e {
		if sum != zero {
			return e
		}
	}
	return Entry{}
}

var entryBuffers = sync.Pool{New: func() any { b := make([]byte, 512*entrySize); return &b }}

// read reads entries from the file alone.
func (t *Table) read(first int64, into []Entry) error {
	buf := entryBuffers.Get().(*[]byte)
	defer entryBuffers.Put(buf)
	for len(into) > 0 {
		n := min(len(into), len(*buf)/entrySize)
		off, length := int64(tableHeaderSize)+first*entrySize, n*entrySize
		if at, err := t.file.Seek(off, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) || err == nil && at >= off+int64(length) {
			clear(into[:n]) // a hole of the file
		} else {
			if _, err := t.file.ReadAt((*buf)[:length], off); err != nil && !errors.Is(err, io.EOF) {
				return &TableError{err}
			} else if err != nil {
				return &TableError{io.ErrUnexpectedEOF}
			}
			decodeEntries(into[:n], *buf)
		}
		into, first = into[n:], first+int64(n)
	}
	return nil
}

func decodeEntries(into []Entry, raw []byte) {
	for i := range into {
		for j := range into[i] {
			into[i][j] = binary.LittleEndian.Uint64(raw[i*entrySize+8*j:])
		}
	}
}

// write writes entries to the file.
func (t *Table) write(first int64, entries []Entry) error {
	raw := make([]byte, 0, len(entries)*entrySize)
	for i := range entries {
		for _, word := range entries[i] {
			raw = binary.LittleEndian.AppendUint64(raw, word)
		}
	}
	if _, err := t.file.WriteAt(raw, tableHeaderSize+first*entrySize); err != nil {
		return &TableError{err}
	}
	return nil
}
