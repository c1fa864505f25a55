package branchlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

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

// Audit compares what the files count as current with the map.
func (l *Log) Audit() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	live, zeros := map[uint32]int64{}, map[uint32]int64{}
	l.extents.walk(0, l.header.diskBlocks(), func(x extent) bool {
		if x.kind == Data {
			live[x.file] += int64(x.count)
		} else {
			zeros[x.file] += int64(x.count)
		}
		return true
	})
	for n, f := range l.logs {
		if f.live != live[n] || f.liveZeros != zeros[n] {
			return fmt.Errorf("file %d counts %d and %d current blocks, the map has %d and %d", n, f.live, f.liveZeros, live[n], zeros[n])
		}
		delete(live, n)
		delete(zeros, n)
	}
	if len(live)+len(zeros) > 0 {
		return fmt.Errorf("the map points to files that are gone: %v %v", live, zeros)
	}
	return nil
}
