package branchlog

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// span is what a group says of a run of blocks. The payload blocks of a group's
// data spans follow its header in the same order.
type span struct {
	first uint64 // block of the disk
	count uint32
	kind  Kind
}

// group is a decoded group header: the unit of appending, of tearing and of
// replay.
type group struct {
	sequence uint64
	durable  uint64 // all groups up to this sequence were durable before
	blocks   int    // of payload
	spans    []span
}

// groupBuffer builds one group: its header block, then its payload, as they go
// to the file. Each payload block is sealed by itself, so that one can be read
// without the others.
type groupBuffer struct {
	group
	bytes []byte // header and payload, and room for the tag of the last block
}

func newGroupBuffer() *groupBuffer {
	return &groupBuffer{bytes: make([]byte, (1+maxGroupBlocks)*BlockSize+tagLen)}
}

func (g *groupBuffer) reset() {
	g.group = group{spans: g.spans[:0]}
	clear(g.bytes[:BlockSize])
}

// room is how many payload blocks another data span may have; 0 if none fits.
func (g *groupBuffer) room() int {
	if len(g.spans) == maxGroupExtents {
		return 0
	}
	return maxGroupBlocks - g.blocks
}

// addData appends blocks of plain data under the sequence and keys of the group.
func (g *groupBuffer) addData(k *fileKey, first uint64, data []byte) {
	for off := 0; off < len(data); off += BlockSize {
		at := (1 + g.blocks) * BlockSize
		stored := g.bytes[at : at+BlockSize]
		entry := g.bytes[groupFixed+tableEntry*g.blocks:][:tableEntry]
		k.sealBlock(g.bytes[at:at+BlockSize+tagLen], entry[4:], g.sequence, uint32(g.blocks), data[off:off+BlockSize])
		binary.LittleEndian.PutUint32(entry, checksum(stored))
		g.blocks++
	}
	g.addSpan(span{first, uint32(len(data) / BlockSize), Data})
}

// addSpan appends a span, as part of the last one where that is the same.
func (g *groupBuffer) addSpan(s span) {
	if n := len(g.spans) - 1; n >= 0 {
		last := &g.spans[n]
		if last.kind == s.kind && last.first+uint64(last.count) == s.first && uint64(last.count)+uint64(s.count) < 1<<32 {
			last.count += s.count
			return
		}
	}
	g.spans = append(g.spans, s)
}

// finish completes the header and returns the bytes of the group.
func (g *groupBuffer) finish(k *fileKey) []byte {
	h := g.bytes[:BlockSize]
	copy(h, groupMagic)
	binary.LittleEndian.PutUint64(h[24:], g.sequence)
	binary.LittleEndian.PutUint64(h[32:], g.durable)
	copy(h[40:], k.stamp[:])
	binary.LittleEndian.PutUint16(h[48:], uint16(len(g.spans)))
	binary.LittleEndian.PutUint16(h[50:], uint16(g.blocks))
	table := groupFixed + tableEntry*g.blocks
	spans := h[table : table+extentLen*len(g.spans)]
	for i, s := range g.spans {
		e := spans[extentLen*i:]
		binary.LittleEndian.PutUint64(e, s.first)
		binary.LittleEndian.PutUint32(e[8:], s.count)
		e[12] = byte(s.kind)
	}
	k.sealHeader(h, g.sequence, table, spans)
	binary.LittleEndian.PutUint32(h[4:], checksum(h[8:]))
	return g.bytes[:(1+g.blocks)*BlockSize]
}

// errNotGroup says that a block is not an intact group header of this file, as
// the end of a log that was torn is not.
var errNotGroup = errors.New("no intact group header")

// peekGroup checks that b is an intact group header of the file and returns
// what needs no key. The payload is not looked at.
func peekGroup(k *fileKey, b []byte) (g group, err error) {
	if len(b) != BlockSize || string(b[:4]) != groupMagic ||
		binary.LittleEndian.Uint32(b[4:]) != checksum(b[8:]) || string(b[40:48]) != string(k.stamp[:]) {
		return g, errNotGroup
	}
	g.sequence = binary.LittleEndian.Uint64(b[24:])
	g.durable = binary.LittleEndian.Uint64(b[32:])
	g.blocks = int(binary.LittleEndian.Uint16(b[50:]))
	n := int(binary.LittleEndian.Uint16(b[48:]))
	if n == 0 || n > maxGroupExtents || g.blocks > maxGroupBlocks || g.durable >= g.sequence {
		return g, errNotGroup
	}
	return g, nil
}

// decodeGroup is peekGroup, and opens the spans for a disk of so many blocks. b
// is used as scratch.
func decodeGroup(k *fileKey, b []byte, diskBlocks uint64) (g group, err error) {
	if g, err = peekGroup(k, b); err != nil {
		return g, err
	}
	n := int(binary.LittleEndian.Uint16(b[48:]))
	table := groupFixed + tableEntry*g.blocks
	spans, err := k.openHeader(b, g.sequence, table, extentLen*n)
	if err != nil {
		return g, err
	}
	g.spans = make([]span, n)
	var data uint64
	for i := range g.spans {
		e := spans[extentLen*i:]
		s := span{binary.LittleEndian.Uint64(e), binary.LittleEndian.Uint32(e[8:]), Kind(e[12])}
		switch {
		case s.kind < Data || s.kind > Trim:
			return g, fmt.Errorf("record kind %d is unknown", s.kind)
		case s.count == 0 || s.first >= diskBlocks || uint64(s.count) > diskBlocks-s.first:
			return g, fmt.Errorf("blocks %d+%d are outside the disk", s.first, s.count)
		case s.kind == Data:
			data += uint64(s.count)
		}
		g.spans[i] = s
	}
	if data != uint64(g.blocks) {
		return g, fmt.Errorf("records of %d blocks with a payload of %d", data, g.blocks)
	}
	return g, nil
}
