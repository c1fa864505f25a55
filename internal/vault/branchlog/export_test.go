package branchlog

import (
	"bytes"
	"context"
	"encoding/binary"

	"lifeboat/internal/durable"
)

// OpenWith is Open with files of another size, in blocks, and with faults.
func OpenWith(dir string, key []byte, base Base, files durable.Files, fileBlocks uint32) (*Log, error) {
	return open(dir, key, base, files, fileBlocks)
}

// Collect runs the collector until it finds nothing to do.
func (l *Log) Collect() error {
	for {
		worked, err := l.collectOne(context.Background())
		if !worked || err != nil {
			return err
		}
	}
}

// MendGroup makes the checksum of a group header right.
func MendGroup(h []byte) { binary.LittleEndian.PutUint32(h[4:], checksum(h[8:])) }

// DecodeAll is every decoder at once, for the fuzzer.
func DecodeAll(b []byte) {
	decodeBranchHeader(b)
	decodeFileHeader(b)
	decodeMark(b, [16]byte{})
	k, _ := newFileKey(nil, [32]byte{})
	if g, err := decodeGroup(k, bytes.Clone(b), 1<<20); err == nil {
		for _, s := range g.spans {
			if s.count == 0 || s.first+uint64(s.count) > 1<<20 {
				panic("a span outside the disk was accepted")
			}
		}
	}
}

// PlainGroup returns an intact group header of a file without key or salt.
func PlainGroup() []byte {
	k, _ := newFileKey(nil, [32]byte{})
	g := newGroupBuffer()
	g.sequence = 7
	g.addData(k, 5, make([]byte, 3*BlockSize))
	g.addSpan(span{100, 50, Trim})
	return g.finish(k)[:BlockSize]
}

// Pages returns one of each other thing that is decoded.
func Pages() [][]byte {
	return [][]byte{(&branchHeader{size: 1 << 30}).encode(), (&fileHeader{number: 1}).encode(), (&mark{file: 1, end: 2, sequence: 3}).encode()}
}
