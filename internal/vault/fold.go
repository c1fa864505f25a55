package vault

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"

	"lifeboat/internal/vault/segment"
)

// Folded says what folding did.
type Folded struct {
	Gaps     int   // looked into
	Removed  int   // segments that were replaced, or were dead
	Added    int   // segments that took their place
	Written  int64 // bytes of these
	Deferred bool  // there is more to do
	Outrun   bool  // another process was faster, and what was written is of no use
}

func (f *Folded) add(g Folded) {
	f.Gaps, f.Removed, f.Added, f.Written = f.Gaps+g.Gaps, f.Removed+g.Removed, f.Added+g.Added, f.Written+g.Written
	f.Deferred, f.Outrun = f.Deferred || g.Deferred, f.Outrun || g.Outrun
}

// foldTask is what one fold is going to do to one gap.
type foldTask struct {
	s    *survey
	now  []stretch
	done bool
	ids  [][]segment.ID // for each stretch
}

// fold merges what lies between the moments that must stay readable, and commits it at
// once. It rewrites no more than the limit, about, and returns the segments
// that are no longer needed.
func (b *branch) fold(ctx context.Context, lasting map[uint64]bool, did *Folded) (dead []segmentRef, err error) {
	st, err := b.latest(ctx)
	if err != nil {
		return nil, err
	}
	left := b.v.limits.foldBytes
	var tasks []foldTask
	for _, g := range st.gaps(b.pins(), lasting) {
		if !g.due(b.v.limits) {
			continue
		}
		if left <= 0 || len(tasks) == maxGaps {
			did.Deferred = true
			break
		}
		s, err := b.survey(ctx, g)
		var stretches []stretch
		if err == nil {
			stretches, err = b.plan(ctx, s)
		}
		if missing(err) && b.moved(ctx, g.refs) {
			did.Outrun = true
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		t := foldTask{s: s}
		t.now, t.done = s.cut(stretches, &left)
		for _, st := range t.now {
			t.ids = append(t.ids, st.newIDs(b.v.limits))
		}
		did.Gaps++
		did.Deferred = did.Deferred || !t.done
		if len(t.now) > 0 || t.done && g.loose > 0 {
			tasks = append(tasks, t)
		}
	}
	if len(tasks) == 0 {
		return nil, nil
	}
	return b.carryOut(ctx, st.base, tasks, did)
}

// moved tells whether somebody else has folded any of these segments, which is why one
// is missing.
func (b *branch) moved(ctx context.Context, refs []segmentRef) bool {
	now, err := b.current(ctx)
	if err != nil {
		return false
	}
	there := make(map[segment.ID]bool, len(now.segments.items))
	for i := range now.segments.items {
		there[now.segments.items[i].id] = true
	}
	return slices.ContainsFunc(refs, func(r segmentRef) bool { return !there[r.id] })
}

// maxGaps bounds the maps held in memory at a time.
const maxGaps = 64

// carryOut writes the new segments and commits them. What it is about to write it
// promises first, so that no collector takes it for garbage.
func (b *branch) carryOut(ctx context.Context, base *base, tasks []foldTask, did *Folded) (dead []segmentRef, err error) {
	var mine promise
	rand.Read(mine.id[:])
	for _, t := range tasks {
		mine.segments = slices.Concat(append([][]segment.ID{mine.segments}, t.ids...)...)
	}
	if len(mine.segments) > 0 {
		if _, err := b.amend(ctx, func(*state) (proposal, error) { return propose(promiseEdit{mine}), nil }); err != nil {
			return nil, err
		}
	}
	var edits []edit
	var written []segmentRef
	for _, t := range tasks {
		e := &foldEdit{after: t.s.after, upTo: t.s.upTo, done: t.done}
		for i, st := range t.now {
			w := rewriter{b: b, s: t.s, at: st, ids: t.ids[i], first: t.s.bottom(st, base)}
			out, err := w.run(ctx)
			if missing(err) && b.moved(ctx, t.s.refs) {
				did.Outrun = true
				return nil, b.void(ctx, mine.id)
			}
			if err != nil {
				return nil, errors.Join(err, b.void(ctx, mine.id))
			}
			e.added = append(e.added, out...)
			for j := st.lo; j < st.hi; j++ {
				r := t.s.refs[j]
				e.removed = append(e.removed, removal{r.seq, r.id})
				dead = append(dead, r)
			}
			for j := range out {
				did.Written += out[j].length
			}
		}
		written = append(written, e.added...)
		edits = append(edits, e)
	}
	if len(mine.segments) > 0 {
		edits = append(edits, fulfilEdit(mine.id))
	}
	_, err = b.amend(ctx, func(*state) (proposal, error) { return propose(edits...), nil })
	if errors.Is(err, errUnfit) {
		// What was written is garbage, most likely: a collector makes sure.
		did.Outrun = true
		return nil, b.void(ctx, mine.id)
	}
	if err != nil {
		return nil, err
	}
	did.Removed += len(dead)
	did.Added += len(written)
	if len(dead) > 0 {
		b.remerge(dead[0].seq)
	}
	return dead, nil
}

// void ends a promise that will not be kept, if it is still there.
func (b *branch) void(ctx context.Context, id [16]byte) error {
	_, err := b.amend(ctx, func(st *state) (proposal, error) {
		if st.findPromise(id) < 0 {
			return proposal{}, nil
		}
		return propose(fulfilEdit(id)), nil
	})
	return err
}

// remerge has the map runs made anew that cover a sequence or later ones.
func (b *branch) remerge(seq uint64) {
	b.mu.Lock()
	b.merged = min(b.merged, seq-1)
	b.mu.Unlock()
	b.mergeRuns(0, uint64(b.v.limits.fanout))
}
