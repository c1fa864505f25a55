package branchlog

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// The collector keeps the log from growing without bound. It deletes files that
// hold nothing current, and appends what is current in a file that is mostly
// dead again, which makes that file dead. Both are safe at any kill: a file goes
// only after everything that took its place is durable, and a block that lies
// in the log twice is the same both times.

// moved says where the blocks of an operation were: it appends those of them
// that are there still.
type moved struct {
	file uint32
	pos  uint32 // of the first block, if it has data
}

// moveBatch bounds the operations of the collector that are on the way at once,
// so that a write of the machine does not wait for many of them.
const moveBatch = 16

func (l *Log) wakeCollector() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *Log) worthCollectingLocked(f *logFile) bool {
	return f.deadLocked() || f.wastefulLocked() && !f.damaged.Load()
}

// collect works until ctx ends. Whatever keeps it from its work is met by the
// machine's own reads and writes, too, and told there.
func (l *Log) collect(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		for ctx.Err() == nil {
			worked, err := l.collectOne(ctx)
			if !worked || err != nil {
				break // until the next wake
			}
		}
	}
}

// collectOne deletes what is dead, or rewrites the file with the least in it.
func (l *Log) collectOne(ctx context.Context) (worked bool, err error) {
	l.clean.Lock()
	defer l.clean.Unlock()
	var dead []*logFile
	var victim *logFile
	l.mu.RLock()
	for _, f := range l.logs {
		switch {
		case f == l.current || !l.worthCollectingLocked(f):
		case f.deadLocked():
			dead = append(dead, f)
		case victim == nil || f.live*victim.total < victim.live*f.total:
			victim = f
		}
	}
	if victim != nil {
		victim.acquire()
		defer victim.release()
	}
	l.mu.RUnlock()
	if len(dead) > 0 {
		return true, l.remove(dead)
	}
	if victim == nil {
		return false, nil
	}
	err = l.rewrite(ctx, victim)
	if _, damaged := errors.AsType[*CorruptError](err); damaged {
		victim.damaged.Store(true)
		return true, nil
	}
	return true, err
}

// remove deletes files that were found dead, once that is durable.
func (l *Log) remove(dead []*logFile) error {
	if err := l.flush(); err != nil {
		return err
	}
	for _, f := range dead {
		l.mu.Lock()
		delete(l.logs, f.number)
		l.mu.Unlock()
		f.release()
		if err := l.files.Remove("remove dead log file", f.path); err != nil {
			l.finish(err)
			return err
		}
	}
	if err := l.files.SyncDir("remove dead log file", l.dir); err != nil {
		l.finish(err)
		return err
	}
	return nil
}

// rewrite appends what is current in f.
func (l *Log) rewrite(ctx context.Context, f *logFile) error {
	groups, end, why, err := l.scan(f)
	if err != nil {
		return err
	}
	if !errors.Is(why, io.EOF) {
		return f.corrupt(end, why.Error())
	}
	var ops []*op
	for _, g := range groups {
		pos := g.pos + 1
		for _, s := range g.spans {
			more, err := l.moves(f, s, pos)
			if err != nil {
				return err
			}
			if s.kind == Data {
				pos += s.count
			}
			if ops = append(ops, more...); len(ops) < moveBatch {
				continue
			}
			if err := errors.Join(ctx.Err(), l.submit(ops)); err != nil {
				return err
			}
			ops = nil
		}
	}
	return l.submit(ops)
}

// moves returns operations for the parts of a span of f that are current.
func (l *Log) moves(f *logFile, s span, pos uint32) (ops []*op, err error) {
	found, from := []piece(nil), s.first
	for to := s.first + uint64(s.count); from < to; {
		found, from = l.lookUp(found[:0], from, to)
		release(found) // f is held by the caller
		for _, x := range found {
			if x.file != f.number || x.kind != s.kind || x.kind == Data && x.pos != pos+uint32(x.start-s.first) {
				continue
			}
			o := newOp(span{x.start, x.count, x.kind})
			o.moved = &moved{file: f.number, pos: x.pos}
			if x.kind == Data {
				o.data = make([]byte, int(x.count)*BlockSize)
				if err := f.readBlocks(o.data, x.pos, x.index, x.count); err != nil {
					return nil, fmt.Errorf("rewrite branch log: %w", err)
				}
			}
			ops = append(ops, o)
		}
	}
	return ops, nil
}

// stillThere returns the parts of a moved operation whose blocks nobody has
// written since they were read.
func (l *Log) stillThere(o *op) []part {
	parts := o.parts
	l.mu.RLock()
	defer l.mu.RUnlock()
	l.extents.walk(o.first, o.first+uint64(o.count), func(x extent) bool {
		skip := uint32(x.start - o.first)
		if x.file != o.moved.file || x.kind != o.kind || x.kind == Data && x.pos != o.moved.pos+skip {
			return true
		}
		p := part{span: span{x.start, x.count, x.kind}}
		if x.kind == Data {
			p.data = o.data[int(skip)*BlockSize:][:int(x.count)*BlockSize]
		}
		parts = append(parts, p)
		return true
	})
	return parts
}
