package branchlog

import (
	"context"
	"fmt"
	"sync"
)

// syncs lets flushes share the sync of the file: one runs at a time, and whoever
// waits for it and was covered by it is done.
type syncs struct {
	mu   sync.Mutex
	cond *sync.Cond
	busy bool
	done uint64 // everything up to this sequence is durable
}

func (s *syncs) init() { s.cond = sync.NewCond(&s.mu) }

func (s *syncs) upTo() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

// Flush makes every write, trim and zeroing that returned before it was called
// durable. It is not interrupted by ctx.
func (l *Log) Flush(context.Context) error {
	if err := l.flush(); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

func (l *Log) flush() error {
	target := l.Sequence()
	s := &l.syncs
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if err := l.err(); err != nil {
			return err
		}
		if s.done >= target {
			return nil
		}
		if s.busy {
			s.cond.Wait()
			continue
		}
		s.busy = true
		s.mu.Unlock()
		upTo, err := l.sync()
		s.mu.Lock()
		s.busy = false
		if err == nil {
			s.done = max(s.done, upTo)
		}
		s.cond.Broadcast()
	}
}

// sync makes the current file durable; those before it are. A failure ends the
// log: what the disk then holds is not known.
func (l *Log) sync() (upTo uint64, err error) {
	l.mu.RLock()
	f := l.current.acquire()
	m := mark{id: l.header.id, file: f.number, end: f.end, sequence: l.sequence}
	l.mu.RUnlock()
	defer f.release()
	if err := l.files.Sync("sync branch log", f.f); err != nil {
		l.finish(err)
		return 0, err
	}
	// Not synced itself: an old mark is true, too, and this one is there after a
	// kill, when it matters that damage is not taken for a torn end.
	if _, err := l.mark.WriteAt(m.encode(), 0); err != nil {
		err = fmt.Errorf("write flush mark: %w", err)
		l.finish(err)
		return 0, err
	}
	return m.sequence, nil
}
