package branchlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"lifeboat/internal/durable"
)

const logSuffix = ".log"

// logFile is one file of the log. What was written to it never changes; the
// fields without a note are constant.
type logFile struct {
	path   string
	number uint32
	f      *os.File
	key    *fileKey
	after  uint64 // as in its header
	refs   atomic.Int32

	padded int64 // the file has this many bytes, if more than end; the appender's

	// Guarded by Log.mu.
	end       uint32 // blocks that hold the header and whole groups
	last      uint64 // sequence of the last group
	total     int64  // payload blocks
	live      int64  // of them, current ones
	liveZeros int64  // blocks that read as zeros because this file says so

	damaged atomic.Bool // collecting met damage; leave it to who reads it
}

func logPath(dir string, number uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%08x%s", number, logSuffix))
}

// parseLogName returns the number of a log file's name.
func parseLogName(name string) (uint32, bool) {
	hex, ok := strings.CutSuffix(name, logSuffix)
	if !ok || len(hex) != 8 {
		return 0, false
	}
	n, err := strconv.ParseUint(hex, 16, 32)
	return uint32(n), err == nil
}

// createLogFile makes an empty log file, durably.
func createLogFile(files durable.Files, dir string, key []byte, h fileHeader) (*logFile, error) {
	path := logPath(dir, h.number)
	if err := files.CreateFile("create log file", path, h.encode(), 0o600); err != nil {
		return nil, err
	}
	return openLogFile(path, key, h)
}

func openLogFile(path string, key []byte, h fileHeader) (*logFile, error) {
	k, err := newFileKey(key, h.salt)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	lf := &logFile{path: path, number: h.number, f: f, key: k, after: h.after, last: h.after, end: 1}
	lf.refs.Store(1) // of the log
	return lf, nil
}

// acquire keeps the file open until release; the caller holds Log.mu or a
// reference already.
func (f *logFile) acquire() *logFile {
	f.refs.Add(1)
	return f
}

func (f *logFile) release() {
	if f.refs.Add(-1) == 0 {
		f.f.Close()
	}
}

// dead reports whether nothing in the file is current.
func (f *logFile) deadLocked() bool { return f.live == 0 && f.liveZeros == 0 }

// wastefulLocked reports whether more than half of the payload is dead.
func (f *logFile) wastefulLocked() bool { return 2*f.live < f.total }

func (f *logFile) corrupt(block uint32, what string) error {
	return &CorruptError{File: f.path, Offset: int64(block) * BlockSize, What: what}
}

// scratch is room for reading one group's payload.
type scratch struct {
	payload []byte
	table   [tableEntry * maxGroupBlocks]byte
	head    [16]byte
}

var scratchPool = sync.Pool{New: func() any { return new(scratch) }}

// readBlocks reads count payload blocks of one group into dst: those at pos and
// after, the first of which is the group's index-th. Damage is a *CorruptError.
func (f *logFile) readBlocks(dst []byte, pos uint32, index uint8, count uint32) error {
	s := scratchPool.Get().(*scratch)
	defer scratchPool.Put(s)
	n := int(count) * BlockSize
	stored := dst[:n]
	if f.key.aead != nil {
		if len(s.payload) < n+tagLen {
			s.payload = make([]byte, n+tagLen)
		}
		stored = s.payload[:n]
	}
	if err := f.readAt(stored, int64(pos)*BlockSize); err != nil {
		return err
	}
	header := pos - uint32(index) - 1
	at := int64(header) * BlockSize
	table := s.table[:tableEntry*int(count)]
	if err := f.readAt(table, at+groupFixed+tableEntry*int64(index)); err != nil {
		return err
	}
	if f.key.aead == nil {
		for i := range int(count) {
			if checksum(stored[i*BlockSize:(i+1)*BlockSize]) != binary.LittleEndian.Uint32(table[i*tableEntry:]) {
				return f.corrupt(pos+uint32(i), "block checksum does not match")
			}
		}
		return nil
	}
	if err := f.readAt(s.head[:8], at+24); err != nil {
		return err
	}
	sequence := binary.LittleEndian.Uint64(s.head[:])
	// From the last block to the first: the tag of each is put where the block
	// behind it was.
	for i := int(count) - 1; i >= 0; i-- {
		block := s.payload[i*BlockSize : (i+1)*BlockSize+tagLen]
		copy(block[BlockSize:], table[i*tableEntry+4:(i+1)*tableEntry])
		if err := f.key.openBlock(dst[i*BlockSize:(i+1)*BlockSize], block, sequence, uint32(index)+uint32(i)); err != nil {
			return f.corrupt(pos+uint32(i), "block "+err.Error())
		}
	}
	return nil
}

// readAt reads what must be there.
func (f *logFile) readAt(p []byte, off int64) error {
	n, err := f.f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return &CorruptError{File: f.path, Offset: off, What: fmt.Sprintf("the file ends %d bytes early", len(p)-n)}
	}
	return fmt.Errorf("read branch log: %w", err)
}

// headers reads the group headers of a file one after the other, several small
// groups per system call.
type headers struct {
	f      *logFile
	window []byte
	start  int64 // of window in the file
	block  [BlockSize]byte
}

const headerWindow = 64 << 10

// at returns the block at pos, valid until the next call. io.EOF means that the
// file ends before the end of that block.
func (h *headers) at(pos uint32) ([]byte, error) {
	off := int64(pos) * BlockSize
	if off < h.start || off+BlockSize > h.start+int64(len(h.window)) {
		if h.window == nil {
			h.window = make([]byte, headerWindow)
		}
		h.window = h.window[:headerWindow]
		n, err := h.f.f.ReadAt(h.window, off)
		h.start, h.window = off, h.window[:n]
		if n < BlockSize {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.EOF
			}
			return nil, err
		}
	}
	return append(h.block[:0], h.window[off-h.start:][:BlockSize]...), nil
}
