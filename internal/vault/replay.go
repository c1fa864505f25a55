package vault

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/envelope"
)

// readings bounds how often a branch is read anew because it changed under the reader.
const readings = 20

// readLocked reads the branch from the store: the newest good checkpoint and all
// manifests after it, most of them from packs.
func (b *branch) readLocked(ctx context.Context) (*state, error) {
	b.st, b.damage = nil, nil
	for i := 0; ; i++ {
		r, err := b.list(ctx)
		if err != nil {
			return nil, err
		}
		st, err := r.read(ctx)
		if damaged(err) && i < readings {
			// Unless manifests were deleted as no longer needed while we read.
			again, err := b.list(ctx)
			if err != nil {
				return nil, err
			}
			if i == 0 || !slices.Equal(r.checkpoints, again.checkpoints) || r.first() != again.first() {
				continue
			}
		}
		var damage *DamageError
		if errors.As(err, &damage) {
			b.st, b.damage = st, damage
			return st, damage
		}
		if err != nil {
			return nil, err
		}
		if st, err = b.catchUp(ctx, st); damaged(err) && i < readings {
			continue // finds out what is hurt
		} else if err != nil {
			return nil, err
		}
		if st.dropped {
			return nil, fmt.Errorf("branch %s of %s: %w", b.name, b.server, ErrAbsent)
		}
		b.setLocked(st)
		r.makePacks(st)
		return st, nil
	}
}

// catchUp applies the manifests that a listing did not show: it may be older than
// what is there to be read.
func (b *branch) catchUp(ctx context.Context, st *state) (*state, error) {
	for {
		next, err := b.follow(ctx, st)
		if errors.Is(err, blob.ErrAbsent) {
			return st, nil
		}
		if err != nil {
			return nil, err
		}
		st = next
	}
}

// listing is the objects of a branch, as they were at one moment.
type listing struct {
	b           *branch
	manifests   []uint64
	checkpoints []uint64
	packs       []uint64
}

func (b *branch) list(ctx context.Context) (*listing, error) {
	names, err := b.v.store.List(ctx, branchFolder(b.server, b.name))
	if err != nil {
		return nil, err
	}
	r := &listing{b, numbered(names, ".manifest"), numbered(names, ".checkpoint"), numbered(names, ".pack")}
	if len(r.manifests) == 0 {
		if b.name == MainBranch {
			if err := b.v.checkUnused(ctx, b.server); err != nil {
				return nil, err
			}
		}
		return nil, fmt.Errorf("branch %s of %s: %w", b.name, b.server, ErrAbsent)
	}
	return r, nil
}

func (r *listing) first() uint64 { return r.manifests[0] }
func (r *listing) last() uint64  { return r.manifests[len(r.manifests)-1] }

// missing returns the first number from one to another that is not there; 0: none.
func (r *listing) missing(from, to uint64) uint64 {
	i, _ := slices.BinarySearch(r.manifests, from)
	for n := from; n <= to; n++ {
		if i == len(r.manifests) || r.manifests[i] != n {
			return n
		}
		i++
	}
	return 0
}

// read returns the state that the objects add up to. With a *DamageError it is the one
// before the damage, nil if there is none.
func (r *listing) read(ctx context.Context) (*state, error) {
	st, cause, err := r.upTo(ctx, math.MaxUint64)
	if err != nil {
		return nil, err
	}
	if gap := r.gap(st, cause); gap > 0 {
		// What is after it may be known from a checkpoint, but is not to be relied upon.
		st, _, err = r.upTo(ctx, gap-1)
		if err != nil {
			return nil, err
		}
		cause = &CorruptError{Object: manifestName(r.b.server, r.b.name, gap), Reason: "absent, although later manifests exist"}
	}
	if cause == nil {
		return st, nil
	}
	if dropped, err := r.b.endsDropped(ctx, r.last()); err != nil {
		return nil, err
	} else if dropped {
		return nil, fmt.Errorf("branch %s of %s: %w", r.b.name, r.b.server, ErrAbsent)
	}
	damage := &DamageError{Server: r.b.server, Branch: r.b.name, Cause: cause}
	number := uint64(0)
	if st != nil {
		number = st.number
	}
	damage.Points, damage.LockedUntil = r.pointsAfter(ctx, number)
	return st, damage
}

// gap returns the first manifest that should be there, as far as st tells, and is
// not; 0: none. A state before damage does not know where the floor is by now.
func (r *listing) gap(st *state, cause *CorruptError) uint64 {
	if cause != nil {
		return 0 // told already
	}
	return r.missing(max(1, st.restated.floor), st.number)
}

// upTo reads as far as manifest limit, or as damage allows, which is cause then. The
// state is nil where there is nothing to begin at.
func (r *listing) upTo(ctx context.Context, limit uint64) (st *state, cause *CorruptError, err error) {
	st, err = r.start(ctx, limit)
	if err != nil {
		return nil, nil, err
	}
	if st == nil {
		return nil, &CorruptError{Object: manifestName(r.b.server, r.b.name, 1),
			Reason: fmt.Sprintf("absent, although manifest %d exists, and no checkpoint is of use", r.first())}, nil
	}
	end := min(limit, r.last())
	gap := r.missing(st.number+1, end)
	if gap > 0 {
		end = gap - 1
	}
	reached, err := r.replay(ctx, st, end)
	if errors.As(err, &cause) {
		if !reached.private {
			return reached, cause, nil
		}
		// The last manifest may have been applied in part.
		st, _, err := r.upTo(ctx, reached.number)
		return st, cause, err
	}
	if err != nil {
		return nil, nil, err
	}
	if gap > 0 {
		cause = &CorruptError{Object: manifestName(r.b.server, r.b.name, gap), Reason: "absent, although later manifests exist"}
	}
	return reached, cause, nil
}

// start returns the newest state a checkpoint holds, not after manifest limit; without
// one, the state before the first manifest, or nil if that is gone.
func (r *listing) start(ctx context.Context, limit uint64) (*state, error) {
	b := r.b
	for _, n := range slices.Backward(r.checkpoints) {
		if n > limit {
			continue
		}
		st, err := b.readCheckpoint(ctx, n)
		switch {
		case err == nil:
			return st, nil
		case damaged(err):
			b.v.log.Warn("checkpoint is of no use, going back further", "err", err)
		case errors.Is(err, ErrNewerFormat): // of use to a newer program only
		case !errors.Is(err, blob.ErrAbsent):
			return nil, err
		}
	}
	if r.first() != 1 {
		return nil, nil
	}
	return &state{server: b.server, branch: b.name, private: true}, nil
}

// replay applies the manifests after st up to number last. When it fails it returns
// the state reached, whose lists are not private any more if it is whole.
func (r *listing) replay(ctx context.Context, st *state, last uint64) (*state, error) {
	b := r.b
	var err error
	if st, err = r.replayPacks(ctx, st, last); err != nil {
		return st, err
	}
	whole := func(st *state) *state {
		st.private = false
		return st
	}
	const batch = 64
	for st.number < last {
		begin, n := st.number+1, min(batch, last-st.number)
		envs, errs := make([]*envelope.Envelope, n), make([]error, n)
		var g errgroup.Group
		g.SetLimit(b.v.distance.manifests)
		for i := range n {
			g.Go(func() error {
				envs[i], errs[i] = b.readManifest(ctx, begin+i)
				return nil
			})
		}
		_ = g.Wait() // each has its own error
		for i := range n {
			err := errs[i]
			if errors.Is(err, blob.ErrAbsent) {
				err = &CorruptError{Object: manifestName(b.server, b.name, begin+i), Reason: "vanished while the branch was read"}
			}
			if err != nil {
				return whole(st), err
			}
			next, err := b.apply(st, envs[i])
			if err != nil {
				return st, err
			}
			st = next
		}
	}
	return whole(st), nil
}

// pointsAfter names the points that manifests after number made, as far as packs,
// checkpoints or those manifests can be read, and until when they lock any.
func (r *listing) pointsAfter(ctx context.Context, number uint64) (out []drs.RecoverySnapshotID, locked time.Time) {
	b := r.b
	known := map[drs.RecoverySnapshotID]bool{}
	add := func(p drs.RecoveryPoint) {
		if p.Epoch > number && !known[p.ID] {
			known[p.ID] = true
			out = append(out, p.ID)
		}
	}
	collect := func(body []byte) {
		edits, err := decodeEdits(body)
		if err != nil {
			return
		}
		for _, e := range edits {
			switch e := e.(type) {
			case pointEdit:
				add(e.point)
			case lockEdit:
				locked = later(locked, e.until)
			}
		}
	}
	for _, n := range r.checkpoints {
		if n <= number {
			continue
		}
		if st, err := b.readCheckpoint(ctx, n); err == nil {
			for _, p := range st.points.items {
				add(p.point)
				locked = later(locked, p.locked)
			}
		}
	}
	packed := number
	for _, n := range r.packs {
		if n <= packed {
			continue
		}
		if p, err := b.readPack(ctx, n); err == nil {
			for _, e := range p.entries {
				collect(e.body)
			}
			if p.first <= packed+1 {
				packed = n
			}
		}
	}
	for _, n := range r.manifests {
		if n <= packed {
			continue
		}
		if env, err := b.readManifest(ctx, n); err == nil {
			collect(env.Body)
		}
	}
	return out, locked
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
