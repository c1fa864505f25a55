package vault

import (
	"container/list"
	"sync"
)

// stateList lets go of the states of branches that were not used for long, when
// all together take too much memory: they are read again when they are needed.
type stateList struct {
	limit int64

	mu      sync.Mutex
	used    int64                     // guarded by mu
	order   list.List                 // of *branch, newest first; guarded by mu
	weights map[*branch]*list.Element // guarded by mu
}

type weighed struct {
	b      *branch
	weight int64
}

// keep notes that b was used and how much its state weighs. The caller holds b.mu.
func (l *stateList) keep(b *branch, weight int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.weights == nil {
		l.weights = map[*branch]*list.Element{}
	}
	if e := l.weights[b]; e != nil {
		l.used += weight - e.Value.(weighed).weight
		e.Value = weighed{b, weight}
		l.order.MoveToFront(e)
	} else {
		l.used += weight
		l.weights[b] = l.order.PushFront(weighed{b, weight})
	}
	for e := l.order.Back(); e != nil && l.used > l.limit; {
		before := e.Prev()
		// One that is busy is not idle.
		if old := e.Value.(weighed); old.b != b && old.b.mu.TryLock() {
			if old.b.damage == nil {
				old.b.st = nil
			}
			old.b.mu.Unlock()
			l.removeLocked(e)
		}
		e = before
	}
}

// drop forgets b.
func (l *stateList) drop(b *branch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.weights[b]; e != nil {
		l.removeLocked(e)
	}
}

func (l *stateList) removeLocked(e *list.Element) {
	old := l.order.Remove(e).(weighed)
	delete(l.weights, old.b)
	l.used -= old.weight
}
