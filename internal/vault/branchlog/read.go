package branchlog

import (
	"context"
	"fmt"
	"io"
	"sync"
)

// piece is a part of a read: where its blocks are. No file: in the base, or
// nowhere, as the kind says.
type piece struct {
	extent
	f *logFile // acquired
}

const inBase Kind = 0

// piecesMax bounds what is looked up at once, so that a question about a huge
// range holds the lock for a moment only.
const piecesMax = 512

type pieces struct{ list []piece }

var piecesPool = sync.Pool{New: func() any { return new(pieces) }}

// lookUp appends the pieces of [from, to) in order, gaps as pieces of the base,
// and returns where it stopped: to, or sooner after piecesMax. The files of the
// pieces are held.
func (l *Log) lookUp(list []piece, from, to uint64) ([]piece, uint64) {
	gap := func(end uint64) {
		for from < end {
			n := min(end-from, 1<<31)
			list = append(list, piece{extent: extent{start: from, count: uint32(n), kind: inBase}})
			from += n
		}
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	full := false
	l.extents.walk(from, to, func(x extent) bool {
		gap(x.start)
		p := piece{extent: x}
		if x.kind == Data {
			p.f = l.logs[x.file].acquire()
		}
		list = append(list, p)
		from = x.end()
		full = len(list) >= piecesMax
		return !full
	})
	if !full {
		gap(to)
	}
	return list, from
}

func release(list []piece) {
	for i := range list {
		if list[i].f != nil {
			list[i].f.release()
			list[i].f = nil
		}
	}
}

// ReadAt reads the disk as it is: the branch's writes where there are any, the
// base elsewhere. Damage in the log is a *CorruptError, and then what p holds
// means nothing.
func (l *Log) ReadAt(p []byte, off int64) (int, error) {
	if err := l.checkRange("read", off, int64(len(p))); err != nil {
		return 0, err
	}
	if err := l.err(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := l.read(p, off); err != nil {
		return 0, fmt.Errorf("read %d bytes at %d: %w", len(p), off, err)
	}
	return len(p), nil
}

func (l *Log) read(p []byte, off int64) error {
	found := piecesPool.Get().(*pieces)
	defer piecesPool.Put(found)
	end := off + int64(len(p))
	from, to := uint64(off/BlockSize), uint64((end+BlockSize-1)/BlockSize)
	for from < to {
		found.list, from = l.lookUp(found.list[:0], from, to)
		err := l.readPieces(found.list, p, off)
		release(found.list)
		if err != nil {
			return err
		}
	}
	return nil
}

// readPieces reads the parts of the pieces that are in p, which begins at off.
func (l *Log) readPieces(list []piece, p []byte, off int64) error {
	end := off + int64(len(p))
	for _, x := range list {
		lo := max(int64(x.start)*BlockSize, off)
		hi := min(int64(x.end())*BlockSize, end)
		dst := p[lo-off : hi-off]
		var err error
		switch x.kind {
		case inBase:
			err = readFull(l.base, dst, lo)
		case Data:
			err = x.readBytes(dst, lo)
		default:
			clear(dst)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readBytes reads part of a data piece, from the byte lo of the disk on: whole
// blocks straight to where they are wanted, others by way of a block of our own.
func (x *piece) readBytes(dst []byte, lo int64) error {
	for len(dst) > 0 {
		skip := uint32(uint64(lo/BlockSize) - x.start)
		at := int(lo % BlockSize)
		if n := len(dst) / BlockSize; at == 0 && n > 0 {
			if err := x.f.readBlocks(dst, x.pos+skip, x.index+uint8(skip), uint32(n)); err != nil {
				return err
			}
			dst, lo = dst[n*BlockSize:], lo+int64(n)*BlockSize
			continue
		}
		var block [BlockSize]byte
		if err := x.f.readBlocks(block[:], x.pos+skip, x.index+uint8(skip), 1); err != nil {
			return err
		}
		n := copy(dst, block[at:])
		dst, lo = dst[n:], lo+int64(n)
	}
	return nil
}

// readFull is ReadAt that forgives the io.EOF of a read up to the very end.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// Extents is as Mapper says. The branch's own writes are data, what it zeroed or
// trimmed are holes, and the rest is as the base says; data, if it does not.
func (l *Log) Extents(ctx context.Context, off, n int64, yield func(length int64, hole bool) bool) error {
	if err := l.checkRange("map", off, n); err != nil {
		return err
	}
	if err := l.err(); err != nil {
		return err
	}
	end := off + n
	from, to := uint64(off/BlockSize), uint64((end+BlockSize-1)/BlockSize)
	var list []piece
	for from < to {
		list, from = l.lookUp(list[:0], from, to)
		release(list)
		for _, x := range list {
			lo := max(int64(x.start)*BlockSize, off)
			hi := min(int64(x.end())*BlockSize, end)
			more, err := l.mapPiece(ctx, x.kind, lo, hi-lo, yield)
			if !more || err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Log) mapPiece(ctx context.Context, kind Kind, off, n int64, yield func(int64, bool) bool) (more bool, err error) {
	base, ok := l.base.(Mapper)
	if kind != inBase || !ok {
		return yield(n, kind == Zero || kind == Trim), nil
	}
	more = true
	err = base.Extents(ctx, off, n, func(length int64, hole bool) bool {
		more = yield(length, hole)
		return more
	})
	return more, err
}

// Cache has the range ready for reads that come soon, where it comes from a base
// that can: the log's own files are in the system's cache as they are read.
func (l *Log) Cache(ctx context.Context, off, n int64) error {
	if err := l.checkRange("cache", off, n); err != nil {
		return err
	}
	if err := l.err(); err != nil {
		return err
	}
	base, ok := l.base.(Cacher)
	if !ok {
		return nil
	}
	end := off + n
	from, to := uint64(off/BlockSize), uint64((end+BlockSize-1)/BlockSize)
	var list []piece
	for from < to {
		list, from = l.lookUp(list[:0], from, to)
		release(list)
		for _, x := range list {
			if x.kind != inBase {
				continue
			}
			lo := max(int64(x.start)*BlockSize, off)
			hi := min(int64(x.end())*BlockSize, end)
			if err := base.Cache(ctx, lo, hi-lo); err != nil {
				return fmt.Errorf("cache %d bytes at %d: %w", n, off, err)
			}
		}
	}
	return nil
}
