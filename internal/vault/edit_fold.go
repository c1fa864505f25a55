package vault

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"

	"lifeboat/internal/vault/segment"
)

// errVoid: somebody voided the promise that a fold relied on.
var errVoid = errors.New("the promise was voided")

// foldEdit says that some of the segments behind a sequence, up to another one, both of
// which can still be read, are now others: what lies between the two cannot.
type foldEdit struct {
	after, upTo uint64
	done        bool      // nothing there is loose any more
	removed     []removal // ascending
	added       []segmentRef
}

// removal names a segment by both its sequence and its ID: the sequence alone may
// belong to another one since another process folded.
type removal struct {
	seq uint64
	id  segment.ID
}

func (*foldEdit) kind() uint8 { return kindFold }

func (e *foldEdit) put(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, e.after)
	b = binary.LittleEndian.AppendUint64(b, e.upTo)
	done := byte(0)
	if e.done {
		done = 1
	}
	b = append(b, done)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.removed)))
	for _, r := range e.removed {
		b = binary.LittleEndian.AppendUint64(b, r.seq)
		b = append(b, r.id[:]...)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.added)))
	for i := range e.added {
		b = e.added[i].putPlace(b)
		b = e.added[i].putContents(b)
	}
	return b
}

func decodeFold(f *cursor) edit {
	e := &foldEdit{after: f.u64(), upTo: f.u64()}
	switch f.u8() {
	case 0:
	case 1:
		e.done = true
	default:
		f.short = true
	}
	e.removed = make([]removal, f.count(24))
	for i := range e.removed {
		e.removed[i].seq = f.u64()
		copy(e.removed[i].id[:], f.take(16))
	}
	const size = 88 + 24 // of a segment's fields
	e.added = make([]segmentRef, f.count(size))
	for i := range e.added {
		e.added[i] = decodeSegment(f, false).segmentRef
	}
	return e
}

func (e *foldEdit) apply(s *state) error {
	if err := e.check(s); err != nil {
		return err
	}
	all := s.segments.items
	lo := sort.Search(len(all), func(i int) bool { return all[i].seq > e.after })
	hi := sort.Search(len(all), func(i int) bool { return all[i].seq > e.upTo })
	merged, err := e.merge(s, all[lo:hi])
	if err != nil {
		return err
	}
	if len(merged) > 0 && len(e.removed) > 0 {
		// Whoever would read a state in between is told by the last one.
		last := &merged[len(merged)-1]
		last.from, last.to = min(last.from, e.after+1), max(last.to, e.upTo)
		for _, r := range all[lo:hi] { // and of what was folded before
			last.from, last.to = min(last.from, r.from), max(last.to, r.to)
		}
	}
	s.segments = s.segments.spliced(lo, hi, merged, s.private)
	if e.done {
		s.loose = slices.DeleteFunc(slices.Clone(s.loose), func(seq uint64) bool { return e.after < seq && seq < e.upTo })
	}
	return nil
}

// check refuses a fold over anything that must stay readable.
func (e *foldEdit) check(s *state) error {
	start := uint64(0)
	if s.base != nil {
		start = s.base.seq
	}
	if e.after < start || e.after >= e.upTo || e.upTo > s.seq {
		return fmt.Errorf("fold of %d to %d in a branch of %d to %d", e.after, e.upTo, start, s.seq)
	}
	points := s.points.items
	i := sort.Search(len(points), func(i int) bool { return points[i].seq > e.after })
	if i < len(points) && points[i].seq < e.upTo {
		return fmt.Errorf("fold of %d to %d over point %s", e.after, e.upTo, points[i].point.ID)
	}
	for _, h := range s.holds {
		if e.after < h.seq && h.seq < e.upTo {
			return fmt.Errorf("fold of %d to %d over the begin of branch %s", e.after, e.upTo, h.branch)
		}
	}
	return nil
}

// merge returns the segments of the gap as they are afterwards.
func (e *foldEdit) merge(s *state, before []segmentRef) ([]segmentRef, error) {
	out := make([]segmentRef, 0, len(before))
	removed := e.removed
	for _, r := range before {
		if len(removed) > 0 && removed[0] == (removal{r.seq, r.id}) {
			removed = removed[1:]
			if r.host != 0 {
				s.outlived += r.length
			}
			continue
		}
		out = append(out, r)
	}
	if len(removed) > 0 {
		return nil, fmt.Errorf("fold removes segment %s, which is not there", removed[0].id)
	}
	if len(e.added) > len(e.removed) {
		return nil, fmt.Errorf("fold makes %d segments of %d", len(e.added), len(e.removed))
	}
	for _, r := range e.added {
		if err := r.check(); err != nil {
			return nil, err
		}
		r.branch = s.branch
		i := sort.Search(len(out), func(i int) bool { return out[i].seq >= r.seq })
		if r.host != 0 || r.seq <= e.after || r.seq > e.upTo || i < len(out) && out[i].seq == r.seq {
			return nil, fmt.Errorf("fold adds segment %d, which does not fit", r.seq)
		}
		out = slices.Insert(out, i, r)
	}
	return out, nil
}
