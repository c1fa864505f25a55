package blocktrack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// readSize is what one read asks for; it is a multiple of ChunkSize.
const readSize = 1 << 20

// cachedRead is the same where the page cache answers: no more than stays in a
// processor's own cache until it has been compared and packed. It divides readSize.
const cachedRead = 256 << 10

// holeStep is how much of a hole is compared at a time.
const holeStep = 256 << 20

var readBuffers = sync.Pool{New: func() any { b := alignedBuffer(readSize); return &b }}

// Read reads the changes of one disk, to the block, with the given number of workers
// and calls emit for each chunk with blocks that differ from the table. Calls of emit
// are concurrent, each for a chunk of its own; the table is emit's to change. Of a
// chunk that the table knows by its digest alone all is read. done counts the bytes
// dealt with as they are, holes included.
//
// A disk whose size is not the table's is a *ShrunkError or ErrGrown.
func Read(ctx context.Context, dev Device, table *Table, changes Changes, workers int, done *atomic.Int64, emit func(Chunk) error) error {
	return ReadAll(ctx, []Reading{{Device: dev, Table: table, Changes: changes, Done: done, Emit: emit}}, workers)
}

// Reading is what Read is asked for, of one of several disks.
type Reading struct {
	Device  Device
	Table   *Table
	Changes Changes
	Done    *atomic.Int64
	Read    *atomic.Int64 // counts the bytes read from the device; nil: nothing does
	Emit    func(Chunk) error
}

// ReadAll reads several disks at once, a piece of each in turn, so that a large one
// does not keep the others waiting.
func ReadAll(ctx context.Context, readings []Reading, workers int) error {
	turns := &turns{}
	for i := range readings {
		r := &readings[i]
		if err := checkSize(r.Device, r.Table); err != nil {
			return err
		}
		p := &plan{dev: r.Device, size: r.Table.Size(), ranges: r.Changes.Ranges, step: readSize}
		if d, ok := r.Device.(*Disk); ok && !d.direct {
			p.step = cachedRead
		}
		if r.Changes.All {
			p.ranges = []Range{{0, r.Table.Size()}}
		}
		if r.Read != nil {
			r.Device = count(r.Device, r.Read)
		}
		turns.left = append(turns.left, turn{p, r})
	}
	group, ctx := errgroup.WithContext(ctx)
	for range workers {
		group.Go(func() error {
			buf := readBuffers.Get().(*[]byte)
			defer readBuffers.Put(buf)
			for {
				piece, r, err := turns.next()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err == nil {
					err = context.Cause(ctx)
				}
				if err == nil && piece.hole {
					err = readHole(r.Device, r.Table, piece, r.Emit)
				} else if err == nil {
					err = readPiece(r.Device, r.Table, piece, *buf, r.Emit)
				}
				if err != nil {
					return err
				}
				r.Done.Add(piece.bytes)
			}
		})
	}
	return group.Wait()
}

// counted counts the bytes read from a device.
type counted struct {
	Device
	read *atomic.Int64
}

// countedBatches is counted for a device that reads several places at once.
type countedBatches struct {
	counted
	many batcher
}

// count returns a device that can do what the given one can.
func count(dev Device, read *atomic.Int64) Device {
	one := counted{dev, read}
	if many, ok := dev.(batcher); ok {
		return countedBatches{one, many}
	}
	return one
}

func (c countedBatches) readBatch(reads []batchRead) {
	c.many.readBatch(reads)
	for i := range reads {
		c.read.Add(int64(reads[i].n))
	}
}

func (c counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.Device.ReadAt(p, off)
	c.read.Add(int64(n))
	return n, err
}

// turns hands out pieces of several disks, one of each after the other.
type turns struct {
	mu   sync.Mutex
	left []turn
	at   int
}

type turn struct {
	plan *plan
	r    *Reading
}

func (t *turns) next() (piece, *Reading, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.left) > 0 {
		t.at = (t.at + 1) % len(t.left)
		out, err := t.left[t.at].plan.next()
		if !errors.Is(err, io.EOF) {
			return out, t.left[t.at].r, err
		}
		t.left = slices.Delete(t.left, t.at, t.at+1)
	}
	return piece{}, nil, io.EOF
}

// ErrGrown: the disk is larger than the table, which must grow first.
var ErrGrown = errors.New("disk grew")

func checkSize(dev Device, table *Table) error {
	size, err := dev.Size()
	switch {
	case err != nil:
		return err
	case size < table.Size():
		return &ShrunkError{dev.Name(), table.Size(), size}
	case size > table.Size():
		return fmt.Errorf("disk %s of %d bytes, known as %d: %w", dev.Name(), size, table.Size(), ErrGrown)
	}
	return nil
}

// readPiece reads and compares the ranges of a piece, which is at most readSize long.
func readPiece(dev Device, table *Table, p piece, buf []byte, emit func(Chunk) error) error {
	first := p.Offset / ChunkSize
	var entries [readSize / ChunkSize]Entry
	var read [readSize / ChunkSize]Blocks
	n := int((p.Length + ChunkSize - 1) / ChunkSize)
	if err := table.entries(first, entries[:n]); err != nil {
		return fmt.Errorf("disk %s: %w", dev.Name(), err)
	}
	for _, r := range p.ranges {
		mark(read[:], r.Offset-p.Offset, r.Length)
	}
	for k := range n {
		if _, opaque := entries[k].opaque(); opaque && read[k] != 0 {
			read[k] = blockRun(0, chunkBlocks)
		}
		read[k] &= blockRun(0, table.blocks(first+int64(k)))
	}
	if err := readBlocks(dev, table, p, read[:n], buf); err != nil {
		return err
	}
	for k := range n {
		if read[k] == 0 {
			continue
		}
		i := first + int64(k)
		raw := buf[k*ChunkSize:][:table.blocks(i)*blockSize]
		chunk, differs := table.compare(i, entries[k], read[k], raw)
		if !differs {
			continue
		}
		chunk.gather(raw)
		if err := emit(chunk); err != nil {
			return err
		}
	}
	return nil
}

// mark adds a range of bytes to the blocks that begin at 0.
func mark(blocks []Blocks, off, length int64) {
	for end := off + length; off < end; {
		k := off / ChunkSize
		to := min(end, (k+1)*ChunkSize)
		blocks[k] |= blockRun(int(off-k*ChunkSize)/blockSize, int(to-k*ChunkSize+blockSize-1)/blockSize)
		off = to
	}
}

// nearBy is how far apart runs of blocks may be to be read at once: what lies between
// costs less than a second read.
const nearBy = 4 * blockSize

// readBlocks reads blocks to their places in buf, those nearby at once.
func readBlocks(dev Device, table *Table, p piece, blocks []Blocks, buf []byte) error {
	var reads [batchMost]batchRead
	waiting := 0
	flush := func() error {
		defer func() { waiting = 0 }()
		return readRuns(dev, table, reads[:waiting])
	}
	var run Range // within the piece
	add := func() error {
		if run.Length == 0 {
			return nil
		}
		reads[waiting] = batchRead{buf: buf[run.Offset:][:run.Length], off: p.Offset + run.Offset}
		if waiting++; waiting == len(reads) {
			return flush()
		}
		return nil
	}
	for k, b := range blocks {
		var err error
		b.Runs(func(first, count int) bool {
			r := Range{int64(k)*ChunkSize + int64(first)*blockSize, int64(count) * blockSize}
			if run.Length > 0 && r.Offset <= run.Offset+run.Length+nearBy {
				run.Length = r.Offset + r.Length - run.Offset
				return true
			}
			err = add()
			run = r
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	if err := add(); err != nil {
		return err
	}
	return flush()
}

// readRuns reads runs of whole blocks; what lies past the disk's end is zeros.
func readRuns(dev Device, table *Table, runs []batchRead) error {
	if many, ok := dev.(batcher); ok && len(runs) > 1 {
		many.readBatch(runs)
	} else {
		for i := range runs {
			r := &runs[i]
			r.n, r.err = dev.ReadAt(r.buf, r.off)
		}
	}
	for i := range runs {
		if err := checkRun(dev, table, &runs[i]); err != nil {
			return err
		}
	}
	return nil
}

func checkRun(dev Device, table *Table, r *batchRead) error {
	want := min(int64(len(r.buf)), table.Size()-r.off)
	if int64(r.n) < want {
		// Too little: the disk shrank, vanished, or has a bad spot.
		if sizeErr := checkSize(dev, table); sizeErr != nil {
			return sizeErr
		}
		var gone *GoneError
		if errors.As(r.err, &gone) {
			return r.err
		}
		return &ReadError{dev.Name(), r.off, r.err}
	}
	clear(r.buf[want:]) // the last block of an odd-sized image
	return nil
}

func readHole(dev Device, table *Table, p piece, emit func(Chunk) error) error {
	var entries [512]Entry
	for first, end := p.Offset/ChunkSize, (p.Offset+p.Length+ChunkSize-1)/ChunkSize; first < end; first += int64(len(entries)) {
		n := min(end-first, int64(len(entries)))
		if err := table.entries(first, entries[:n]); err != nil {
			return fmt.Errorf("disk %s: %w", dev.Name(), err)
		}
		for k := range n {
			if entries[k].zeros() {
				continue
			}
			if err := emit(Chunk{Index: first + k, Zero: blockRun(0, table.blocks(first+k))}); err != nil {
				return err
			}
		}
	}
	return nil
}

// piece is a run of whole chunks for one worker: data, of which the ranges are to be
// read, or a known hole.
type piece struct {
	Range
	ranges []Range // of data: in whole blocks
	bytes  int64   // that this deals with
	hole   bool
}

// plan cuts ranges into pieces, no two of them with a chunk in common. One goroutine
// at a time uses it.
type plan struct {
	dev  Device
	size int64
	step int64 // no piece of data crosses a multiple of it

	ranges []Range
	at     int64 // all before is handed out
	data   Range // the run of data at or after at, in whole chunks
	err    error
}

func (p *plan) next() (piece, error) {
	for p.err == nil && len(p.ranges) > 0 {
		start, end := p.first()
		if start >= end {
			p.ranges = p.ranges[1:]
			continue
		}
		if start >= p.data.Offset+p.data.Length {
			p.err = p.findData(start)
			continue
		}
		chunk := start / ChunkSize * ChunkSize
		if start < p.data.Offset {
			stop := min(roundUp(end, ChunkSize), p.data.Offset, chunk+holeStep)
			p.at = stop
			return piece{Range: Range{chunk, stop - chunk}, bytes: min(end, stop) - start, hole: true}, nil
		}
		stop := min(p.data.Offset+p.data.Length, chunk/p.step*p.step+p.step)
		out := piece{Range: Range{chunk, stop - chunk}}
		for len(p.ranges) > 0 {
			start, end := p.first()
			if start >= stop {
				break
			}
			if start < end {
				r := Range{start, min(end, stop) - start}
				out.bytes += r.Length
				r.Offset = start / blockSize * blockSize
				r.Length = min(roundUp(start+r.Length, blockSize), stop) - r.Offset
				out.ranges = append(out.ranges, r)
			}
			if end > stop {
				break
			}
			p.ranges = p.ranges[1:]
		}
		p.at = stop
		return out, nil
	}
	if p.err == nil {
		p.err = io.EOF
	}
	return piece{}, p.err
}

// first is what is left of the first range.
func (p *plan) first() (start, end int64) {
	r := p.ranges[0]
	return max(r.Offset, p.at), min(r.Offset+r.Length, p.size)
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
