package vault

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/segment"
)

// Count is a number of objects and their size.
type Count struct {
	Objects int
	Bytes   int64
}

// Freed says what was deleted, and what was left although nothing names it.
type Freed struct {
	Segments, Manifests, Checkpoints, Packs, Runs Count

	Unfinished int // segments that may belong to an epoch that is being written
	Unknown    int // objects that are damaged or not of a known kind: nobody's to delete
}

// Bytes returns how many were freed in all.
func (f *Freed) Bytes() int64 {
	return f.Segments.Bytes + f.Manifests.Bytes + f.Checkpoints.Bytes + f.Packs.Bytes + f.Runs.Bytes
}

// Collect deletes the objects of a server that no point, branch or reader needs, and
// never will: segments of epochs that were given up, or of branches that were dropped,
// manifests that were folded away, stale derived data. It needs no clock: a segment that
// nobody names, of a sequence that its branch has passed, cannot be committed any
// more. A server with a damaged branch is left as it is. Collect can be cut short
// anywhere, and run beside commits, folds and itself.
func (v *Vault) Collect(ctx context.Context, server drs.SourceServerID) (Freed, error) {
	v.tending.Lock()
	defer v.tending.Unlock()
	var freed Freed
	if err := v.collect(ctx, server, &freed); err != nil {
		return freed, fmt.Errorf("collect garbage of %s: %w", server, err)
	}
	return freed, nil
}

func (v *Vault) collect(ctx context.Context, server drs.SourceServerID, freed *Freed) error {
	// Listed first: what is promised or committed after the branches are read is not
	// among the segments.
	segments, err := v.store.List(ctx, serverFolder(server)+"segments/")
	if err != nil {
		return err
	}
	runs, err := v.store.List(ctx, serverFolder(server)+"maps/")
	if err != nil {
		return err
	}
	if err := v.endDropped(ctx, server); err != nil {
		return err
	}
	live := liveObjects{segments: map[segment.ID]bool{}, seqs: map[string]uint64{}, runs: map[string]bool{}}
	damage, err := v.eachBranch(ctx, server, func(b *branch, st *state) bool {
		err = live.add(ctx, b, st)
		return err == nil
	})
	if err = errors.Join(err, damage); err != nil {
		return err
	}
	for _, name := range segments {
		if err := v.collectSegment(ctx, server, name, live, freed); err != nil {
			return err
		}
	}
	for _, name := range runs {
		switch {
		case !strings.HasSuffix(name, ".run"):
			freed.Unknown++
		case !live.runs[name]:
			if err := v.free(ctx, name, &freed.Runs); err != nil {
				return err
			}
		}
	}
	return nil
}

// liveObjects is what the branches of a server need.
type liveObjects struct {
	segments map[segment.ID]bool // named, or promised
	seqs     map[string]uint64   // the last sequence of each branch
	runs     map[string]bool     // names
}

func (l *liveObjects) add(ctx context.Context, b *branch, st *state) error {
	l.seqs[b.name] = st.seq
	for i := range st.segments.items {
		if r := &st.segments.items[i]; r.host == 0 {
			l.segments[r.id] = true
		}
	}
	for _, p := range st.promises {
		for _, id := range p.segments {
			l.segments[id] = true
		}
	}
	segs, err := b.lineage(ctx, st, st.seq)
	if err != nil {
		return err
	}
	m := mapper{b: b, segs: segs, upTo: st.seq}
	for level := 1; m.size(level) <= st.seq; level++ {
		for i := 0; i < len(segs); {
			s, ok := m.group(level, i)
			if !ok {
				i++
				continue
			}
			l.runs[m.runName(s)] = true
			i = s.hi
		}
	}
	return nil
}

// collectSegment deletes a segment that is garbage.
func (v *Vault) collectSegment(ctx context.Context, server drs.SourceServerID, name string, live liveObjects, freed *Freed) error {
	if !strings.HasSuffix(name, ".segment") || len(name) != len(segmentName(server, segment.ID{})) {
		freed.Unknown++
		return nil
	}
	var id segment.ID
	base := strings.TrimSuffix(name[strings.LastIndexByte(name, '/')+1:], ".segment")
	if n, err := hex.Decode(id[:], []byte(base)); err != nil || n != len(id) {
		freed.Unknown++
		return nil //nolint:nilerr // counted; not ours to delete
	}
	if live.segments[id] {
		return nil
	}
	p := make([]byte, segment.HeaderSize)
	n, err := v.store.ReadAt(ctx, name, p, 0)
	if errors.Is(err, blob.ErrAbsent) {
		return nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	h, err := segment.ReadHeader(name, p[:n])
	if err != nil || h.Server != string(server) || h.ID != id {
		freed.Unknown++ // evidence, perhaps
		return nil      //nolint:nilerr // counted; not ours to delete
	}
	if last, there := live.seqs[h.Branch]; there && h.Sequence > last {
		freed.Unfinished++
		return nil
	}
	return v.free(ctx, name, &freed.Segments)
}

// endDropped finishes the deletion of branches that was cut short.
func (v *Vault) endDropped(ctx context.Context, server drs.SourceServerID) error {
	v.forking.Lock()
	defer v.forking.Unlock()
	names, err := v.store.List(ctx, branchesFolder(server))
	if err != nil {
		return err
	}
	for _, name := range folders(names) {
		b, err := v.branch(ctx, server, name)
		if err != nil || name == MainBranch {
			continue
		}
		if _, err := b.current(ctx); !errors.Is(err, ErrAbsent) {
			continue // told when it is read
		}
		if err := v.dropBranchLocked(ctx, server, name); err != nil && !errors.Is(err, ErrAbsent) {
			return err
		}
	}
	return nil
}
