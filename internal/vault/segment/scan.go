package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"lifeboat/internal/vault/blob"
)

// scanWindow is how many bytes of frames Scan holds at a time.
const scanWindow = 1 << 20

// InHeader is what Scan calls the header among the frames.
const InHeader = -1

// Scan checks every byte of a segment of any size in bounded memory, and goes on
// behind a damaged frame. Read fills p from an offset of the segment; what it
// returns ends the scan. With the segment's index frames are opened and
// decompressed, too; without, nil, checksums over the stored bytes have to do.
//
// Bad lists the frames that are damaged, ascending, each with its *CorruptError in
// errs. InHeader stands for the header at the segment's begin, which nobody reads data
// by. Damage to anything else, which makes the whole segment useless, is err.
func Scan(object string, length int64, read func(p []byte, off int64) error, ix *Index) (bad []int, errs []error, err error) {
	p, err := scanEnds(object, length, read)
	if err != nil {
		return nil, nil, err
	}
	if ix != nil && ix.Header != p.header {
		return nil, nil, &blob.CorruptError{Object: object, Reason: "header and index differ"}
	}
	damage := func(i int, err error) { bad, errs = append(bad, i), append(errs, err) }
	head := make([]byte, headerSize)
	if err := read(head, 0); err != nil {
		return nil, nil, err
	}
	if h, err := decodeHeader(object, head, 0); err != nil {
		damage(InHeader, err)
	} else if h != p.header {
		damage(InHeader, &blob.CorruptError{Object: object, Reason: "header and footer differ"})
	}
	buf := make([]byte, 0, min(scanWindow, length))
	for i := 0; i < len(p.frames); {
		j, begin := i+1, p.frames[i].Offset
		for j < len(p.frames) && p.frames[j].End()-begin <= scanWindow {
			j++
		}
		n := int(p.frames[j-1].End() - begin)
		if cap(buf) < n {
			buf = make([]byte, 0, n)
		}
		buf = buf[:n]
		if err := read(buf, begin); err != nil {
			return bad, errs, err
		}
		for ; i < j; i++ {
			f := p.frames[i]
			stored := buf[f.Offset-begin : f.End()-begin]
			var failed error
			if ix != nil {
				_, failed = ix.Open(i, stored)
			} else if crc32.Checksum(stored, castagnoli) != f.CRC {
				failed = &blob.CorruptError{Object: object, Offset: f.Offset, Reason: fmt.Sprintf("frame %d: checksum differs", i)}
			}
			if failed != nil {
				damage(i, failed)
			}
		}
	}
	return bad, errs, nil
}

// scanEnds reads and checks the footer, and the index as far as it is plain.
func scanEnds(object string, length int64, read func(p []byte, off int64) error) (p plainIndex, err error) {
	corrupt := func(off int64, reason string) error {
		return &blob.CorruptError{Object: object, Offset: off, Reason: reason}
	}
	if length < headerSize+footerSize+4 {
		return p, corrupt(0, "too short for a segment")
	}
	footer := make([]byte, footerSize)
	if err := read(footer, length-footerSize); err != nil {
		return p, err
	}
	if string(footer[192:200]) != footerMagic {
		return p, corrupt(length-footerSize+192, "segment does not end in a footer: truncated or overwritten")
	}
	base := int64(binary.LittleEndian.Uint64(footer[168:]))
	if base < headerSize || base > length-footerSize-4 || length-base > MaxIndex {
		return p, corrupt(length-footerSize+168, "impossible index offset")
	}
	tail := make([]byte, length-base)
	if err := read(tail, base); err != nil {
		return p, err
	}
	if p, err = decodePlain(object, tail, base); err != nil {
		return p, err
	}
	return p, nil
}
