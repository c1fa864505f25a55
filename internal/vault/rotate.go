package vault

import (
	"context"
	"errors"
	"fmt"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
)

// A master key is changed in two steps, so that it can be told to whoever starts the
// vault in between. Nothing but wrapped keys is written anew: what they seal stays as
// it is. Both steps can be repeated, and are to be, after a crash anywhere.

// Rewrap puts next beside the master key old: when it returns nil, each of them opens
// everything in the vault. Cut short, old still does. It returns how many servers have
// keys. No other process may create servers meanwhile.
func Rewrap(ctx context.Context, store blob.Store, old, next KeyWrapper) (servers int, err error) {
	servers, err = rewrap(ctx, store, old, next)
	if err != nil {
		return 0, fmt.Errorf("change the master key: %w", err)
	}
	return servers, nil
}

func rewrap(ctx context.Context, store blob.Store, old, next KeyWrapper) (int, error) {
	if old.ID() == next.ID() {
		return 0, fmt.Errorf("%s is the master key already: give another one", next.ID())
	}
	v, err := Open(ctx, store, old, Options{})
	if err != nil {
		return 0, err
	}
	defer func() { _ = v.Close() }() // it only waits for what runs
	servers, err := v.Servers(ctx)
	if err != nil {
		return 0, err
	}
	for _, server := range servers {
		if err := v.rewrapServer(ctx, server, next); err != nil {
			return 0, fmt.Errorf("server %s: %w", server, err)
		}
	}
	// The root comes last: with it, next opens all.
	roots, err := readRoots(ctx, store)
	if err != nil {
		return 0, err
	}
	newest := roots[len(roots)-1]
	for _, r := range roots {
		if r.own.keyID == next.ID() {
			_, err := unwrapKey(ctx, next, r.own, r.binding())
			return len(servers), err
		}
	}
	newest.number++
	newest.before = old.ID()
	if newest.own, err = wrapKey(ctx, next, v.own, newest.binding()); err != nil {
		return 0, err
	}
	return len(servers), newest.put(ctx, store)
}

// rewrapServer wraps a server's data key under next, unless it is, and makes sure that
// it comes out again.
func (v *Vault) rewrapServer(ctx context.Context, server drs.SourceServerID, next KeyWrapper) error {
	key, err := v.dataKey(ctx, server)
	if err != nil {
		return err
	}
	names, err := v.store.List(ctx, keyFolder(server))
	if err != nil {
		return err
	}
	numbers := numbered(names, ".key")
	wrapped, err := readDataKey(ctx, v.store, server, numbers, next)
	if err != nil {
		return err
	}
	if wrapped.keyID != next.ID() {
		number := numbers[len(numbers)-1] + 1
		if err := v.putDataKey(ctx, server, number, next, key); err != nil {
			return err
		}
		if wrapped, err = readDataKey(ctx, v.store, server, []uint64{number}, next); err != nil {
			return err
		}
	}
	again, err := unwrapKey(ctx, next, wrapped, v.keyBinding(server))
	if err != nil {
		return err
	}
	if again != key {
		return &CorruptError{Object: keyFolder(server), Reason: "it holds two different keys of this server"}
	}
	return nil
}

// Retire deletes what is wrapped under any other master key than the given one, which
// must open everything, and returns how many objects that was.
func Retire(ctx context.Context, store blob.Store, keys KeyWrapper) (deleted int, err error) {
	deleted, err = retire(ctx, store, keys)
	if err != nil {
		return deleted, fmt.Errorf("retire the old master key: %w", err)
	}
	return deleted, nil
}

func retire(ctx context.Context, store blob.Store, keys KeyWrapper) (deleted int, err error) {
	v, err := Open(ctx, store, keys, Options{})
	if err != nil {
		return 0, err
	}
	defer func() { _ = v.Close() }() // it only waits for what runs
	servers, err := v.Servers(ctx)
	if err != nil {
		return 0, err
	}
	for _, server := range servers { // all, before anything is deleted
		if _, err := v.dataKey(ctx, server); err != nil {
			return 0, fmt.Errorf("%w; change the key again from the old one", err)
		}
	}
	remove := func(name string) error {
		err := store.Delete(ctx, name)
		if errors.Is(err, blob.ErrAbsent) {
			return nil
		}
		if err == nil {
			deleted++
		}
		return err
	}
	for _, server := range servers {
		names, err := store.List(ctx, keyFolder(server))
		if err != nil {
			return deleted, err
		}
		for _, n := range numbered(names, ".key") {
			wrapped, err := readDataKey(ctx, store, server, []uint64{n}, nil)
			if err != nil {
				return deleted, err
			}
			if wrapped.keyID == keys.ID() {
				continue
			}
			if err := remove(keyName(server, n)); err != nil {
				return deleted, err
			}
		}
	}
	// The roots go last: while there are two, there may be something left to do.
	roots, err := readRoots(ctx, store)
	if err != nil {
		return deleted, err
	}
	for _, r := range roots {
		if r.own.keyID == keys.ID() {
			continue
		}
		if err := remove(rootName(r.number)); err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}

// MasterKeys returns the IDs of the master keys that the vault in a store is sealed
// with: two while the key is being changed, the newer one last; none of a plain vault.
func MasterKeys(ctx context.Context, store blob.Store) ([]string, error) {
	roots, err := readRoots(ctx, store)
	if err != nil {
		return nil, fmt.Errorf("look up the master key: %w", err)
	}
	var ids []string
	for _, r := range roots {
		if r.own.keyID != "" {
			ids = append(ids, r.own.keyID)
		}
	}
	return ids, nil
}
