package ebpf

import (
	"math/bits"

	"lifeboat/internal/source/blocktrack"
)

// geometry is how the bits of a disk lie in its bitmaps: a bit for each grain,
// and behind those, from a word of their own on, a bit for each coarseGrains
// grains, for ranges that are long.
type geometry struct {
	shift  uint  // a grain is 1<<shift bytes
	grains int64 // of the disk
}

const (
	minShift = 12 // 4 KiB: no filesystem writes less
	maxShift = 16 // 64 KiB: what is read and compared at once

	coarseShift = 12
	// fineMemory is what the bitmaps of all disks together may take at the finest
	// grain, in bytes: 1 TiB of disks.
	fineMemory = 64 << 20
)

// shiftFor chooses the finest grain with which the bitmaps of disks of so many
// bytes stay within fineMemory, and the coarsest where none does.
func shiftFor(bytes int64) uint {
	for shift := uint(minShift); shift < maxShift; shift++ {
		if 2*(bytes>>shift)/8 <= fineMemory {
			return shift
		}
	}
	return maxShift
}

func (g geometry) fineWords() int64 { return (g.grains + 63) / 64 }

func (g geometry) words() int64 {
	coarse := (g.grains + 1<<coarseShift - 1) >> coarseShift
	return g.fineWords() + (coarse+63)/64
}

// ranges returns what the bitmap says. Ranges that touch are joined; the last one
// may reach beyond the end of the disk.
func (g geometry) ranges(words []uint64) []blocktrack.Range {
	fine, coarse := words[:g.fineWords()], words[g.fineWords():]
	var out runs
	takeWord := func(w int) {
		if word := fine[w]; word != 0 {
			out.word(int64(w)*64, word, g.shift)
		}
	}
	const perCoarse = 1 << coarseShift / 64 // fine words under a coarse bit
	for c := 0; c < len(coarse); c++ {
		if coarse[c] == 0 {
			for w := c * 64 * perCoarse; w < min((c+1)*64*perCoarse, len(fine)); w++ {
				takeWord(w)
			}
			continue
		}
		for bit := range 64 {
			start := (c*64 + bit) * perCoarse
			end := min(start+perCoarse, len(fine))
			switch {
			case start >= len(fine):
			case coarse[c]>>bit&1 != 0:
				out.add(int64(start)*64<<g.shift, int64(end)*64<<g.shift)
			default:
				for w := start; w < end; w++ {
					takeWord(w)
				}
			}
		}
	}
	return out.list
}

// wipe clears a bitmap and leaves memory alone that is clear: the pages of a large
// disk's bitmap are many.
func wipe(words []uint64) {
	for i, word := range words {
		if word != 0 {
			words[i] = 0
		}
	}
}

// runs joins ranges that come in order.
type runs struct{ list []blocktrack.Range }

func (r *runs) add(start, end int64) {
	if n := len(r.list); n > 0 {
		if last := &r.list[n-1]; last.Offset+last.Length == start {
			last.Length = end - last.Offset
			return
		}
	}
	r.list = append(r.list, blocktrack.Range{Offset: start, Length: end - start})
}

// word adds the runs of set bits of a word whose first bit is the given grain.
func (r *runs) word(grain int64, word uint64, shift uint) {
	for word != 0 {
		low := bits.TrailingZeros64(word)
		n := bits.TrailingZeros64(^(word >> low))
		r.add((grain+int64(low))<<shift, (grain+int64(low+n))<<shift)
		if low+n == 64 {
			return
		}
		word &^= 1<<(low+n) - 1
	}
}

// clip returns what lies in a part of the disk, as offsets in that part.
func clip(ranges []blocktrack.Range, offset, size int64) []blocktrack.Range {
	var out []blocktrack.Range
	for _, r := range ranges {
		start, end := max(r.Offset, offset), min(r.Offset+r.Length, offset+size)
		if start < end {
			out = append(out, blocktrack.Range{Offset: start - offset, Length: end - start})
		}
	}
	return out
}
