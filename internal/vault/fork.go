package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"

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

// Points returns the recovery points of all branches of a server, oldest first. With
// a *DamageError it returns those that can be read.
func (v *Vault) Points(ctx context.Context, server drs.SourceServerID) ([]drs.RecoveryPoint, error) {
	var out []drs.RecoveryPoint
	damage, err := v.eachBranch(ctx, server, func(_ *branch, st *state) bool {
		for _, p := range st.points.items {
			out = append(out, p.point)
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("recovery points of %s: %w", server, err)
	}
	slices.SortStableFunc(out, func(a, b drs.RecoveryPoint) int { return a.Taken.Compare(b.Taken) })
	return out, damage
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

// Fork makes a branch that begins at a recovery point, whose data it keeps alive. It
// copies nothing. ErrAbsent: no such point. ErrExists: there is a branch of that
// name, or what a drop that was cut short has left of it: drop it again.
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
	edits := []edit{
		seedEdit(st.seed),
		&base{branch: parent.name, number: p.point.Epoch, seq: p.seq, point: point},
	}
	for _, vol := range p.volumes {
		edits = append(edits, volumeEdit{vol})
	}
	return v.beginBranch(ctx, server, name, parent.key, edits)
}

// DropBranch deletes a branch and its recovery points for good; a drop that was cut
// short can be repeated. The main branch, and one that another branch began
// at, cannot be dropped. Close its images and writer first.
func (v *Vault) DropBranch(ctx context.Context, server drs.SourceServerID, name string) error {
	if err := v.dropBranch(ctx, server, name); err != nil {
		return fmt.Errorf("drop branch %s of %s: %w", name, server, err)
	}
	return nil
}

func (v *Vault) dropBranch(ctx context.Context, server drs.SourceServerID, name string) error {
	if name == MainBranch {
		return errors.New("the main branch belongs to the server and cannot be dropped")
	}
	v.dropping.Lock()
	defer v.dropping.Unlock()
	b, err := v.branch(ctx, server, name)
	if err != nil {
		return err
	}
	var child string
	damage, err := v.eachBranch(ctx, server, func(other *branch, st *state) bool {
		if st.base != nil && st.base.branch == name {
			child = other.name
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
		return fmt.Errorf("another branch may need it: %w", damage)
	}
	// The last manifest fences writers, and says after a crash what was going on.
	st, err := b.current(ctx)
	absent := errors.Is(err, ErrAbsent)
	if err == nil {
		end := []edit{droppedEdit{}}
		_, err = b.commit(ctx, st, end, putEdits(end), nil)
	}
	if err != nil && !absent {
		return err
	}
	names, err := v.store.List(ctx, branchFolder(server, name))
	if err != nil {
		return err
	}
	if absent && len(names) == 0 {
		return ErrAbsent
	}
	numbers := numbered(names, ".manifest")
	if len(numbers) > 0 { // last of all goes the manifest that says so
		last := manifestName(server, name, numbers[len(numbers)-1])
		i := slices.Index(names, last)
		names = append(slices.Delete(names, i, i+1), last)
	}
	for _, object := range names {
		if err := v.store.Delete(ctx, object); err != nil && !errors.Is(err, blob.ErrAbsent) {
			return err
		}
	}
	v.forget(b)
	return nil
}

// forget drops what this process knows of a branch, and finishes its writer.
func (v *Vault) forget(b *branch) {
	v.mu.Lock()
	delete(v.branches, branchID{b.server, b.name})
	v.mu.Unlock()
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
