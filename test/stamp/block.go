package stamp

import (
	"bytes"
	"encoding/binary"

	"github.com/zeebo/xxh3"
)

// A stamped block, all numbers little-endian: magic, checksum of what follows it,
// seed, number of the operation, target, block of the target, 8 bytes each; then
// filling that follows from them.
const (
	magic    = "LBSTAMP1"
	headSize = 48
	sector   = 512
)

// fill makes block what an operation leaves at a place.
func (p Plan) fill(block []byte, number uint64, target int, at int64) {
	copy(block, magic)
	for i, n := range []uint64{p.Seed, number, uint64(target), uint64(at)} {
		binary.LittleEndian.PutUint64(block[16+8*i:], n)
	}
	// Half of the operations write what no compressor makes smaller.
	x := xxh3.Hash(block[16:headSize])
	for i := headSize; i < BlockSize; i += 8 {
		if number%2 == 0 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
		binary.LittleEndian.PutUint64(block[i:], x)
	}
	binary.LittleEndian.PutUint64(block[8:], xxh3.Hash(block[16:BlockSize]))
}

// held is what a block of an image holds.
type held struct {
	number uint64 // of the operation that wrote it; 0: zeros
	other  []byte // not nil: neither zeros nor a stamp that belongs there
}

var zeros [BlockSize]byte

func (p Plan) read(block []byte, target int, at int64) held {
	if bytes.Equal(block, zeros[:]) {
		return held{}
	}
	field := func(i int) uint64 { return binary.LittleEndian.Uint64(block[8*i:]) }
	if string(block[:8]) == magic && field(1) == xxh3.Hash(block[16:]) &&
		field(2) == p.Seed && field(3) > 0 && field(4) == uint64(target) && field(5) == uint64(at) {
		return held{number: field(3)}
	}
	return held{other: bytes.Clone(block)}
}

// mixes tells whether every sector of what a block holds is that of the one or of
// the other operation's block; 0 means zeros.
func (p Plan) mixes(h held, target int, at int64, before, after uint64) bool {
	if h.other == nil {
		return h.number == before || h.number == after
	}
	var blocks [2][BlockSize]byte
	for i, number := range []uint64{before, after} {
		if number > 0 {
			p.fill(blocks[i][:], number, target, at)
		}
	}
	for s := 0; s < BlockSize; s += sector {
		part := h.other[s : s+sector]
		if !bytes.Equal(part, blocks[0][s:s+sector]) && !bytes.Equal(part, blocks[1][s:s+sector]) {
			return false
		}
	}
	return true
}
