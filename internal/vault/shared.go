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

// filter returns the list of those that keep wants. In place the list itself is
// changed: nobody else may see it.
func (s shared[T]) filter(keep func(T) bool, inPlace bool) shared[T] {
	if !inPlace {
		s = newShared[T](len(s.items)).join(s.items)
	}
	kept := s.items[:0]
	for _, item := range s.items {
		if keep(item) {
			kept = append(kept, item)
		}
	}
	return sharedOf(kept)
}

// replaced returns the list with another item at i.
func (s shared[T]) replaced(i int, item T, inPlace bool) shared[T] {
	if !inPlace {
		s = newShared[T](len(s.items)).join(s.items)
	}
	s.items[i] = item
	return s
}

// spliced returns the list with items [lo, hi) replaced.
func (s shared[T]) spliced(lo, hi int, items []T, inPlace bool) shared[T] {
	if !inPlace {
		s = newShared[T](len(s.items)).join(s.items)
	}
	return sharedOf(slices.Replace(s.items, lo, hi, items...))
}

// join returns a list of its own that begins as s and goes on with items.
func (s shared[T]) join(items []T) shared[T] { return sharedOf(append(s.items, items...)) }

// sharedOf takes over a slice whose array nobody else uses.
func sharedOf[T any](items []T) shared[T] {
	taken := new(atomic.Int64)
	taken.Store(int64(len(items)))
	return shared[T]{items, taken}
}
