package branchlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The format of docs/formats/branch-log.md. All integers are little endian.

// BlockSize is the unit of everything in the log, in bytes.
const BlockSize = 4096

const (
	formatVersion = 1

	branchMagic = "LBBRANCH"
	fileMagic   = "LBBRLOG1"
	groupMagic  = "BGRP"
	markMagic   = "LBMARK01"

	// A group's payload and extents are bounded so that its header is a block.
	maxGroupBlocks  = 128
	maxGroupExtents = 64

	groupFixed = 64 // bytes before the table of blocks
	tableEntry = 20 // CRC32C and tag of one payload block
	extentLen  = 16
	tagLen     = 16
	markLen    = 64

	// headerNonce is the block index under which a group's header is sealed.
	headerNonce = 1<<32 - 1
)

const (
	cipherNone = 0
	cipherGCM  = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// Kind says what a record did to its blocks.
type Kind uint8

const (
	Data Kind = 1 // wrote them
	Zero Kind = 2 // made them read as zeros
	Trim Kind = 3 // gave them up; they read as zeros
)

// branchHeader is what file "branch" says of the whole log.
type branchHeader struct {
	encrypted bool
	id        [16]byte
	size      int64 // of the disk, in bytes
	salt      [32]byte
	keyCheck  [16]byte
}

func (h *branchHeader) encode() []byte {
	b := make([]byte, BlockSize)
	copy(b, branchMagic)
	binary.LittleEndian.PutUint32(b[8:], formatVersion)
	if h.encrypted {
		binary.LittleEndian.PutUint32(b[12:], cipherGCM)
	}
	copy(b[16:], h.id[:])
	binary.LittleEndian.PutUint64(b[32:], uint64(h.size))
	copy(b[40:], h.salt[:])
	copy(b[72:], h.keyCheck[:])
	return sealPage(b)
}

func decodeBranchHeader(b []byte) (h branchHeader, err error) {
	if err := checkPage(b, branchMagic); err != nil {
		return h, err
	}
	switch c := binary.LittleEndian.Uint32(b[12:]); c {
	case cipherNone:
	case cipherGCM:
		h.encrypted = true
	default:
		return h, fmt.Errorf("cipher %d is unknown", c)
	}
	copy(h.id[:], b[16:])
	size := binary.LittleEndian.Uint64(b[32:])
	if size > 1<<62 {
		return h, fmt.Errorf("a disk of %d bytes is too large", size)
	}
	h.size = int64(size)
	copy(h.salt[:], b[40:])
	copy(h.keyCheck[:], b[72:])
	return h, nil
}

// fileHeader is the first block of a log file.
type fileHeader struct {
	id     [16]byte // of the log
	number uint32
	after  uint64 // every group in the file has a higher sequence
	salt   [32]byte
}

func (h *fileHeader) encode() []byte {
	b := make([]byte, BlockSize)
	copy(b, fileMagic)
	binary.LittleEndian.PutUint32(b[8:], formatVersion)
	binary.LittleEndian.PutUint32(b[12:], h.number)
	copy(b[16:], h.id[:])
	binary.LittleEndian.PutUint64(b[32:], h.after)
	copy(b[40:], h.salt[:])
	return sealPage(b)
}

func decodeFileHeader(b []byte) (h fileHeader, err error) {
	if err := checkPage(b, fileMagic); err != nil {
		return h, err
	}
	h.number = binary.LittleEndian.Uint32(b[12:])
	copy(h.id[:], b[16:])
	h.after = binary.LittleEndian.Uint64(b[32:])
	copy(h.salt[:], b[40:])
	return h, nil
}

// sealPage ends a header page with its checksum.
func sealPage(b []byte) []byte {
	binary.LittleEndian.PutUint32(b[BlockSize-4:], checksum(b[:BlockSize-4]))
	return b
}

func checkPage(b []byte, magic string) error {
	switch {
	case len(b) != BlockSize:
		return fmt.Errorf("a header of %d bytes is not %d long", len(b), BlockSize)
	case string(b[:8]) != magic:
		return fmt.Errorf("magic %q is not %q", b[:8], magic)
	case binary.LittleEndian.Uint32(b[BlockSize-4:]) != checksum(b[:BlockSize-4]):
		return errors.New("header checksum does not match")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != formatVersion {
		return fmt.Errorf("format version %d is not known to this program; use a newer one", v)
	}
	return nil
}

// mark says how far the log is known to be durable. It lies in a file of its own
// and is a promise of the past: an old one is true, too.
type mark struct {
	id       [16]byte
	file     uint32
	end      uint32 // blocks of that file
	sequence uint64
}

func (m *mark) encode() []byte {
	b := make([]byte, markLen)
	copy(b, markMagic)
	copy(b[8:], m.id[:])
	binary.LittleEndian.PutUint32(b[24:], m.file)
	binary.LittleEndian.PutUint32(b[28:], m.end)
	binary.LittleEndian.PutUint64(b[32:], m.sequence)
	binary.LittleEndian.PutUint32(b[markLen-4:], checksum(b[:markLen-4]))
	return b
}

// decodeMark returns false for a mark that says nothing: absent or torn.
func decodeMark(b []byte, id [16]byte) (m mark, ok bool) {
	if len(b) != markLen || string(b[:8]) != markMagic || !bytes.Equal(b[8:24], id[:]) ||
		binary.LittleEndian.Uint32(b[markLen-4:]) != checksum(b[:markLen-4]) {
		return m, false
	}
	m.id = id
	m.file = binary.LittleEndian.Uint32(b[24:])
	m.end = binary.LittleEndian.Uint32(b[28:])
	m.sequence = binary.LittleEndian.Uint64(b[32:])
	return m, true
}
