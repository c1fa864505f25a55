package blocktrack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Chunk is a chunk whose content differs from the table.
type Chunk struct {
	Index  int64
	Digest Digest
	// Raw is the content in whole blocks, nil when it is all zeros. It is valid
	// only until emit returns.
	Raw []byte
	// Blocks is the number of 4 KiB blocks: 16, fewer for a disk's last chunk.
	Blocks int
}

// readSize is what one read asks for; it is a multiple of ChunkSize.
const readSize = 1 << 20

// holeStep is how much of a hole is compared at a time.
const holeStep = 256 << 20

var readBuffers = sync.Pool{New: func() any { b := alignedBuffer(readSize); return &b }}

// Read reads the changes of one disk with the given number of workers and calls
// emit for each chunk that differs from the table. Calls of emit are concurrent,
// each for a chunk of its own; the table is emit's to change. done counts the
// bytes dealt with as they are, holes included.
//
// A disk whose size is not the table's is a *ShrunkError or ErrGrown.
func Read(ctx context.Context, dev Device, table *Table, changes Changes, workers int, done *atomic.Int64, emit func(Chunk) error) error {
	if err := checkSize(dev, table); err != nil {
		return err
	}
	plan := &plan{dev: dev, size: table.size, ranges: changes.Ranges}
	if changes.All {
		plan.ranges = []Range{{0, table.size}}
	}
	group, ctx := errgroup.WithContext(ctx)
	for range workers {
		group.Go(func() error {
			buf := readBuffers.Get().(*[]byte)
			defer readBuffers.Put(buf)
			for {
				piece, err := plan.next()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err == nil {
					err = context.Cause(ctx)
				}
				if err == nil && piece.hole {
					err = readHole(table, piece, emit)
				} else if err == nil {
					err = readPiece(dev, table, piece, *buf, emit)
				}
				if err != nil {
					return err
				}
				done.Add(piece.Length)
			}
		})
	}
	return group.Wait()
}

// ErrGrown: the disk is larger than the table, which must grow first.
var ErrGrown = errors.New("disk grew")

func checkSize(dev Device, table *Table) error {
	size, err := dev.Size()
	switch {
	case err != nil:
		return err
	case size < table.size:
		return &ShrunkError{dev.Name(), table.size, size}
	case size > table.size:
		return fmt.Errorf("disk %s of %d bytes, known as %d: %w", dev.Name(), size, table.size, ErrGrown)
	}
	return nil
}

func readPiece(dev Device, table *Table, p piece, buf []byte, emit func(Chunk) error) error {
	n, err := dev.ReadAt(buf[:roundUp(p.Length, blockSize)], p.Offset)
	if int64(n) < p.Length {
		// Too little: the disk shrank, vanished, or has a bad spot.
		if sizeErr := checkSize(dev, table); sizeErr != nil {
			return sizeErr
		}
		var gone *GoneError
		if errors.As(err, &gone) {
			return err
		}
		return &ReadError{dev.Name(), p.Offset, err}
	}
	if tail := roundUp(p.Length, blockSize); tail > p.Length {
		clear(buf[p.Length:tail]) // the last block of an odd-sized image
	}
	for off := int64(0); off < p.Length; off += ChunkSize {
		i := (p.Offset + off) / ChunkSize
		raw := buf[off : off+table.chunkLen(i)]
		chunk := Chunk{Index: i, Raw: raw, Blocks: len(raw) / blockSize}
		if bytes.Equal(raw, zeros[:len(raw)]) {
			chunk.Digest, chunk.Raw = table.ZeroAt(i), nil
		} else {
			chunk.Digest = table.digest(raw)
		}
		if chunk.Digest == table.At(i) {
			continue
		}
		if err := emit(chunk); err != nil {
			return err
		}
	}
	return nil
}

func readHole(table *Table, p piece, emit func(Chunk) error) error {
	for i := p.Offset / ChunkSize; i*ChunkSize < p.Offset+p.Length; i++ {
		zero := table.ZeroAt(i)
		if table.At(i) == zero {
			continue
		}
		if err := emit(Chunk{Index: i, Digest: zero, Blocks: int(table.chunkLen(i) / blockSize)}); err != nil {
			return err
		}
	}
	return nil
}

// piece is a run of whole chunks for one worker: data to read or a known hole.
type piece struct {
	Range
	hole bool
}

// plan cuts ranges into pieces.
type plan struct {
	dev  Device
	size int64

	mu     sync.Mutex
	ranges []Range
	at     int64 // all before is handed out
	data   Range // the run of data at or after at, in whole chunks
	err    error
}

func (p *plan) next() (piece, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.err == nil && len(p.ranges) > 0 {
		r := p.ranges[0]
		start := max(r.Offset/ChunkSize*ChunkSize, p.at)
		end := min(roundUp(r.Offset+r.Length, ChunkSize), p.size)
		if start >= end {
			p.ranges = p.ranges[1:]
			continue
		}
		if start >= p.data.Offset+p.data.Length {
			p.err = p.findData(start)
			continue
		}
		out := piece{Range: Range{start, min(end, p.data.Offset+p.data.Length, start/readSize*readSize+readSize) - start}}
		if start < p.data.Offset {
			out = piece{Range{start, min(end, p.data.Offset, start+holeStep) - start}, true}
		}
		p.at = start + out.Length
		return out, nil
	}
	if p.err == nil {
		p.err = io.EOF
	}
	return piece{}, p.err
}

// findData looks for data at or after off and widens it to whole chunks. Where
// there is none, an empty run at the disk's end makes all the rest a hole.
func (p *plan) findData(off int64) error {
	r, err := p.dev.Data(off)
	if errors.Is(err, io.EOF) {
		// One byte past the end, so that off lies before the run's end.
		p.data = Range{p.size, 1}
		return nil
	}
	if err != nil {
		return err
	}
	start := r.Offset / ChunkSize * ChunkSize
	p.data = Range{start, roundUp(r.Offset+r.Length, ChunkSize) - start}
	return nil
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }
