package branchlog

import (
	"context"
	"fmt"
	"sync"
)

// op is one thing to append. Operations queue up; whoever finds no appender at
// work becomes it, takes the whole queue and appends it as a few groups, so that
// many small writes at once cost one header and one system call. With its own
// operation done it hands the office to whoever waits first.
type op struct {
	span
	data  []byte    // of a Data span: whole blocks, the caller's memory
	patch *patch    // not nil: a part of one block
	moved *moved    // not nil: only what is still there
	parts []part    // what to append, when its turn has come
	err   error     // the outcome
	turn  chan turn // what its owner does next
}

// part is a span to append, with its data.
type part struct {
	span
	data []byte
}

type turn int

const (
	turnDone turn = iota // look at err
	turnLead             // be the appender
)

// patch is a write of a part of a block, which needs the rest of it. What lies
// in the log is read when its turn has come, so that no write in between is
// lost; what lies in the base never changes and was read before.
type patch struct {
	at   int // in the block
	data []byte
	base [BlockSize]byte
}

type queue struct {
	mu   sync.Mutex
	ops  []*op
	busy bool // somebody is the appender
}

var opPool = sync.Pool{New: func() any { return &op{turn: make(chan turn, 1)} }}

// WriteAt writes p at off. When it returns without error the bytes survive the
// end of the process; Flush makes them survive the end of the machine.
func (l *Log) WriteAt(p []byte, off int64) (int, error) {
	if err := l.checkRange("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	var room [3]*op
	ops, err := l.writeOps(room[:0], p, off)
	if err == nil {
		err = l.submit(ops)
	}
	if err != nil {
		return 0, fmt.Errorf("write %d bytes at %d: %w", len(p), off, err)
	}
	return len(p), nil
}

// writeOps cuts a write into whole blocks and the parts of blocks at its edges.
func (l *Log) writeOps(ops []*op, p []byte, off int64) ([]*op, error) {
	for len(p) > 0 {
		block, at := uint64(off/BlockSize), int(off%BlockSize)
		if at == 0 && len(p) >= BlockSize {
			n := len(p) / BlockSize * BlockSize
			o := newOp(span{block, uint32(n / BlockSize), Data})
			o.data = p[:n]
			ops, p, off = append(ops, o), p[n:], off+int64(n)
			continue
		}
		n := min(BlockSize-at, len(p))
		o := newOp(span{block, 1, Data})
		o.patch = &patch{at: at, data: p[:n]}
		if err := l.readBase(o.patch.base[:], block); err != nil {
			return nil, err
		}
		ops, p, off = append(ops, o), p[n:], off+int64(n)
	}
	return ops, nil
}

// readBase fills b with the base's block, unless the log holds it: what the log
// once holds it never gives back to the base.
func (l *Log) readBase(b []byte, block uint64) error {
	held := false
	l.mu.RLock()
	l.extents.walk(block, block+1, func(extent) bool { held = true; return false })
	l.mu.RUnlock()
	if held {
		return nil
	}
	off := int64(block) * BlockSize
	return readFull(l.base, b[:min(BlockSize, l.header.size-off)], off)
}

// Trim gives the range up: it reads as zeros, and takes no space after a while.
func (l *Log) Trim(_ context.Context, off, n int64) error {
	return l.zero("trim", Trim, off, n)
}

// Zero makes the range read as zeros. It takes no space, whatever mayTrim says:
// a log has no place to keep for later.
func (l *Log) Zero(_ context.Context, off, n int64, mayTrim bool) error {
	return l.zero("zero", Zero, off, n)
}

func (l *Log) zero(what string, kind Kind, off, n int64) error {
	if err := l.checkRange(what, off, n); err != nil {
		return err
	}
	if err := l.submitZero(kind, off, n); err != nil {
		return fmt.Errorf("%s %d bytes at %d: %w", what, n, off, err)
	}
	return nil
}

// submitZero zeroes whole blocks by a record and the parts at the edges by
// writing. The last block of the disk counts as whole when its last byte is in.
func (l *Log) submitZero(kind Kind, off, n int64) error {
	var ops []*op
	end := off + n
	first, last := uint64((off+BlockSize-1)/BlockSize), uint64(end/BlockSize)
	if end == l.header.size {
		last = l.header.diskBlocks()
	}
	if first >= last { // inside one block, or across the border of two
		ops, err := l.writeOps(nil, make([]byte, n), off)
		if err != nil {
			return err
		}
		return l.submit(ops)
	}
	var err error
	if head := int64(first)*BlockSize - off; head > 0 {
		if ops, err = l.writeOps(ops, make([]byte, head), off); err != nil {
			return err
		}
	}
	for b := first; b < last; {
		count := uint32(min(last-b, 1<<31))
		ops = append(ops, newOp(span{b, count, kind}))
		b += uint64(count)
	}
	if tail := end - int64(last)*BlockSize; tail > 0 {
		if ops, err = l.writeOps(ops, make([]byte, tail), end-tail); err != nil {
			return err
		}
	}
	return l.submit(ops)
}

func newOp(s span) *op {
	o := opPool.Get().(*op)
	*o = op{span: s, parts: o.parts[:0], turn: o.turn}
	return o
}

// submit has the operations appended, in order, and returns when they are.
func (l *Log) submit(ops []*op) (err error) {
	if len(ops) == 0 {
		return l.err()
	}
	q := &l.queue
	q.mu.Lock()
	q.ops = append(q.ops, ops...)
	lead := !q.busy
	q.busy = true
	q.mu.Unlock()
	for _, o := range ops {
		if lead || <-o.turn == turnLead {
			lead = false
			l.lead()
			<-o.turn
		}
		if o.err != nil && err == nil {
			err = o.err
		}
		opPool.Put(o)
	}
	return err
}

// lead appends what is in the queue, and makes the next appender.
func (l *Log) lead() {
	q := &l.queue
	q.mu.Lock()
	batch := q.ops
	q.ops = nil
	q.mu.Unlock()

	l.append.mu.Lock()
	l.appendBatch(batch)
	l.append.mu.Unlock()

	q.mu.Lock()
	if len(q.ops) > 0 {
		q.ops[0].turn <- turnLead
	} else {
		q.busy = false
	}
	q.mu.Unlock()
	for _, o := range batch {
		o.turn <- turnDone
	}
}
