// Package diskstream is the format in which one disk travels whole: the runs of
// it that hold data, in order, and nothing for its holes. docs/formats/export-stream.md
// gives it byte by byte.
//
// A stream that is cut short, changed or reordered on the way is never mistaken
// for a whole one: every record carries a checksum and the last one the totals.
// The package holds at most one record in memory and does no I/O of its own.
package diskstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// MediaType names the format in HTTP.
const MediaType = "application/vnd.lifeboat.disk-stream"

const (
	// MaxData is the most bytes of disk that one record may hold.
	MaxData = 1 << 20
	// maxMessage is the longest reason that a sender may give for giving up.
	maxMessage = 4096

	magic      = "LBDISKST"
	version    = 1
	headerSize = 28
	recordHead = 12 // offset u64, length u32
	recordTail = 4  // CRC32C

	// Offsets that no disk reaches mark the records that are not data.
	endMark  = ^uint64(0)
	failMark = ^uint64(0) - 1
	endSize  = 16 // bytes u64, records u64
)

// MaxSize is the largest disk, in bytes.
const MaxSize = 1 << 60

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrTruncated: the stream ended before its end record.
var ErrTruncated = errors.New("the stream was cut short")

// CorruptError is the evidence of a stream that breaks the format.
type CorruptError struct {
	At     int64 // byte of the stream at which the bad part begins
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("damaged stream at byte %d: %s", e.At, e.Reason)
}

// SenderError is the reason the sender gave for ending the stream early.
type SenderError struct{ Message string }

func (e *SenderError) Error() string { return "the sender gave up: " + e.Message }

// appendHeader and parseHeader are the two sides of the stream's first bytes.
func appendHeader(b []byte, size int64) []byte {
	start := len(b)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(size))
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

func parseHeader(b []byte) (size int64, err error) {
	corrupt := func(reason string) (int64, error) { return 0, &CorruptError{Reason: reason} }
	if string(b[:8]) != magic {
		return corrupt("not a disk stream")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != version {
		return 0, fmt.Errorf("disk stream has version %d, this lifeboat reads version %d: use a lifeboat as new as the server", v, version)
	}
	if crc32.Checksum(b[:24], castagnoli) != binary.LittleEndian.Uint32(b[24:]) {
		return corrupt("the header's checksum is wrong")
	}
	if binary.LittleEndian.Uint32(b[12:]) != 0 {
		return corrupt("reserved bytes are not zero")
	}
	if n := binary.LittleEndian.Uint64(b[16:]); n <= MaxSize {
		return int64(n), nil
	}
	return corrupt("the disk's size is impossible")
}
