package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
)

// Branches returns the names of the server's branches, sorted.
func (v *Vault) Branches(ctx context.Context, server drs.SourceServerID) ([]string, error) {
	if _, err := v.dataKey(ctx, server); err != nil {
		return nil, fmt.Errorf("list branches: %w", err)
	}
	names, err := v.store.List(ctx, branchesFolder(server))
	if err != nil {
		return nil, fmt.Errorf("list branches of %s: %w", server, err)
	}
	var out []string
	for _, name := range folders(names) {
		b, err := v.branch(ctx, server, name)
		if err != nil {
			continue // not a name of ours
		}
		if name != MainBranch {
			_, err = b.current(ctx)
			if errors.Is(err, ErrAbsent) {
				continue // being dropped
			}
			if err != nil && !damaged(err) {
				return nil, fmt.Errorf("list branches of %s: %w", server, err)
			}
		}
		out = append(out, name)
	}
	return out, nil
}

// Points returns the recovery points of all branches of a server, oldest first and those of
// one branch in the order of their commits, whatever the time of day was then. With a
// *DamageError it returns those that can be read.
func (v *Vault) Points(ctx context.Context, server drs.SourceServerID) ([]drs.RecoveryPoint, error) {
	list, err := v.ListPoints(ctx, server)
	var out []drs.RecoveryPoint
	for _, p := range list {
		out = append(out, p.RecoveryPoint)
	}
	return out, err
}

// eachBranch calls f with every branch's state, main first, until f returns false.
// Damage does not keep it from going on.
func (v *Vault) eachBranch(ctx context.Context, server drs.SourceServerID, f func(*branch, *state) bool) (damage, err error) {
	if _, err := v.dataKey(ctx, server); err != nil {
		return nil, err
	}
	names, err := v.store.List(ctx, branchesFolder(server))
	if err != nil {
		return nil, err
	}
	branches := []string{MainBranch}
	for _, name := range folders(names) {
		if name != MainBranch {
			branches = append(branches, name)
		}
	}
	for _, name := range branches {
		b, err := v.branch(ctx, server, name)
		if err != nil {
			continue // not a name of ours
		}
		st, err := b.current(ctx)
		switch {
		case errors.Is(err, ErrAbsent):
			continue
		case damaged(err):
			damage = errors.Join(damage, err)
			if st == nil {
				continue
			}
		case err != nil:
			return nil, err
		}
		if !f(b, st) {
			break
		}
	}
	return damage, nil
}

// findPoint looks for a recovery point in all branches.
func (v *Vault) findPoint(ctx context.Context, server drs.SourceServerID, id drs.RecoverySnapshotID) (b *branch, st *state, p pointRef, err error) {
	damage, err := v.eachBranch(ctx, server, func(in *branch, s *state) bool {
		found, ok := s.point(id)
		if ok {
			b, st, p = in, s, found
		}
		return !ok
	})
	switch {
	case err != nil:
		return nil, nil, p, err
	case b != nil:
		return b, st, p, nil
	case damage != nil: // it may have been there
		return nil, nil, p, damage
	}
	return nil, nil, p, fmt.Errorf("recovery point %s of %s: %w", id, server, ErrAbsent)
}

// Fork makes a branch that begins at a recovery point, which stays as long as the
// branch does. It copies nothing. ErrAbsent: no such point. ErrExists: there is a branch
// of that name, or what a drop that was cut short has left of it: drop it again.
func (v *Vault) Fork(ctx context.Context, server drs.SourceServerID, point drs.RecoverySnapshotID, name string) error {
	if err := v.fork(ctx, server, point, name); err != nil {
		return fmt.Errorf("make branch %s: %w", name, err)
	}
	return nil
}

func (v *Vault) fork(ctx context.Context, server drs.SourceServerID, point drs.RecoverySnapshotID, name string) error {
	if err := checkBranch(name); err != nil {
		return err
	}
	v.forking.Lock()
	defer v.forking.Unlock()
	parent, st, p, err := v.findPoint(ctx, server, point)
	if err != nil {
		return err
	}
	left, err := v.store.List(ctx, branchFolder(server, name))
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return ErrExists
	}
	// First the hold, so that whoever folds or drops points knows.
	mine := hold{branch: name, seq: p.seq, point: point}
	if _, err := parent.amend(ctx, func(st *state) (proposal, error) { return mine.take(st), nil }); err != nil {
		return err
	}
	edits := []edit{
		seedEdit(st.seed),
		&base{branch: parent.name, number: p.point.Epoch, seq: p.seq, point: point},
	}
	for _, vol := range p.volumes {
		edits = append(edits, volumeEdit{vol})
	}
	if err := v.beginBranch(ctx, server, name, parent.key, edits); err != nil {
		return err
	}
	// Another process may have taken the hold for left over from a crash. It made
	// sure then that the branch could not begin before the hold was gone.
	st, err = parent.current(ctx)
	if err != nil {
		return err
	}
	if i, there := st.findHold(name); there && st.holds[i] == mine {
		return nil
	}
	if err := v.dropBranchLocked(ctx, server, name); err != nil && !errors.Is(err, ErrAbsent) {
		return err
	}
	return errors.New("another process undid it half-way: try again")
}

// take returns the edits that make the hold be there.
func (h hold) take(st *state) proposal {
	i, there := st.findHold(h.branch)
	switch {
	case !there:
		return propose(holdEdit{h})
	case st.holds[i] == h:
		return proposal{} // of a fork that was cut short
	}
	return propose(releaseEdit(h.branch), holdEdit{h})
}

// release ends the hold for a branch, if there is one.
func (b *branch) release(ctx context.Context, name string) error {
	_, err := b.amend(ctx, func(st *state) (proposal, error) {
		if _, there := st.findHold(name); !there {
			return proposal{}, nil
		}
		return propose(releaseEdit(name)), nil
	})
	return err
}

// DropBranch deletes a branch and its recovery points for good; a drop that was cut
// short can be repeated. The main branch, one that another branch began at, and one with
// a locked point cannot be dropped, a damaged one can. Close its images and writer first.
func (v *Vault) DropBranch(ctx context.Context, server drs.SourceServerID, name string) error {
	v.forking.Lock()
	defer v.forking.Unlock()
	if err := v.dropBranchLocked(ctx, server, name); err != nil {
		return fmt.Errorf("drop branch %s of %s: %w", name, server, err)
	}
	return nil
}

func (v *Vault) dropBranchLocked(ctx context.Context, server drs.SourceServerID, name string) error {
	if name == MainBranch {
		return errors.New("the main branch belongs to the server and cannot be dropped")
	}
	b, err := v.branch(ctx, server, name)
	if err != nil {
		return err
	}
	var child string
	var holders []*branch
	var locked error // by what can be read of it, when it is damaged
	damage, err := v.eachBranch(ctx, server, func(other *branch, st *state) bool {
		if st.base != nil && st.base.branch == name {
			child = other.name
		}
		if other.name == name {
			locked = v.checkLocks(st)
		}
		if _, there := st.findHold(name); there {
			holders = append(holders, other)
		}
		return child == ""
	})
	if err != nil {
		return err
	}
	if child != "" {
		return fmt.Errorf("branch %s began at one of its points: drop that one first", child)
	}
	if damage != nil {
		if !onlyOf(damage, name) {
			return fmt.Errorf("another branch may need it: %w", damage)
		}
		if until := lockedBehind(damage); locked == nil && until.After(v.now()) {
			locked = fmt.Errorf("%w: one behind the damage, until %s", ErrLocked, until.Format(time.RFC3339))
		}
		if locked != nil {
			return locked
		}
		return b.endDamaged(ctx, holders)
	}
	found, err := b.end(ctx)
	if err != nil {
		return err
	}
	switch {
	case !found && len(holders) == 0:
		return ErrAbsent
	case !found:
		return v.bury(ctx, holders, name)
	}
	v.forget(b)
	return releaseAll(ctx, holders, name)
}

// onlyOf tells whether all damage is that of one branch.
func onlyOf(damage error, name string) bool {
	for _, err := range split(damage) {
		var d *DamageError
		if !errors.As(err, &d) || d.Branch != name {
			return false
		}
	}
	return true
}

// endDamaged deletes a branch that cannot be read to its end, and of which no other one
// needs anything. What segments it has are left to the collector.
func (b *branch) endDamaged(ctx context.Context, holders []*branch) error {
	b.v.forget(b) // and finish its writer
	if _, err := b.erase(ctx); err != nil {
		return err
	}
	return releaseAll(ctx, holders, b.name)
}

func releaseAll(ctx context.Context, holders []*branch, name string) error {
	for _, h := range holders {
		if err := h.release(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// bury releases the holds for a branch that never began, or is gone. A tombstone in its
// place sees to it that it cannot begin before they are; a fork that is late finds out.
func (v *Vault) bury(ctx context.Context, holders []*branch, name string) error {
	b, err := v.branch(ctx, holders[0].server, name)
	if err != nil {
		return err
	}
	if err := v.beginBranch(ctx, b.server, name, b.key, []edit{droppedEdit{}}); err != nil {
		return err
	}
	if err := releaseAll(ctx, holders, name); err != nil {
		return err
	}
	_, err = b.end(ctx)
	v.forget(b)
	return err
}

// end deletes a branch of which no other one needs anything, or what an end that was
// cut short has left of it. It tells whether there was anything.
func (b *branch) end(ctx context.Context) (found bool, err error) {
	v := b.v
	// The last manifest fences writers, and says after a crash what was going on.
	var own []segmentRef
	_, err = b.amend(ctx, func(st *state) (proposal, error) {
		if err := v.checkLocks(st); err != nil {
			return proposal{}, err
		}
		own = st.segments.items
		var edits []edit
		for _, h := range st.holds { // for branches that never began
			edits = append(edits, releaseEdit(h.branch))
		}
		return propose(append(edits, droppedEdit{})...), nil
	})
	if err != nil && !errors.Is(err, ErrAbsent) {
		return false, err
	}
	for i := range own {
		if own[i].host == 0 {
			if err := v.remove(ctx, segmentName(b.server, own[i].id)); err != nil {
				return false, err
			}
		}
	}
	return b.erase(ctx)
}

// erase deletes the objects of a branch, its last manifest last. It tells whether there
// were any.
func (b *branch) erase(ctx context.Context) (found bool, err error) {
	folder := branchFolder(b.server, b.name)
	names, err := b.v.store.List(ctx, folder)
	if err != nil || len(names) == 0 {
		return false, err
	}
	b.endDeriving()
	if names, err = b.v.store.List(ctx, folder); err != nil {
		return false, err
	}
	if numbers := numbered(names, ".manifest"); len(numbers) > 0 { // last of all goes the manifest that says so
		last := manifestName(b.server, b.name, numbers[len(numbers)-1])
		i := slices.Index(names, last)
		names = append(slices.Delete(names, i, i+1), last)
	}
	for _, object := range names {
		if err := b.v.remove(ctx, object); err != nil {
			return false, err
		}
	}
	return true, nil
}

// remove deletes an object, if it is there.
func (v *Vault) remove(ctx context.Context, name string) error {
	if err := v.store.Delete(ctx, name); err != nil && !errors.Is(err, blob.ErrAbsent) {
		return err
	}
	return nil
}

// forget drops what this process knows of a branch, and finishes its writer.
func (v *Vault) forget(b *branch) {
	b.endDeriving()
	v.mu.Lock()
	if id := (branchID{b.server, b.name}); v.branches[id] == b {
		delete(v.branches, id)
	}
	v.mu.Unlock()
	v.states.drop(b)
	b.mu.Lock()
	w := b.writer
	b.st, b.damage, b.writer = nil, nil, nil
	b.mu.Unlock()
	if w != nil {
		w.finish(ErrFenced)
	}
}

// forgetServer drops what this process knows of a server's branches.
func (v *Vault) forgetServer(server drs.SourceServerID) {
	v.mu.Lock()
	var known []*branch
	for id, b := range v.branches {
		if id.server == server {
			known = append(known, b)
		}
	}
	v.mu.Unlock()
	for _, b := range known {
		v.forget(b)
	}
}
