package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// lineage returns all segments that make up the branch at st, up to a sequence,
// ascending: those of the branches it comes from, then its own.
func (b *branch) lineage(ctx context.Context, st *state, seq uint64) ([]segmentRef, error) {
	own := st.upTo(seq)
	for i := range st.segments.items {
		if r := &st.segments.items[i]; r.spans(seq) {
			return nil, fmt.Errorf("branch %s of %s as of sequence %d, which was folded with its neighbours: %w", b.name, b.server, seq, ErrAbsent)
		}
	}
	if st.base == nil {
		return own, nil
	}
	parent, err := b.v.branch(ctx, b.server, st.base.branch)
	if err != nil {
		return nil, err
	}
	parentState, err := parent.current(ctx)
	// A parent damaged after the point serves as well.
	if err != nil && (parentState == nil || parentState.number < st.base.number) {
		if errors.Is(err, ErrAbsent) {
			return nil, &CorruptError{Object: manifestName(b.server, st.base.branch, st.base.number),
				Reason: "absent, although branch " + b.name + " begins there"}
		}
		return nil, err
	}
	inherited, err := parent.lineage(ctx, parentState, min(seq, st.base.seq))
	if err != nil {
		return nil, err
	}
	if len(own) == 0 {
		return inherited, nil
	}
	return slices.Concat(inherited, own), nil
}
