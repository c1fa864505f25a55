// Package extent keeps maps from the blocks of a volume to where their bytes lie:
// sorted lists of runs that do not overlap. It does no I/O.
package extent

import "slices"

// ZeroPos as a position means that the blocks are zeros.
const ZeroPos = ^uint32(0)

// Record maps Count blocks from Block on to the positions from Pos on of one
// segment. What Seg counts is up to the owner of the list; it is 0 for zeros.
type Record struct {
	Block uint64
	Count uint32
	Seg   uint32
	Pos   uint32
}

// End returns the first block after the record.
func (r Record) End() uint64 { return r.Block + uint64(r.Count) }

// Zero tells whether the blocks are zeros.
func (r Record) Zero() bool { return r.Pos == ZeroPos }

// from returns the part of r that begins at block.
func (r Record) from(block uint64) Record {
	cut := uint32(block - r.Block)
	r.Block, r.Count = block, r.Count-cut
	if !r.Zero() {
		r.Pos += cut
	}
	return r
}

// upTo returns the part of r that ends before block.
func (r Record) upTo(block uint64) Record {
	r.Count = uint32(block - r.Block)
	return r
}

// Append adds r after the last record of m, melting the two where they continue
// each other.
func Append(m []Record, r Record) []Record {
	if n := len(m); n > 0 {
		last := &m[n-1]
		joins := last.End() == r.Block && last.Seg == r.Seg && last.Count+r.Count > last.Count &&
			(last.Zero() && r.Zero() || !last.Zero() && !r.Zero() && last.Pos+last.Count == r.Pos)
		if joins {
			last.Count += r.Count
			return m
		}
	}
	return append(m, r)
}

// Overlay returns older with newer laid on top. Neither is changed; the result
// may be one of them.
func Overlay(older, newer []Record) []Record {
	if len(older) == 0 {
		return newer
	}
	if len(newer) == 0 {
		return older
	}
	out := make([]Record, 0, len(older)+len(newer)+1)
	for _, o := range older {
		for o.Count > 0 {
			if len(newer) == 0 || newer[0].Block >= o.End() {
				out = Append(out, o)
				break
			}
			n := newer[0]
			if n.End() <= o.Block {
				out = Append(out, n)
				newer = newer[1:]
				continue
			}
			if o.Block < n.Block {
				out = Append(out, o.upTo(n.Block))
				o = o.from(n.Block)
			}
			if o.End() <= n.End() {
				break // wholly hidden
			}
			o = o.from(n.End())
		}
	}
	for _, n := range newer {
		out = Append(out, n)
	}
	return out
}

// Merge overlays layers, given oldest first.
func Merge(layers [][]Record) []Record {
	switch len(layers) {
	case 0:
		return nil
	case 1:
		return layers[0]
	}
	half := len(layers) / 2
	return Overlay(Merge(layers[:half]), Merge(layers[half:]))
}

// Resolve turns a log of records, in which later ones win, into a map.
func Resolve(log []Record) []Record {
	var layers [][]Record
	begin := 0
	for i := 1; i <= len(log); i++ {
		if i == len(log) || log[i].Block < log[i-1].End() {
			layers = append(layers, log[begin:i:i])
			begin = i
		}
	}
	return Merge(layers)
}

// Find returns the index of the first record that ends after block.
func Find(m []Record, block uint64) int {
	i, _ := slices.BinarySearchFunc(m, block, func(r Record, b uint64) int {
		if r.End() <= b {
			return -1
		}
		return 1
	})
	return i
}

// Sorted tells whether m is a map: in order, without overlaps or empty records.
func Sorted(m []Record) bool {
	end := uint64(0)
	for _, r := range m {
		if r.Count == 0 || r.Block < end || r.End() < r.Block {
			return false
		}
		end = r.End()
	}
	return true
}
