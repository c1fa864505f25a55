package blocktrack

import "slices"

// Changes are the parts of one disk that may have changed.
type Changes struct {
	All    bool
	Why    string  // with All: why, in words for a log; may be empty
	Ranges []Range // sorted and apart from each other; nil with All
}

// Range is a run of bytes.
type Range struct{ Offset, Length int64 }

// Empty tells whether nothing has changed.
func (c Changes) Empty() bool { return !c.All && len(c.Ranges) == 0 }

// Bytes is the length of all ranges together; 0 with All.
func (c Changes) Bytes() int64 {
	var sum int64
	for _, r := range c.Ranges {
		sum += r.Length
	}
	return sum
}

// Pieces is how many reads of a megabyte would meet all ranges.
func (c Changes) Pieces() int {
	n, next := 0, int64(0)
	for _, r := range c.Ranges {
		first, last := max(r.Offset/readSize, next), (r.Offset+r.Length-1)/readSize
		if last >= first {
			n, next = n+int(last-first)+1, last+1
		}
	}
	return n
}

// Union is what has changed by one account or the other.
func Union(a, b Changes) Changes {
	switch {
	case a.All:
		return a
	case b.All:
		return b
	case len(b.Ranges) == 0:
		return a
	case len(a.Ranges) == 0:
		return b
	}
	return Changes{Ranges: Join(append(slices.Clone(a.Ranges), b.Ranges...))}
}

// Join sorts ranges and joins those that touch or overlap. It works in place.
func Join(ranges []Range) []Range {
	slices.SortFunc(ranges, func(a, b Range) int { return int(min(max(a.Offset-b.Offset, -1), 1)) })
	out := ranges[:0]
	for _, r := range ranges {
		if n := len(out); n > 0 && r.Offset <= out[n-1].Offset+out[n-1].Length {
			out[n-1].Length = max(out[n-1].Length, r.Offset+r.Length-out[n-1].Offset)
		} else {
			out = append(out, r)
		}
	}
	return out
}
