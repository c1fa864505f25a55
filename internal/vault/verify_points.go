package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/extent"
	"lifeboat/internal/vault/seal"
	"lifeboat/internal/vault/segment"
)

// references are what the branches of a server need of its objects.
type references struct {
	server   drs.SourceServerID
	key      seal.Key
	branches []reference
	segments map[string]*segmentRef // objects of their own, by the ID in the name
	inline   map[place]*segmentRef  // by the manifest that carries them
	begins   map[string]bool        // checkpoints at which reading a branch may begin, older manifests being gone
}

// derived tells whether an object is made again by itself when it is lost.
func (r *references) derived(name string, kind objectKind) bool {
	return kind.derived() && (r == nil || !r.begins[name])
}

type reference struct {
	b  *branch
	st *state
}

// names tells whether the object is needed.
func (r *references) names(object string) bool {
	return r.segments[object] != nil || r.begins[object] || r.inline[placeOf(object)] != nil
}

// segmentNamed returns the segment that is an object; nil: nobody needs it.
func (r *references) segmentNamed(name string) *segmentRef {
	if r == nil {
		return nil
	}
	return r.segments[name]
}

// inlineIn returns the segment that a manifest carries.
func (r *references) inlineIn(at place) *segmentRef {
	if r == nil {
		return nil
	}
	return r.inline[at]
}

// server checks one server. Done and weight say which part of all the work it is.
func (f *verifier) server(ctx context.Context, folder string, done, weight float64) error {
	names, err := walk(ctx, f.store, folder)
	if err != nil {
		return err
	}
	id, err := drs.ParseSourceServerID(strings.Trim(strings.TrimPrefix(folder, serversFolder), "/"))
	if err != nil || f.v == nil {
		return f.objects(ctx, names, nil, done, weight) // which tell what is unknown
	}
	defer f.v.forgetServer(id) // the next one's lists take their place
	verdict := ServerVerdict{Server: id, Hurt: []drs.RecoverySnapshotID{}, Unhurt: []drs.RecoverySnapshotID{}}
	refs, err := f.references(ctx, id)
	if none := errors.Is(err, ErrAbsent) || err == nil && len(refs.branches) == 0 && len(f.found) == 0; none {
		lost, failed := f.v.lostMain(ctx, id)
		switch {
		case failed != nil:
			return failed
		case lost == nil: // that its objects are going is no damage
			return f.objects(ctx, names, refs, done, weight)
		case err == nil:
			verdict.Err = lost.Error()
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		// Without its key or with a manifest of a newer version nothing is known of its
		// points; that must not keep the other servers from being checked.
		verdict.Err = err.Error()
		f.report.Servers = append(f.report.Servers, verdict)
		return f.objects(ctx, names, nil, done, weight)
	}
	if err := f.objects(ctx, names, refs, done, weight); err != nil {
		return err
	}
	if err := f.absent(ctx, refs, names); err != nil {
		return err
	}
	if err := f.runs(ctx, refs, names); err != nil {
		return err
	}
	if err := f.hurt(ctx, refs); err != nil {
		return err
	}
	if err := f.recall(ctx, id); err != nil {
		return err
	}
	f.judge(refs, &verdict)
	f.report.Servers = append(f.report.Servers, verdict)
	return nil
}

// references reads the newest state of all branches. Damage to the manifests
// themselves is noted.
func (f *verifier) references(ctx context.Context, id drs.SourceServerID) (*references, error) {
	key, err := f.v.dataKey(ctx, id)
	if err != nil {
		return nil, err
	}
	r := &references{server: id, key: key, segments: map[string]*segmentRef{}, inline: map[place]*segmentRef{}, begins: map[string]bool{}}
	damage, err := f.v.eachBranch(ctx, id, func(b *branch, st *state) bool {
		r.branches = append(r.branches, reference{b, st})
		if st.restated.checkpoint > 0 {
			r.begins[checkpointName(id, b.name, st.restated.checkpoint)] = true
		}
		if st.restated.floor > 1 {
			r.begins[checkpointName(id, b.name, st.restated.floor)] = true
		}
		for i := range st.segments.items {
			ref := &st.segments.items[i]
			if ref.host == 0 {
				r.segments[ref.object(id)] = ref
			} else {
				r.inline[place{kindOfManifest, id, ref.branch, ref.host}] = ref
			}
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	for _, err := range split(damage) {
		n := finding{Damage: Damage{Server: id}}
		var whole *DamageError
		var corrupt *CorruptError
		if errors.As(err, &whole) {
			n.Points = whole.Points
		}
		if errors.As(err, &corrupt) {
			n.Object = corrupt.Object
			// The point that a manifest made is named in it alone.
			n.PointsUnknown = placeOf(corrupt.Object).kind == kindOfManifest
		}
		if err := f.note(err, n); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// split undoes errors.Join, however deep.
func split(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range joined.Unwrap() {
			out = append(out, split(e)...)
		}
		return out
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

// absent looks for segments and checkpoints that are needed and were not listed. Some were made after
// the listing, others folded away since: only what the newest state needs is missed.
func (f *verifier) absent(ctx context.Context, refs *references, names []string) error {
	there := make(map[string]bool, len(names))
	for _, name := range names {
		there[name] = true
	}
	gone := func(r *references) (out map[string]*segmentRef, err error) {
		out = map[string]*segmentRef{}
		check := func(object string, ref *segmentRef) {
			if there[object] || err != nil {
				return
			}
			_, failed := f.store.Size(ctx, object)
			switch {
			case failed == nil:
				there[object] = true
			case errors.Is(failed, blob.ErrAbsent):
				out[object] = ref
			default:
				err = failed
			}
		}
		for _, ref := range r.segments {
			check(ref.object(r.server), ref)
		}
		for _, ref := range r.inline {
			check(ref.object(r.server), ref)
		}
		for name := range r.begins {
			check(name, nil)
		}
		return out, err
	}
	missed, err := gone(refs)
	if err != nil || len(missed) == 0 {
		return err
	}
	// What upkeep deletes, no state names any more that is read after the deletion.
	again, err := f.references(ctx, refs.server)
	if err != nil {
		return err
	}
	*refs = *again
	for object, ref := range missed {
		if !refs.names(object) {
			continue
		}
		err := &CorruptError{Object: object, Reason: "absent, although it is needed"}
		if err := f.note(err, finding{Damage: Damage{Object: object, Server: refs.server}, segment: ref, absent: true}); err != nil {
			return err
		}
	}
	return nil
}

// runs checks that each map run in the share says what the segments it stands for
// say. They are sealed, so that only a fault of this program could make it differ.
func (f *verifier) runs(ctx context.Context, refs *references, names []string) error {
	there := map[string]bool{}
	for _, name := range names {
		if placeOf(name).kind == kindOfRun && f.opt.Share.holds(name) && name > f.opt.After {
			there[name] = true
		}
	}
	for _, r := range refs.branches {
		segs, err := r.b.lineage(ctx, r.st, r.st.seq)
		if damaged(err) {
			continue // told already
		}
		if err != nil {
			return err
		}
		m := mapper{b: r.b, segs: segs, upTo: r.st.seq}
		for level := 1; len(there) > 0 && len(segs) > 0 && m.size(level) <= r.st.seq; level++ {
			for i := 0; i < len(segs); {
				s, ok := m.group(level, i)
				if !ok {
					i++
					continue
				}
				i = s.hi
				name := m.runName(s)
				if !there[name] {
					continue
				}
				delete(there, name)
				if err := f.run1(ctx, m, s, name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (f *verifier) run1(ctx context.Context, m mapper, s span, name string) error {
	f.large.Lock()
	defer f.large.Unlock()
	stored, err := m.readRun(ctx, s)
	if m.runMissing(err) {
		return nil // gone by now, or told already
	}
	if err != nil {
		return err
	}
	want, err := m.readParts(ctx, s)
	if damaged(err) || errors.Is(err, ErrNewerFormat) {
		return nil // told as damage of a segment
	}
	if err != nil {
		return err
	}
	same := len(stored) == len(want)
	for id, records := range want {
		same = same && slices.Equal(stored[id], records)
	}
	if same {
		return nil
	}
	return f.note(&CorruptError{Object: name, Reason: "it differs from the segments that it stands for"},
		finding{Damage: Damage{Object: name, Server: m.b.server, Derived: true}})
}

// hurt finds out which points read from what is damaged. Along a branch a damaged
// frame is read by the points from its epoch on, until all its blocks are
// overwritten: so few points have to be opened to find the last one. Where the index of a
// segment is lost maps cannot be made, and which of several is why nothing tells: all are opened.
func (f *verifier) hurt(ctx context.Context, refs *references) error {
	var bad []*finding
	for _, n := range f.found {
		if n.segment != nil {
			bad = append(bad, n)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	again, err := f.references(ctx, refs.server) // as it is now, after whatever upkeep did
	if err != nil {
		return err
	}
	*refs = *again
	slices.SortFunc(bad, func(a, b *finding) int { return strings.Compare(a.Object, b.Object) })
	for _, r := range refs.branches {
		points := r.st.points.items
		memo := make([][]bool, len(points))
		var failed error
		reads := func(i, n int) bool {
			if memo[i] == nil && failed == nil {
				memo[i], failed = f.readsFrom(ctx, r, points[i], bad)
			}
			return failed == nil && memo[i][n]
		}
		for n, found := range bad {
			first := sort.Search(len(points), func(i int) bool { return points[i].seq >= found.segment.seq })
			end := len(points)
			if found.frames != nil {
				end = first + sort.Search(end-first, func(i int) bool { return !reads(first+i, n) })
			}
			var ids []drs.RecoverySnapshotID
			for i := first; i < end && failed == nil; i++ {
				if found.frames != nil || reads(i, n) {
					ids = append(ids, points[i].point.ID)
				}
			}
			if failed != nil {
				return failed
			}
			found.Points = union(found.Points, ids)
		}
	}
	return nil
}

// readsFrom tells for each finding whether a point reads from it.
func (f *verifier) readsFrom(ctx context.Context, r reference, p pointRef, bad []*finding) ([]bool, error) {
	out := make([]bool, len(bad))
	segs, err := r.b.lineage(ctx, r.st, p.seq)
	if err != nil && !damaged(err) {
		return nil, err
	}
	place := map[segment.ID]int{}
	for i := range segs {
		place[segs[i].id] = i
	}
	var maps volumeMaps
	var broken *CorruptError
	if err == nil {
		maps, err = mapper{b: r.b, segs: segs, upTo: p.seq}.merge(ctx)
	}
	unmade := errors.As(err, &broken) || errors.Is(err, ErrNewerFormat)
	if err != nil && !unmade {
		return nil, err
	}
	for n, found := range bad {
		seg, ok := place[found.segment.id]
		if !ok {
			continue
		}
		if unmade { // the map cannot be made, for this reason or another
			out[n] = broken != nil && broken.Object == found.Object || found.frames == nil
			continue
		}
		for _, vol := range p.volumes {
			out[n] = out[n] || found.readBy(clip(maps[vol.ID], vol.Blocks()), uint32(seg))
		}
	}
	return out, nil
}

// readBy tells whether any record reads a damaged frame of the segment.
func (n *finding) readBy(records []extent.Record, seg uint32) bool {
	for _, r := range records {
		if r.Zero() || r.Seg != seg {
			continue
		}
		if n.frames == nil {
			return true
		}
		per := uint64(max(n.per, 1))
		i := sort.SearchInts(n.frames, int(uint64(r.Pos)/per))
		if i < len(n.frames) && uint64(n.frames[i])*per < uint64(r.Pos)+uint64(r.Count) {
			return true
		}
	}
	return false
}

// recall asks the catalogue for the points that damaged manifests made.
func (f *verifier) recall(ctx context.Context, id drs.SourceServerID) error {
	if f.opt.Catalogue == nil {
		return nil
	}
	for _, n := range f.found { // no worker runs now
		at := placeOf(n.Object)
		if !n.PointsUnknown || at.kind != kindOfManifest || at.branch != MainBranch {
			continue
		}
		point, err := f.opt.Catalogue(ctx, id, at.number)
		if err != nil {
			return fmt.Errorf("look up the point of manifest %d of %s: %w", at.number, id, err)
		}
		if point != "" {
			n.Points, n.PointsUnknown = union([]drs.RecoverySnapshotID{point}, n.Points), false
		}
	}
	return nil
}

// judge sorts the points into those that something found hurts, and the others.
func (f *verifier) judge(refs *references, verdict *ServerVerdict) {
	hurt := map[drs.RecoverySnapshotID]bool{}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.found {
		for _, id := range n.Points {
			if !hurt[id] {
				hurt[id] = true
				verdict.Hurt = append(verdict.Hurt, id)
			}
		}
	}
	slices.Sort(verdict.Hurt)
	for _, r := range refs.branches {
		for _, p := range r.st.points.items {
			if !hurt[p.point.ID] {
				verdict.Unhurt = append(verdict.Unhurt, p.point.ID)
			}
		}
	}
}

// settle moves what was found into the report.
func (f *verifier) settle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	first := len(f.report.Damages)
	for _, n := range f.found {
		if f.v == nil {
			n.PointsUnknown = !n.Derived
		}
		if n.Points == nil {
			n.Points = []drs.RecoverySnapshotID{}
		}
		f.report.Damages = append(f.report.Damages, n.Damage)
	}
	clear(f.found)
	slices.SortFunc(f.report.Damages[first:], func(a, b Damage) int { return strings.Compare(a.Object, b.Object) })
}
