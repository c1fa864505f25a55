package vault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"lifeboat/internal/drs"
)

// DropServer deletes a source server with all its branches, recovery points and its
// data key, for good. A drop that was cut short can be repeated. ErrLocked: a point is
// locked, as far as can be read: damage keeps nobody from deleting what it left over.
// ErrAbsent: no such server. Close its images and writers first.
func (v *Vault) DropServer(ctx context.Context, server drs.SourceServerID) error {
	v.tending.Lock()
	defer v.tending.Unlock()
	v.forking.Lock()
	defer v.forking.Unlock()
	if err := v.dropServer(ctx, server); err != nil {
		return fmt.Errorf("drop server %s: %w", server, err)
	}
	return nil
}

func (v *Vault) dropServer(ctx context.Context, server drs.SourceServerID) error {
	// Nothing is touched before it is known that nothing is locked.
	parents := map[string]string{}
	var locked error
	damage, err := v.eachBranch(ctx, server, func(b *branch, st *state) bool {
		parents[b.name] = ""
		if st.base != nil {
			parents[b.name] = st.base.branch
		}
		locked = v.checkLocks(st)
		return locked == nil
	})
	if err = errors.Join(err, locked); err != nil {
		return err
	}
	if damage != nil {
		if until := lockedBehind(damage); until.After(v.now()) {
			return fmt.Errorf("%w: one behind the damage, until %s: %w", ErrLocked, v.shown(until).Format(time.RFC3339), damage)
		}
		return v.dropDamaged(ctx, server)
	}
	for len(parents) > 0 {
		leaf := ""
		for name := range parents {
			leaf = name
			for _, parent := range parents {
				if parent == name {
					leaf = ""
				}
			}
			if leaf != "" {
				break
			}
		}
		if leaf == "" {
			return errors.New("its branches begin at one another")
		}
		if leaf == MainBranch {
			break
		}
		if err := v.dropBranchLocked(ctx, server, leaf); err != nil && !errors.Is(err, ErrAbsent) {
			return err
		}
		delete(parents, leaf)
	}
	return v.dropMain(ctx, server)
}

// dropMain deletes the main branch, everything else of the server, and its key last.
func (v *Vault) dropMain(ctx context.Context, server drs.SourceServerID) error {
	b, err := v.branch(ctx, server, MainBranch)
	if err != nil {
		return err
	}
	if _, err := b.amend(ctx, func(st *state) (proposal, error) {
		var edits []edit
		for _, h := range st.holds { // for branches that never began
			edits = append(edits, releaseEdit(h.branch))
		}
		return propose(append(edits, droppedEdit{})...), v.checkLocks(st)
	}); err != nil && !errors.Is(err, ErrAbsent) {
		return err
	}
	b.endDeriving()
	// What says that the server was dropped goes last.
	if err := v.dropBesideMain(ctx, server); err != nil {
		return err
	}
	if _, err := b.end(ctx); err != nil {
		return err
	}
	v.forgetServer(server)
	return v.dropKeys(ctx, server)
}

// dropBesideMain deletes all objects of a server but those of its main branch.
func (v *Vault) dropBesideMain(ctx context.Context, server drs.SourceServerID) error {
	names, err := walk(ctx, v.store, serverFolder(server))
	if err != nil {
		return err
	}
	folder := branchFolder(server, MainBranch)
	for _, name := range names {
		if !strings.HasPrefix(name, folder) {
			if err := v.remove(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropDamaged deletes a server of which a branch cannot be read, so that no manifest can
// say so first: cut short, it is a damaged server still.
func (v *Vault) dropDamaged(ctx context.Context, server drs.SourceServerID) error {
	b, err := v.branch(ctx, server, MainBranch)
	if err != nil {
		return err
	}
	v.forgetServer(server) // and finish its writers
	if err := v.dropBesideMain(ctx, server); err != nil {
		return err
	}
	if _, err := b.erase(ctx); err != nil {
		return err
	}
	return v.dropKeys(ctx, server)
}

// LockedUntil is the last date, by this machine's time of day, until which some point of
// the server is locked, which may be past; zero: none is. Of damaged branches it counts what can be read. ErrAbsent: no
// such server.
func (v *Vault) LockedUntil(ctx context.Context, server drs.SourceServerID) (until time.Time, err error) {
	damage, err := v.eachBranch(ctx, server, func(_ *branch, st *state) bool {
		for _, p := range st.points.items {
			until = later(until, p.locked)
		}
		return true
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("locks of %s: %w", server, err)
	}
	return v.shown(later(until, lockedBehind(damage))), nil
}

// lockedBehind returns the last date of the locks that were found behind damage.
func lockedBehind(damage error) (until time.Time) {
	for _, err := range split(damage) {
		var d *DamageError
		if errors.As(err, &d) {
			until = later(until, d.LockedUntil)
		}
	}
	return until
}

// dropKeys deletes the data key of a server, which nothing is sealed with any more.
func (v *Vault) dropKeys(ctx context.Context, server drs.SourceServerID) error {
	keys, err := v.store.List(ctx, keyFolder(server))
	if err != nil {
		return err
	}
	for _, name := range keys {
		if err := v.remove(ctx, name); err != nil {
			return err
		}
	}
	v.mu.Lock()
	delete(v.dataKeys, server)
	v.mu.Unlock()
	return nil
}
