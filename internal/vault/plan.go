package vault

import (
	"context"
	"slices"
	"sort"
)

// gap is what lies between two moments of a branch that must stay readable, and none
// in between that must. Folding never looks beyond one.
type gap struct {
	after, upTo uint64
	lasting     bool // upTo is likely to stay a while
	refs        []segmentRef
	loose       int // moments within where points were
	inline      int // segments that lie in manifests
	crowded     bool
}

// gaps returns those in which there is something to fold, oldest first. Pins are more
// moments that must stay, lasting those that will for longer.
func (s *state) gaps(pins []uint64, lasting map[uint64]bool) []gap {
	start := uint64(0)
	if s.base != nil {
		start = s.base.seq
	}
	cuts := append([]uint64{s.seq}, pins...)
	for _, p := range s.points.items {
		cuts = append(cuts, p.seq)
	}
	for _, h := range s.holds {
		cuts = append(cuts, h.seq)
	}
	slices.Sort(cuts)
	cuts = slices.Compact(slices.DeleteFunc(cuts, func(seq uint64) bool { return seq <= start || seq > s.seq }))
	sparse := s.sparse()
	all := s.segments.items
	var out []gap
	for after, i, l := start, 0, 0; len(cuts) > 0; cuts = cuts[1:] {
		g := gap{after: after, upTo: cuts[0], lasting: lasting[cuts[0]] || s.heldAt(cuts[0])}
		begin := i
		for ; i < len(all) && all[i].seq <= g.upTo; i++ {
			if all[i].host != 0 {
				g.inline++
				g.crowded = g.crowded || g.lasting && all[i].host < sparse
			}
		}
		g.refs = all[begin:i:i]
		for ; l < len(s.loose) && s.loose[l] <= g.upTo; l++ {
			if s.loose[l] > g.after && s.loose[l] < g.upTo {
				g.loose++
			}
		}
		if len(g.refs) > 0 && (g.loose > 0 || g.inline > 1 || g.crowded) {
			out = append(out, g)
		}
		after = g.upTo
	}
	return out
}

// sparse returns the manifest before which what is inline had better be moved out: few
// segments that keep many manifests from being deleted.
func (s *state) sparse() (limit uint64) {
	first, n := uint64(0), uint64(0)
	upTo := func(next uint64) {
		if n > 0 && next-first > 8*n {
			limit = next
		}
	}
	for i := range s.segments.items {
		h := s.segments.items[i].host
		if h == 0 {
			continue
		}
		if h >= s.restated.floor {
			break
		}
		upTo(h)
		if n++; first == 0 {
			first = h
		}
	}
	upTo(s.restated.floor)
	return limit
}

// due tells whether it is time to fold the gap. Where the end is about to move, as that
// of the oldest epoch of the journal, it is put off until a whole segment comes of it, so
// that no byte is rewritten again and again.
func (g *gap) due(l limits) bool {
	if g.lasting {
		return true
	}
	bytes := int64(0)
	for i := range g.refs {
		if r := &g.refs[i]; r.small(l) {
			bytes += r.length
		}
	}
	return bytes >= 2*int64(l.segmentBytes) || max(g.loose, g.inline) >= l.foldCount
}

// small tells whether a segment had better be melted with others.
func (r *segmentRef) small(l limits) bool { return r.host != 0 || r.length < int64(l.segmentBytes)/4 }

// meltCount is how many small segments are melted although they are no full one together.
const meltCount = 8

// stretch is neighbouring segments, refs[lo:hi] of a gap, that are rewritten into fewer.
type stretch struct {
	lo, hi int
	live   int64 // bytes, about
}

// class says what to do with a segment.
type class uint8

const (
	keep  class = iota
	melt        // with neighbours, if there are enough of them
	move        // in any case
	erase       // nothing reads it
)

// survey is what is known of a gap from its map.
type survey struct {
	gap
	maps volumeMaps // Seg counts refs
	live []int64    // blocks of each segment that are read
}

func (b *branch) survey(ctx context.Context, g gap) (*survey, error) {
	m := mapper{b: b, segs: g.refs, after: g.after, upTo: g.upTo}
	maps, err := m.merge(ctx)
	if err != nil {
		return nil, err
	}
	s := &survey{gap: g, maps: maps, live: make([]int64, len(g.refs))}
	for _, records := range maps {
		for _, r := range records {
			if !r.Zero() {
				s.live[r.Seg] += int64(r.Count)
			}
		}
	}
	return s, nil
}

// classify says what becomes of segment i.
func (b *branch) classify(ctx context.Context, s *survey, i int) (class, error) {
	r := &s.refs[i]
	live, l := s.live[i], b.v.limits
	if live == 0 {
		zeros := r.zeros
		if !r.known() {
			ix, err := b.v.readIndex(ctx, b.server, b.key, r)
			if err != nil {
				return keep, err
			}
			for _, vol := range ix.Volumes {
				for _, rec := range vol.Extents {
					if rec.Zero() {
						zeros++
					}
				}
			}
		}
		switch {
		case zeros == 0:
			return erase, nil // what hides it hides what it hid
		case r.host != 0:
			return move, nil
		}
		return melt, nil
	}
	total := int64(r.blocks)
	if !r.known() {
		total = r.length / BlockSize // at least
	}
	const most, of = 6, 10 // rewritten when less than this is live
	switch {
	case r.host != 0 || live*of < total*most:
		return move, nil
	case r.small(l):
		return melt, nil
	}
	return keep, nil
}

// plan chooses what to rewrite. A small segment is melted only with others that are
// together twice as large: so a byte is rewritten few times, however often
// there is something to fold.
func (b *branch) plan(ctx context.Context, s *survey) ([]stretch, error) {
	classes, live := make([]class, len(s.refs)), make([]int64, len(s.refs))
	for i := range s.refs {
		var err error
		if classes[i], err = b.classify(ctx, s, i); err != nil {
			return nil, err
		}
		live[i] = s.refs[i].length
		if n := int64(s.refs[i].blocks); n > 0 {
			live[i] = live[i] * min(s.live[i], n) / n
		}
	}
	var out []stretch
	for lo := 0; lo < len(classes); {
		if classes[lo] == keep {
			lo++
			continue
		}
		hi := lo
		for hi < len(classes) && classes[hi] != keep {
			hi++
		}
		spare(classes[lo:hi], live[lo:hi])
		lo = hi
	}
	for lo := 0; lo < len(classes); {
		if classes[lo] == keep {
			lo++
			continue
		}
		st, melted, moved, bytes := stretch{lo: lo, hi: lo}, 0, 0, int64(0)
		for ; st.hi < len(classes) && classes[st.hi] != keep; st.hi++ {
			switch classes[st.hi] {
			case melt:
				melted, bytes = melted+1, bytes+live[st.hi]
			case move:
				moved++
			}
			if classes[st.hi] != erase {
				st.live += live[st.hi]
			}
		}
		lo = st.hi
		if moved > 0 || melted >= meltCount || melted > 1 && bytes >= int64(b.v.limits.segmentBytes)/2 {
			out = append(out, st)
			continue
		}
		for i := st.lo; i < st.hi; i++ {
			if classes[i] == erase {
				out = append(out, stretch{lo: i, hi: i + 1})
			}
		}
	}
	return out, nil
}

// spare keeps the segments that are large beside all others of their neighbourhood.
func spare(classes []class, live []int64) {
	total := int64(0)
	for i, c := range classes {
		if c != erase {
			total += live[i]
		}
	}
	order := make([]int, len(classes))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(i, j int) bool { return live[order[i]] > live[order[j]] })
	for _, i := range order {
		if classes[i] == melt && 2*live[i] > total-live[i] {
			classes[i] = keep
			total -= live[i]
		}
	}
}

// cut shortens stretches to what may be rewritten now; left is what is left of it. All
// tells whether nothing was put off.
func (s *survey) cut(stretches []stretch, left *int64) (now []stretch, all bool) {
	for _, st := range stretches {
		if *left <= 0 && st.live > 0 {
			return now, false
		}
		bytes, hi := int64(0), st.lo
		for ; hi < st.hi && (bytes < *left || st.live == 0); hi++ {
			bytes += s.refs[hi].length
		}
		if st.live > 0 {
			*left -= bytes
		}
		if hi < st.hi {
			return append(now, stretch{st.lo, hi, min(st.live, bytes)}), false
		}
		now = append(now, st)
	}
	return now, true
}
