package vault

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"lifeboat/internal/drs"
)

// DropServer deletes a source server with all its branches, recovery points and its
// data key, for good. A drop that was cut short can be repeated. ErrLocked: a point is
// locked. ErrAbsent: no such server. Close its images and writers first.
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
		locked = st.checkLocks(v.now())
		return locked == nil
	})
	if err = errors.Join(err, locked); err != nil {
		return err
	}
	if damage != nil {
		return fmt.Errorf("whether a point is locked cannot be told: %w", damage)
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
		return propose(append(edits, droppedEdit{})...), st.checkLocks(v.now())
	}); err != nil && !errors.Is(err, ErrAbsent) {
		return err
	}
	// What says that the server was dropped goes last.
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
	if _, err := b.end(ctx); err != nil {
		return err
	}
	v.forgetServer(server)
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
