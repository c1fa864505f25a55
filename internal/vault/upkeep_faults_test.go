package vault_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/blob/blobtest"
	"lifeboat/internal/vault/retention"
)

// upkeepPolicy keeps three seconds, then one point of every four seconds for twelve.
var upkeepPolicy = retention.Policy{Journal: 3 * time.Second, Rules: []retention.Rule{{Every: 4 * time.Second, For: 12 * time.Second}}}

func upkeepClock() time.Time { return time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC) }

func upkeepOptions() vault.Options { return vault.Options{Now: upkeepClock}.Small() }

// runUpkeep commits up to n, folding as it goes, forks and drops. It returns the first
// error.
func (h *history) runUpkeep(store blob.Store, n int) error {
	v, err := vault.Open(ctxOf, store, h.keys, upkeepOptions())
	if err != nil {
		return err
	}
	defer func() {
		v.WaitTasks()
		v.Close()
	}()
	maintain := func() error {
		_, err := v.Maintain(ctxOf, server, upkeepPolicy, upkeepClock())
		return err
	}
	for i := h.acked + 1; i <= n; i++ {
		if err := h.commit(v, i); err != nil {
			return err
		}
		h.acked = i
		if i%3 == 0 {
			if err := maintain(); err != nil {
				return err
			}
		}
	}
	if err := v.Fork(ctxOf, server, point(n-1).ID, "i-1"); err != nil && !errors.Is(err, vault.ErrExists) {
		return err
	}
	if err := maintain(); err != nil {
		return err
	}
	// A collector may have finished a drop that was cut short.
	if err := v.DropBranch(ctxOf, server, "i-1"); err != nil && !errors.Is(err, vault.ErrAbsent) {
		return err
	}
	for range 4 {
		if err := maintain(); err != nil {
			return err
		}
	}
	_, err = v.Collect(ctxOf, server)
	return err
}

// verifyUpkeep opens the store as after a restart: every point listed must read right,
// and all that the policy keeps must be listed.
func (h *history) verifyUpkeep(t *testing.T, store blob.Store) {
	t.Helper()
	v := must(vault.Open(ctxOf, store, h.keys, upkeepOptions()))(t)
	defer v.Close()
	listed := map[string]bool{}
	newest := 0
	points, err := v.Points(ctxOf, server)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		var n int
		if _, err := fmt.Sscanf(string(p.ID), "pit-%x", &n); err != nil {
			t.Fatal(err)
		}
		listed[string(p.ID)], newest = true, max(newest, n)
		img := must(v.OpenPoint(ctxOf, server, p.ID))(t)
		h.contents[n].check(t, img, 1)
		img.Close()
	}
	if newest < h.acked || newest > h.acked+1 {
		t.Fatalf("the newest point is %d, acknowledged was %d", newest, h.acked)
	}
	h.acked = newest
	var all []retention.Point
	for i := 1; i <= newest; i++ {
		p := point(i)
		all = append(all, retention.Point{ID: p.ID, Taken: p.Taken, Epoch: uint64(i), Consistency: p.Consistency})
	}
	for _, k := range upkeepPolicy.Decide(all).Kept {
		if !listed[string(k.ID)] {
			t.Fatalf("of %d points %s is gone, which the policy keeps", newest, k.ID)
		}
	}
	if newest == 0 {
		return // there is no volume yet
	}
	img := must(v.OpenHead(ctxOf, server, vault.MainBranch))(t)
	h.contents[newest].check(t, img, 1)
	img.Close()
}

// TestUpkeepBearsEveryFault fails the Nth call to the store for every N, in every way,
// while points are dropped, folded, trimmed and collected, and goes on afterwards.
func TestUpkeepBearsEveryFault(t *testing.T) {
	const commits = 13
	keys, contents := newKey(t), historyContents(commits)
	empty := newStore(t)
	newVault(t, empty, keys, upkeepOptions())
	for i, outcome := range blobtest.Outcomes {
		t.Run(fmt.Sprint(outcome), func(t *testing.T) {
			t.Parallel()
			for n := range calls(1+i, 5, 800) { // the four of them together, and reruns, see most
				store := cloneStore(t, empty)
				h := &history{keys: keys, contents: contents}
				faults := blobtest.NewFaults(store, n, outcome)
				err := h.runUpkeep(faults, commits)
				if err != nil && !faults.Hit() {
					t.Fatalf("fault %d: an error without a fault: %v", n, err)
				}
				h.verifyUpkeep(t, store)
				if err := h.runUpkeep(store, commits); err != nil {
					t.Fatalf("fault %d: going on afterwards: %v", n, err)
				}
				h.verifyUpkeep(t, store)
				h.wantClean(t, n, store)
				if !faults.Hit() {
					t.Logf("a run survives %d faults", n-1)
					return
				}
			}
		})
	}
}

// wantClean wants nothing left to free, whatever happened before.
func (h *history) wantClean(t *testing.T, fault int, store blob.Store) {
	t.Helper()
	v := must(vault.Open(ctxOf, store, h.keys, upkeepOptions()))(t)
	defer v.Close()
	for range 2 {
		must(v.Maintain(ctxOf, server, upkeepPolicy, upkeepClock()))(t)
	}
	must(v.Collect(ctxOf, server))(t)
	v.WaitTasks()
	freed := must(v.Collect(ctxOf, server))(t)
	if freed.Segments.Objects != 0 || freed.Unknown != 0 || freed.Unfinished != 0 {
		t.Fatalf("fault %d: collected again and again: %+v", fault, freed)
	}
	if names := must(store.List(ctxOf, fmt.Sprintf("servers/%s/branches/i-1/", server)))(t); len(names) > 0 {
		t.Fatalf("fault %d: the dropped branch left %v", fault, names)
	}
	report := must(vault.Verify(ctxOf, store, h.keys, upkeepOptions(), vault.VerifyOptions{}))(t)
	if !report.Sound() || report.UnreferencedCount > 0 {
		t.Fatalf("fault %d: %+v", fault, report)
	}
}

func manifestOf(number int) string {
	return fmt.Sprintf("servers/%s/branches/main/%016x.manifest", server, number)
}
