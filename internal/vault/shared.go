package vault

import (
	"slices"
	"sync/atomic"
)

// shared is a list that only grows at its end and that many states see, each up to
// its own length. Going on from an older state never changes what others see.
type shared[T any] struct {
	items []T
	// taken is how many slots of the array under items any holder uses: who moves
	// it from its own length on has the next slot to itself.
	taken *atomic.Int64
}

// newShared returns an empty list with room.
func newShared[T any](room int) shared[T] {
	return shared[T]{make([]T, 0, room), new(atomic.Int64)}
}

// with returns the list with item at its end.
func (s shared[T]) with(item T) shared[T] {
	n := int64(len(s.items))
	if s.taken != nil && s.taken.CompareAndSwap(n, n+1) {
		return shared[T]{append(s.items, item), s.taken}
	}
	taken := new(atomic.Int64)
	taken.Store(n + 1)
	return shared[T]{append(slices.Clip(s.items), item), taken}
}
