// Package segment is the codec of segment objects: immutable runs of frames with
// an index at the end. It does no I/O.
//
// Every stored byte is covered by a CRC-32C, so that a scrub needs neither key nor
// decompressor; frames and the private part of the index are sealed besides.
// Every length is bounded before anything is allocated. The layout is described in
// docs/formats/vault-segment.md.
package segment

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/extent"
	"lifeboat/internal/vault/seal"
)

// Version is the newest format version this package reads, and the one it writes.
const Version = 1

const (
	// BlockSize is the grain of addresses, in bytes.
	BlockSize = 4096
	// FrameBlocks is how many blocks a frame written by this package may hold.
	FrameBlocks = 16
	// MaxPayload bounds the payload of one frame, in bytes.
	MaxPayload = FrameBlocks*BlockSize + 4096

	headerSize = 168
	footerSize = 208
	entrySize  = 12 // of the frame table
	recordSize = 16

	maxFrameBlocks = 256
	maxFrames      = 1 << 20
	// MaxIndex bounds the index with its footer, in bytes.
	MaxIndex = 64 << 20

	nameSize   = 64
	serverSize = 24
)

const (
	headerMagic = "LBSEGMNT"
	footerMagic = "LBSEGEND"
	purpose     = "lifeboat segment v1"
	// indexNumber is the sealing number of the index; frames count up from 0.
	indexNumber = ^uint32(0)
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ID names a segment in all the world.
type ID [16]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Codec says how a frame's payload is compressed.
type Codec uint8

const (
	Raw  Codec = 0
	Zstd Codec = 1
	S2   Codec = 2
)

// Header begins a segment and is repeated in its footer.
type Header struct {
	Cipher      seal.Cipher
	FrameBlocks int // positions per frame
	ID          ID
	Salt        seal.Salt
	// Sequence counts the segments along a branch's history, from 1; a fork
	// goes on where its parent stood.
	Sequence uint64
	Server   string // at most 24 bytes
	Branch   string // at most 64 bytes
}

func (h Header) encode() []byte {
	if len(h.Server) > serverSize || len(h.Branch) > nameSize {
		panic(fmt.Sprintf("segment: names too long: %q, %q", h.Server, h.Branch))
	}
	b := make([]byte, headerSize)
	copy(b, headerMagic)
	binary.LittleEndian.PutUint16(b[8:], Version)
	b[10] = byte(h.Cipher)
	binary.LittleEndian.PutUint16(b[12:], uint16(h.FrameBlocks))
	copy(b[16:], h.ID[:])
	copy(b[32:], h.Salt[:])
	binary.LittleEndian.PutUint64(b[64:], h.Sequence)
	copy(b[72:72+serverSize], h.Server)
	copy(b[96:96+nameSize], h.Branch)
	binary.LittleEndian.PutUint32(b[164:], crc32.Checksum(b[:164], castagnoli))
	return b
}

// HeaderSize is the length of the header that begins every segment, in bytes.
const HeaderSize = headerSize

// ReadHeader reads the header that begins a segment. It tells what a lone object
// is; readers of data go by its copy in the footer. Object is the name for errors.
func ReadHeader(object string, b []byte) (Header, error) { return decodeHeader(object, b, 0) }

// decodeHeader reads a header that begins at byte base of the object.
func decodeHeader(object string, b []byte, base int64) (Header, error) {
	corrupt := func(off int64, reason string) (Header, error) {
		return Header{}, &blob.CorruptError{Object: object, Offset: base + off, Reason: reason}
	}
	if len(b) < headerSize {
		return corrupt(0, "too short for a segment header")
	}
	if string(b[:8]) != headerMagic {
		return corrupt(0, "not a segment: wrong magic")
	}
	if v := binary.LittleEndian.Uint16(b[8:]); v > Version {
		return Header{}, fmt.Errorf("segment %s, version %d: %w", object, v, blob.ErrNewerFormat)
	} else if v != Version {
		return corrupt(8, "no such format version")
	}
	if crc32.Checksum(b[:164], castagnoli) != binary.LittleEndian.Uint32(b[164:]) {
		return corrupt(0, "header checksum differs")
	}
	h := Header{
		Cipher:      seal.Cipher(b[10]),
		FrameBlocks: int(binary.LittleEndian.Uint16(b[12:])),
		ID:          ID(b[16:32]),
		Salt:        seal.Salt(b[32:64]),
		Sequence:    binary.LittleEndian.Uint64(b[64:]),
		Server:      strings.TrimRight(string(b[72:72+serverSize]), "\x00"),
		Branch:      strings.TrimRight(string(b[96:96+nameSize]), "\x00"),
	}
	if !h.Cipher.Known() {
		return corrupt(10, "unknown cipher")
	}
	if h.FrameBlocks < 1 || h.FrameBlocks > maxFrameBlocks {
		return corrupt(12, "frame size out of range")
	}
	return h, nil
}

// frameContext binds a sealed frame to its place.
func frameContext(id ID, ordinal uint32) [20]byte {
	var c [20]byte
	copy(c[:], id[:])
	binary.LittleEndian.PutUint32(c[16:], ordinal)
	return c
}

// Volume is the part of a segment's index that concerns one volume.
type Volume struct {
	ID      uint32
	Extents []extent.Record // a map; Seg is 0
}

func le64(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }
