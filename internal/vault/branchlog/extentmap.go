package branchlog

import "slices"

// extent says where a run of the disk's blocks lies: in the payload of one group
// of one file, or nowhere, as zeros that the file's record tells of.
type extent struct {
	start uint64 // block of the disk
	count uint32
	file  uint32
	pos   uint32 // data: of the first block, in blocks of the file
	index uint8  // data: of the first block in its group
	kind  Kind
}

func (x extent) end() uint64 { return x.start + uint64(x.count) }

// clip returns the part of x in [from, to), which must overlap it.
func (x extent) clip(from, to uint64) extent {
	if from > x.start {
		skip := uint32(from - x.start)
		x.start, x.count = from, x.count-skip
		if x.kind == Data {
			x.pos, x.index = x.pos+skip, x.index+uint8(skip)
		}
	}
	if to < x.end() {
		x.count = uint32(to - x.start)
	}
	return x
}

// continues reports whether y is what follows x, so that they can be one.
func (x extent) continues(y extent) bool {
	if x.end() != y.start || x.file != y.file || x.kind != y.kind || uint64(x.count)+uint64(y.count) >= 1<<32 {
		return false
	}
	return x.kind != Data || x.pos+x.count == y.pos && uint32(x.index)+x.count == uint32(y.index)
}

// leafMax bounds a leaf, so that changing one costs little.
const leafMax = 256

// extentMap is the sorted, non-overlapping extents of the disk: 24 bytes for a
// run, however long, and nothing for what the branch never wrote. They lie in
// leaves that are never empty. It is not safe for concurrent use.
type extentMap struct {
	leaves [][]extent
}

// find returns the place of the first extent that ends after block.
func (m *extentMap) find(block uint64) (leaf, at int) {
	leaf, _ = slices.BinarySearchFunc(m.leaves, block, func(l []extent, b uint64) int {
		if l[len(l)-1].end() <= b {
			return -1
		}
		return 1
	})
	if leaf == len(m.leaves) {
		return leaf, 0
	}
	at, _ = slices.BinarySearchFunc(m.leaves[leaf], block, func(x extent, b uint64) int {
		if x.end() <= b {
			return -1
		}
		return 1
	})
	return leaf, at
}

// walk yields the parts of the extents in [from, to), in order.
func (m *extentMap) walk(from, to uint64, yield func(extent) bool) {
	for leaf, at := m.find(from); leaf < len(m.leaves); leaf, at = leaf+1, 0 {
		for _, x := range m.leaves[leaf][at:] {
			if x.start >= to || !yield(x.clip(from, to)) {
				return
			}
		}
	}
}

// set makes x current and yields what it replaces.
func (m *extentMap) set(x extent, replaced func(extent)) {
	var repl [3]extent // what comes in place of the extents that x touches
	kept := repl[:0]
	first, at := m.find(x.start)
	if first == len(m.leaves) {
		m.append(x)
		return
	}
	last, end := first, at // of the touched extents, exclusive
	var tail *extent
	for last < len(m.leaves) {
		l := m.leaves[last]
		if end == len(l) {
			if last+1 == len(m.leaves) || m.leaves[last+1][0].start >= x.end() {
				break
			}
			last, end = last+1, 0
			continue
		}
		y := l[end]
		if y.start >= x.end() {
			break
		}
		if y.start < x.start {
			kept = append(kept, y.clip(y.start, x.start))
		}
		replaced(y.clip(x.start, x.end()))
		if y.end() > x.end() {
			rest := y.clip(x.end(), y.end())
			tail = &rest
		}
		end++
	}
	if len(kept) == 0 && at > 0 && m.leaves[first][at-1].continues(x) {
		at--
		x = join(m.leaves[first][at], x)
	}
	kept = append(kept, x)
	if tail != nil {
		kept = append(kept, *tail)
	}
	m.splice(first, at, last, end, kept)
}

func join(x, y extent) extent {
	x.count += y.count
	return x
}

// append adds x behind everything else.
func (m *extentMap) append(x extent) {
	n := len(m.leaves) - 1
	if n < 0 {
		m.leaves = append(m.leaves, []extent{x})
		return
	}
	l := m.leaves[n]
	if last := &l[len(l)-1]; last.continues(x) {
		last.count += x.count
		return
	}
	if len(l) == leafMax {
		m.leaves = append(m.leaves, []extent{x})
		return
	}
	m.leaves[n] = append(l, x)
}

// splice replaces the extents from (first, at) up to (last, end) by xs.
func (m *extentMap) splice(first, at, last, end int, xs []extent) {
	if first == last {
		m.leaves[first] = slices.Replace(m.leaves[first], at, end, xs...)
	} else {
		rest := m.leaves[last][end:]
		m.leaves[first] = append(append(m.leaves[first][:at], xs...), rest...)
		m.leaves = slices.Delete(m.leaves, first+1, last+1)
	}
	l := m.leaves[first]
	if len(l) <= leafMax {
		return
	}
	half := len(l) / 2
	m.leaves = slices.Insert(m.leaves, first+1, slices.Clone(l[half:]))
	m.leaves[first] = l[:half:half]
}

// extents counts them, for tests and figures.
func (m *extentMap) extents() (n int) {
	for _, l := range m.leaves {
		n += len(l)
	}
	return n
}
