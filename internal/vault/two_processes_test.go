package vault_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/retention"
)

// TestTwoProcesses lets two vaults on one store write, fork, maintain and collect at
// once. Whatever was acknowledged and is kept must read right, for readers of both.
func TestTwoProcesses(t *testing.T) {
	rounds := step(120, 12)
	const size = 64
	store, keys := newStore(t), newKey(t)
	n := 3 * rounds
	clock := func() time.Time { return point(n + 10).Taken }
	opt := vault.Options{Now: clock}.Small()
	a := newVault(t, store, keys, opt)
	b := must(vault.Open(t.Context(), store, keys, opt))(t)
	defer b.Close()

	var mu sync.Mutex
	held := map[drs.RecoverySnapshotID]*disk{}
	dropped := map[drs.RecoverySnapshotID]bool{}
	content := &disk{}
	content.grow(size * vault.BlockSize)

	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() { // the writer of one process
		defer close(done)
		w := must(a.Writer(ctxOf, server, vault.MainBranch))(t)
		for i := 1; i <= n; i++ {
			e := must(w.Begin(ctxOf, []vault.Volume{{ID: 1, Size: content.size}}))(t)
			for range 1 + rand.IntN(12) {
				block := rand.IntN(size)
				raw := blocks(uint64(i), 1)
				if err := e.Append(frame(1, raw, vault.CodecRaw, vault.Extent{Block: uint64(block), Count: 1})); err != nil {
					t.Error(err)
					return
				}
				copy(content.data[block*vault.BlockSize:], raw)
			}
			mu.Lock()
			held[point(i).ID] = content.clone()
			mu.Unlock()
			if _, err := e.Commit(ctxOf, point(i)); err != nil {
				t.Errorf("upkeep must not fence a writer: %v", err)
				return
			}
		}
	})
	over := func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
	policy := retention.Policy{Journal: 15 * time.Second, Rules: []retention.Rule{{Every: 10 * time.Second, For: time.Minute}}}
	for _, v := range []*vault.Vault{a, b} {
		wg.Go(func() {
			for !over() {
				r, err := v.Maintain(ctxOf, server, policy, clock())
				mu.Lock()
				for _, id := range r.Dropped {
					dropped[id] = true
				}
				mu.Unlock()
				if err == nil {
					_, err = v.Collect(ctxOf, server)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
		wg.Go(func() { // its readers
			for !over() {
				points, err := v.Points(ctxOf, server)
				if err != nil {
					t.Error(err)
					return
				}
				if len(points) == 0 {
					continue
				}
				id := points[rand.IntN(len(points))].ID
				mu.Lock()
				want := held[id]
				mu.Unlock()
				if _, err := readPoint(v, id, want); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() { // a machine that comes and goes
		for i := 0; !over(); i++ {
			points, err := b.Points(ctxOf, server)
			if err != nil || len(points) == 0 {
				continue
			}
			id := points[rand.IntN(len(points))].ID
			name := fmt.Sprintf("i-%d", i)
			err = b.Fork(ctxOf, server, id, name)
			if errors.Is(err, vault.ErrAbsent) || errors.Is(err, vault.ErrExists) {
				continue // dropped meanwhile; or taken for left over by the other process, which tidies up
			} else if err != nil && !strings.Contains(err.Error(), "try again") {
				t.Errorf("fork: %v", err)
				return
			}
			if err != nil {
				continue
			}
			mu.Lock()
			want := held[id]
			mu.Unlock()
			if gone, err := readPoint(b, id, want); err != nil || gone {
				t.Errorf("a point that a branch began at: gone %v, %v", gone, err)
			}
			if err := b.DropBranch(ctxOf, server, name); err != nil {
				t.Errorf("drop: %v", err)
				return
			}
		}
	})
	wg.Wait()
	points := must(a.Points(ctxOf, server))(t)
	for _, p := range points {
		if dropped[p.ID] {
			t.Errorf("%s is listed and was dropped", p.ID)
		}
		if gone, err := readPoint(a, p.ID, held[p.ID]); err != nil || gone {
			t.Errorf("%s: gone %v, %v", p.ID, gone, err)
		}
	}
	for i := 1; i <= n; i++ {
		id := point(i).ID
		if !dropped[id] && !slices.ContainsFunc(points, func(p drs.RecoveryPoint) bool { return p.ID == id }) {
			t.Errorf("%s vanished", id)
		}
	}
	t.Logf("%d points of %d are left", len(points), n)
}

// readPoint compares a point, unless it is gone.
func readPoint(v *vault.Vault, id drs.RecoverySnapshotID, want *disk) (gone bool, err error) {
	img, err := v.OpenPoint(ctxOf, server, id)
	if errors.Is(err, vault.ErrAbsent) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer img.Close()
	r, err := img.Volume(1)
	if err != nil {
		return false, err
	}
	got := make([]byte, want.size)
	_, err = r.ReadAt(got, 0)
	if errors.Is(err, vault.ErrAbsent) {
		return true, nil // folded away by the other process while we read
	}
	if err == nil && firstDifference(got, want.data) >= 0 {
		err = errors.New(string(id) + " reads wrong")
	}
	return false, err
}

// TestStaleWriterIsFenced: a writer that slept while its branch was written by another
// process, folded and trimmed, so that its next number is free again, must not win.
func TestStaleWriterIsFenced(t *testing.T) {
	store, keys := newStore(t), newKey(t)
	opt := upkeepOptions()
	other := newVault(t, store, keys, opt)
	h := &history{keys: keys, contents: historyContents(40)}
	if err := h.commit(other, 1); err != nil {
		t.Fatal(err)
	}
	sleeper := must(vault.Open(t.Context(), store, keys, opt))(t)
	defer sleeper.Close()
	w := must(sleeper.Writer(ctxOf, server, vault.MainBranch))(t)
	e := must(w.Begin(ctxOf, nil))(t)
	before := must(sleeper.Points(ctxOf, server))(t)
	for i := 2; i <= 40; i++ {
		if err := h.commit(other, i); err != nil {
			t.Fatal(err)
		}
		must(other.Maintain(ctxOf, server, upkeepPolicy, upkeepClock()))(t)
	}
	h.acked = 40
	if _, err := store.Size(ctxOf, manifestOf(3)); !errors.Is(err, blob.ErrAbsent) {
		t.Fatalf("manifest 3 was not trimmed: %v", err)
	}
	_, err := e.Commit(ctxOf, point(1000))
	wantErr(t, err, vault.ErrFenced)
	after := must(sleeper.Points(ctxOf, server))(t)
	if slices.Equal(before, after) || after[len(after)-1].ID != point(40).ID {
		t.Errorf("a process that slept sees %d points up to %s", len(after), after[len(after)-1].ID)
	}
	h.verifyUpkeep(t, store)
}
