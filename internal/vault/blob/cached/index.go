package cached

import (
	"container/list"
	"sync"
)

// index knows which blocks are kept, and which were used least recently. Safe for
// concurrent use.
type index struct {
	limit int64

	mu    sync.Mutex
	used  int64                 // bytes; guarded by mu
	byKey map[key]*list.Element // guarded by mu
	order *list.List            // of entry, newest first; guarded by mu
}

type entry struct {
	key  key
	size int64
}

func newIndex(limit int64) *index {
	return &index{limit: limit, byKey: map[key]*list.Element{}, order: list.New()}
}

func (x *index) bytes() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.used
}

// touch tells whether a block is kept, and notes that it is of use.
func (x *index) touch(k key) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	e, ok := x.byKey[k]
	if ok {
		x.order.MoveToFront(e)
	}
	return ok
}

// add notes a block and returns those that must go for it.
func (x *index) add(k key, size int64) (evicted []key) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.removeLocked(k)
	x.byKey[k] = x.order.PushFront(entry{k, size})
	x.used += size
	for x.used > x.limit && x.order.Len() > 1 {
		old := x.order.Back().Value.(entry).key
		x.removeLocked(old)
		evicted = append(evicted, old)
	}
	return evicted
}

func (x *index) remove(k key) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.removeLocked(k)
}

func (x *index) removeLocked(k key) {
	if e, ok := x.byKey[k]; ok {
		x.used -= x.order.Remove(e).(entry).size
		delete(x.byKey, k)
	}
}
