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
	LockedUntil time.Time // by this machine's time of day; zero: it is not locked
	Clock       time.Time // of the vault, when it was committed; zero: not known
	Branches    []string  // that began at it, sorted
}

// at is when the point was made, as well as it is known.
func (p *PointInfo) at() time.Time {
	if p.Clock.IsZero() {
		return p.Taken
	}
	return p.Clock
}

// ListPoints returns the recovery points of all branches of a server, oldest first and
// those of one branch in the order of their commits, with what keeps each. With a *DamageError it returns those that can be read.
func (v *Vault) ListPoints(ctx context.Context, server drs.SourceServerID) ([]PointInfo, error) {
	var out []PointInfo
	damage, err := v.eachBranch(ctx, server, func(b *branch, st *state) bool {
		held := map[drs.RecoverySnapshotID][]string{}
		for _, h := range st.holds {
			held[h.point] = append(held[h.point], h.branch)
		}
		for _, p := range st.points.items {
			out = append(out, PointInfo{p.point, b.name, v.shown(p.locked), p.clock, held[p.point.ID]})
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("recovery points of %s: %w", server, err)
	}
	at := make(map[drs.RecoverySnapshotID]time.Time, len(out))
	last := map[string]time.Time{} // of each branch: a clock that was set back changes no order
	for i := range out {
		p := &out[i]
		last[p.Branch] = later(last[p.Branch], p.at())
		at[p.ID] = last[p.Branch]
	}
	slices.SortStableFunc(out, func(a, b PointInfo) int { return at[a.ID].Compare(at[b.ID]) })
	return out, damage
}

// LockPoint keeps a recovery point until a date: until then neither retention nor
// DropPoints, DropBranch or DropServer removes it. A lock can be extended, not
// shortened. ErrAbsent: no such point.
//
// The date is by this machine's time of day, and says how long from now. That much has to
// go by on the vault's own clock, which setting the machine's does not move. Who can
// delete objects from the store needs no vault: keep a locked copy of the store
// against that.
func (v *Vault) LockPoint(ctx context.Context, server drs.SourceServerID, point drs.RecoverySnapshotID, until time.Time) error {
	if err := v.lockPoint(ctx, server, point, until.Round(0).UTC()); err != nil {
		return fmt.Errorf("lock recovery point %s of %s: %w", point, server, err)
	}
	return nil
}

func (v *Vault) lockPoint(ctx context.Context, server drs.SourceServerID, point drs.RecoverySnapshotID, until time.Time) error {
	given := until
	if until = until.Add(v.Skew()); !until.After(v.now()) {
		return fmt.Errorf("%s is past: give a date to come", given.Format(time.RFC3339))
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
			return proposal{}, fmt.Errorf("%w until %s, which cannot be shortened: give a later date", ErrLocked, v.shown(p.locked).Format(time.RFC3339))
		}
		return propose(lockEdit{point, until}), nil
	})
	return err
}

// locked tells whether the point may not be removed at that moment.
func (p *pointRef) lockedAt(now time.Time) bool { return p.locked.After(now) }

// checkLocks returns ErrLocked while any point is locked.
func (v *Vault) checkLocks(s *state) error {
	now := v.now()
	for _, p := range s.points.items {
		if p.lockedAt(now) {
			return fmt.Errorf("%w: %s until %s", ErrLocked, p.point.ID, v.shown(p.locked).Format(time.RFC3339))
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
				return proposal{}, fmt.Errorf("%s until %s: %w", id, b.v.shown(p.locked).Format(time.RFC3339), ErrLocked)
			}
			if st.holdsPoint(id) {
				return proposal{}, fmt.Errorf("a branch began at %s: drop the branch first", id)
			}
		}
		return propose(dropManyEdit(ids)), nil
	})
	return err
}
