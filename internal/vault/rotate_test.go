package vault_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/blob/blobtest"
)

const secondServer = drs.SourceServerID("s-0000000000000000f")

// rotationWorld is a closed vault of two servers with a point each.
func rotationWorld(t *testing.T) (objects, vault.KeyWrapper) {
	t.Helper()
	store, keys := newStore(t), newKey(t)
	v := newVault(t, store, keys, vault.Options{})
	if err := v.CreateServer(ctxOf, secondServer); err != nil {
		t.Fatal(err)
	}
	for i, id := range []drs.SourceServerID{server, secondServer} {
		w := must(v.Writer(ctxOf, id, vault.MainBranch))(t)
		e := must(w.Begin(ctxOf, []vault.Volume{{ID: 1, Size: 1 << 20}}))(t)
		if err := e.Append(frame(1, blocks(uint64(i), 4), vault.CodecS2, vault.Extent{Count: 4})); err != nil {
			t.Fatal(err)
		}
		p := point(i + 1)
		p.SourceServer = id
		must(e.Commit(ctxOf, p))(t)
	}
	v.WaitTasks()
	v.Close()
	return store, keys
}

// opens tells whether a key opens everything; data that differs fails the test.
func opens(t *testing.T, store blob.Store, keys vault.KeyWrapper) error {
	t.Helper()
	v, err := vault.Open(ctxOf, store, keys, vault.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer v.Close()
	for i, id := range []drs.SourceServerID{server, secondServer} {
		img, err := v.OpenPoint(ctxOf, id, point(i+1).ID)
		if err != nil {
			return err
		}
		want := &disk{}
		want.grow(1 << 20)
		copy(want.data, blocks(uint64(i), 4))
		want.check(t, img, 1)
		img.Close()
	}
	return nil
}

func TestMasterKeyChanges(t *testing.T) {
	store, old := rotationWorld(t)
	next, third := newKey(t), newKey(t)
	if n := must(vault.Rewrap(ctxOf, store, old, next))(t); n != 2 {
		t.Errorf("%d servers, want 2", n)
	}
	for what, key := range map[string]vault.KeyWrapper{"old": old, "new": next} {
		if err := opens(t, store, key); err != nil {
			t.Errorf("between the steps the %s key: %v", what, err)
		}
	}
	if ids := must(vault.MasterKeys(ctxOf, store))(t); len(ids) != 2 || ids[1] != next.ID() {
		t.Errorf("master keys %v", ids)
	}
	if n := must(vault.Retire(ctxOf, store, next))(t); n != 3 {
		t.Errorf("%d objects deleted, want a root and two keys", n)
	}
	if err := opens(t, store, next); err != nil {
		t.Error(err)
	}
	for what, c := range map[string]struct {
		key  vault.KeyWrapper
		says string
	}{"older": {old, "older"}, "unknown": {third, third.ID()}, "absent": {nil, next.ID()}} {
		if err := opens(t, store, c.key); !errors.Is(err, vault.ErrWrongKey) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s key: %v", what, err)
		}
	}
	// The server goes on: a new one gets its key under the new master key.
	v := must(vault.Open(ctxOf, store, next, vault.Options{}))(t)
	if err := v.CreateServer(ctxOf, server); !errors.Is(err, vault.ErrExists) {
		t.Errorf("create again: %v", err)
	}
	v.Close()
	must(vault.Rewrap(ctxOf, store, next, third))(t)
	must(vault.Retire(ctxOf, store, third))(t)
	if err := opens(t, store, third); err != nil {
		t.Error(err)
	}
	if _, err := vault.Rewrap(ctxOf, store, third, third); err == nil {
		t.Error("a key is changed to itself")
	}
}

// TestChangeOfMasterKeyCutShort: whatever store operation fails, and however, a key
// opens everything, and doing it again completes it.
func TestChangeOfMasterKeyCutShort(t *testing.T) {
	world, old := rotationWorld(t)
	next := newKey(t)
	both := cloneStore(t, world)
	must(vault.Rewrap(ctxOf, both, old, next))(t)
	for _, outcome := range blobtest.Outcomes {
		for n, hit := 1+rand.IntN(step(1, 9)), true; hit; n += step(1, 9) {
			store := cloneStore(t, world)
			faults := blobtest.NewFaults(store, n, outcome)
			_, err := vault.Rewrap(ctxOf, faults, old, next)
			hit = faults.Hit()
			what := fmt.Sprintf("rewrap, operation %d %s", n, outcome)
			if opened := opens(t, store, old); opened != nil {
				t.Fatalf("%s: the old key: %v", what, opened)
			}
			if opened := opens(t, store, next); err == nil && opened != nil || opened != nil && !errors.Is(opened, vault.ErrWrongKey) {
				t.Fatalf("%s (%v): the new key: %v", what, err, opened)
			}
			if _, err := vault.Rewrap(ctxOf, store, old, next); err != nil {
				t.Fatalf("%s, then again: %v", what, err)
			}
			must(vault.Retire(ctxOf, store, next))(t)
			if err := opens(t, store, next); err != nil {
				t.Fatalf("%s, in the end: %v", what, err)
			}
		}
		for n, hit := 1+rand.IntN(step(1, 9)), true; hit; n += step(1, 9) {
			store := cloneStore(t, both)
			faults := blobtest.NewFaults(store, n, outcome)
			_, _ = vault.Retire(ctxOf, faults, next) // what counts is what it leaves
			hit = faults.Hit()
			what := fmt.Sprintf("retire, operation %d %s", n, outcome)
			if err := opens(t, store, next); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			must(vault.Retire(ctxOf, store, next))(t)
			if names := strings.Join(store.Names(), "\n"); strings.Count(names, ".root") != 1 || strings.Count(names, ".key") != 2 {
				t.Fatalf("%s: left over:\n%s", what, names)
			}
		}
	}
}

// A server whose key is damaged keeps the old master key in force, and is named.
func TestNoKeyIsRetiredBeforeAllAreRewrapped(t *testing.T) {
	store, old := rotationWorld(t)
	next := newKey(t)
	name := "keys/" + string(secondServer) + "/0000000000000001.key"
	whole := store.Bytes(name)
	store.Replace(name, append([]byte("x"), whole[1:]...))
	if _, err := vault.Rewrap(ctxOf, store, old, next); !detected(err) || !strings.Contains(err.Error(), string(secondServer)) {
		t.Errorf("rewrap with a damaged key: %v", err)
	}
	if _, err := vault.Retire(ctxOf, store, next); !errors.Is(err, vault.ErrWrongKey) {
		t.Errorf("retire before that: %v", err)
	}
	store.Replace(name, whole)
	must(vault.Rewrap(ctxOf, store, old, next))(t)
	store.Replace("keys/"+string(secondServer)+"/0000000000000002.key", nil)
	if _, err := vault.Retire(ctxOf, store, next); err == nil {
		t.Error("retired although a server has no key under the new master key")
	}
	if err := opens(t, store, old); err != nil {
		t.Error(err)
	}
}
