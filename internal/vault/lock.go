package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"lifeboat/internal/drs"
)

// ErrLocked: a recovery point is locked, and so is what holds it.
var ErrLocked = errors.New("a recovery point is locked")

// PointInfo is a recovery point and what keeps it.
type PointInfo struct {
	drs.RecoveryPoint
	Branch      string    // it lies on
	LockedUntil time.Time // zero: it is not locked
	Branches    []string  // that began at it, sorted
}

// ListPoints returns the recovery points of all branches of a server, oldest first,
// with what keeps each. With a *DamageError it returns those that can be read.
func (v *Vault) ListPoints(ctx context.Context, server drs.SourceServerID) ([]PointInfo, error) {
	var out []PointInfo
	damage, err := v.eachBranch(ctx, server, func(b *branch, st *state) bool {
		held := map[drs.RecoverySnapshotID][]string{}
		for _, h := range st.holds {
			held[h.point] = append(held[h.point], h.branch)
		}
		for _, p := range st.points.items {
			out = append(out, PointInfo{p.point, b.name, p.locked, held[p.point.ID]})
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("recovery points of %s: %w", server, err)
	}
	slices.SortStableFunc(out, func(a, b PointInfo) int { return a.Taken.Compare(b.Taken) })
	return out, damage
}

// LockPoint keeps a recovery point until a date: until then neither retention nor
// DropPoints, DropBranch or DropServer removes it. A lock can be extended, not
// shortened. ErrAbsent: no such point.
//
// The date is held against a clock that setting the machine's does not move while
// the vault is open. A vault that is opened on a machine with a wrong clock believes it, and
// who can delete objects from the store needs no vault: keep a locked copy of
// the store against that.
func (v *Vault) LockPoint(ctx context.Context, server drs.SourceServerID, point drs.RecoverySnapshotID, until time.Time) error {
	if err := v.lockPoint(ctx, server, point, until.Round(0).UTC()); err != nil {
		return fmt.Errorf("lock recovery point %s of %s: %w", point, server, err)
	}
	return nil
}

func (v *Vault) lockPoint(ctx context.Context, server drs.SourceServerID, point drs.RecoverySnapshotID, until time.Time) error {
	if !until.After(v.now()) {
		return fmt.Errorf("%s is past: give a date to come", until.Format(time.RFC3339))
	}
	if until.Year() >= 2262 {
		return fmt.Errorf("%s is too far away: give a date before 2262", until.Format(time.RFC3339))
	}
	b, _, _, err := v.findPoint(ctx, server, point)
	if err != nil {
		return err
	}
	_, err = b.amend(ctx, func(st *state) (proposal, error) {
		p, ok := st.point(point)
		switch {
		case !ok:
			return proposal{}, ErrAbsent
		case p.locked.Equal(until):
			return proposal{}, nil
		case p.locked.After(until):
			return proposal{}, fmt.Errorf("%w until %s, which cannot be shortened: give a later date", ErrLocked, p.locked.Format(time.RFC3339))
		}
		return propose(lockEdit{point, until}), nil
	})
	return err
}

// locked tells whether the point may not be removed at that moment.
func (p *pointRef) lockedAt(now time.Time) bool { return p.locked.After(now) }

// checkLocks returns ErrLocked while any point is locked.
func (s *state) checkLocks(now time.Time) error {
	for _, p := range s.points.items {
		if p.lockedAt(now) {
			return fmt.Errorf("%w: %s until %s", ErrLocked, p.point.ID, p.locked.Format(time.RFC3339))
		}
	}
	return nil
}

// DropPoints forgets recovery points at once; what only they held is freed by the next
// Maintain. Of points that lie on one branch it drops all or none. ErrAbsent: one is not
// there. ErrLocked, or an error that names the branch: one must stay.
func (v *Vault) DropPoints(ctx context.Context, server drs.SourceServerID, points ...drs.RecoverySnapshotID) error {
	for len(points) > 0 {
		b, st, _, err := v.findPoint(ctx, server, points[0])
		if err != nil {
			return fmt.Errorf("drop recovery points: %w", err)
		}
		var here, others []drs.RecoverySnapshotID
		for _, id := range points {
			if _, ok := st.point(id); ok {
				here = append(here, id)
			} else {
				others = append(others, id)
			}
		}
		if err := b.dropPoints(ctx, here, v.now()); err != nil {
			return fmt.Errorf("drop recovery points of %s: %w", server, err)
		}
		points = others
	}
	return nil
}

func (b *branch) dropPoints(ctx context.Context, ids []drs.RecoverySnapshotID, now time.Time) error {
	_, err := b.amend(ctx, func(st *state) (proposal, error) {
		for _, id := range ids {
			p, ok := st.point(id)
			if !ok {
				return proposal{}, fmt.Errorf("%s: %w", id, ErrAbsent)
			}
			if p.lockedAt(now) {
				return proposal{}, fmt.Errorf("%s until %s: %w", id, p.locked.Format(time.RFC3339), ErrLocked)
			}
			if st.holdsPoint(id) {
				return proposal{}, fmt.Errorf("a branch began at %s: drop the branch first", id)
			}
		}
		return propose(dropManyEdit(ids)), nil
	})
	return err
}
