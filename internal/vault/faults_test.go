package vault_test

import (
	"errors"
	"fmt"
	"testing"

	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/blob/blobtest"
)

// history is a fixed sequence of commits: number i makes content that depends on i
// only, so that any prefix can be checked.
type history struct {
	keys     vault.KeyWrapper
	contents []*disk // by number of commits
	acked    int     // commits that were acknowledged
	plain    bool
}

const historyBlocks = 60

// historyContents returns the disk after each number of commits up to n.
func historyContents(n int) []*disk {
	d := &disk{}
	d.grow(historyBlocks * vault.BlockSize)
	contents := []*disk{d.clone()}
	for i := 1; i <= n; i++ {
		for _, b := range historyWrites(i) {
			copy(d.data[b*vault.BlockSize:], blocks(uint64(i), 1))
		}
		clear(d.data[(i%historyBlocks)*vault.BlockSize:][:vault.BlockSize])
		contents = append(contents, d.clone())
	}
	return contents
}

// historyWrites are the blocks commit i writes: few (inline), or many (objects).
func historyWrites(i int) []int {
	n := 3
	if i%4 == 0 {
		n = 50
	}
	var out []int
	for k := range n {
		out = append(out, (i*7+k*11)%historyBlocks)
	}
	return out
}

func (h *history) commit(v *vault.Vault, i int) error {
	w, err := v.Writer(ctxOf, server, vault.MainBranch)
	if err != nil {
		return err
	}
	e, err := w.Begin(ctxOf, []vault.Volume{{ID: 1, Device: "sda", Size: historyBlocks * vault.BlockSize}})
	if err != nil {
		return err
	}
	defer e.Abort()
	for _, b := range historyWrites(i) {
		if err := e.Append(frame(1, blocks(uint64(i), 1), vault.CodecRaw, vault.Extent{Block: uint64(b), Count: 1})); err != nil {
			return err
		}
	}
	if err := e.Zero(1, uint64(i%historyBlocks), 1); err != nil {
		return err
	}
	_, err = e.Commit(ctxOf, point(i))
	return err
}

// run does n commits, a fork and its drop, through faults. It returns the
// first error.
func (h *history) run(store blob.Store, n int) error {
	v, err := vault.Open(ctxOf, store, h.keys, vault.Options{}.Small())
	if err != nil {
		return err
	}
	defer func() {
		v.WaitTasks()
		v.Close()
	}()
	for i := h.acked + 1; i <= n; i++ {
		if err := h.commit(v, i); err != nil {
			return err
		}
		h.acked = i
	}
	if err := v.Fork(ctxOf, server, point(2).ID, "i-1"); err != nil && !errors.Is(err, vault.ErrExists) {
		return err
	}
	if err := v.DropBranch(ctxOf, server, "i-1"); err != nil {
		return err
	}
	img, err := v.OpenPoint(ctxOf, server, point(3).ID)
	if err != nil {
		return err
	}
	defer img.Close()
	r, err := img.Volume(1)
	if err != nil {
		return err
	}
	_, err = r.ReadAt(make([]byte, r.Size()), 0)
	return err
}

// verify opens the store as after a restart. Every acknowledged commit must be
// there, at most one more, and nothing else; all must read right.
func (h *history) verify(t *testing.T, store blob.Store) {
	t.Helper()
	v, err := vault.Open(ctxOf, store, h.keys, vault.Options{}.Small())
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	points, err := v.Points(ctxOf, server)
	if err != nil {
		t.Fatal(err)
	}
	n := len(points)
	if n < h.acked || n > h.acked+1 {
		t.Fatalf("%d commits are there, %d were acknowledged", n, h.acked)
	}
	for i, p := range points {
		if p.ID != point(i+1).ID {
			t.Fatalf("point %d is %s", i+1, p.ID)
		}
		img, err := v.OpenPoint(ctxOf, server, p.ID)
		if err != nil {
			t.Fatal(err)
		}
		h.contents[i+1].check(t, img, 1)
		img.Close()
	}
	h.acked = n
}

// TestEveryFaultAtEveryCall fails the Nth call to the store for every N, in every
// way, and goes on with a fresh process.
func TestEveryFaultAtEveryCall(t *testing.T) {
	const commits = 9
	keys, contents := newKey(t), historyContents(commits)
	empty := newStore(t)
	newVault(t, empty, keys, vault.Options{}.Small())
	for _, outcome := range blobtest.Outcomes {
		t.Run(fmt.Sprint(outcome), func(t *testing.T) {
			t.Parallel()
			for n := range calls(1, 1, 262) {
				store := cloneStore(t, empty)
				h := &history{keys: keys, contents: contents}
				faults := blobtest.NewFaults(store, n, outcome)
				err := h.run(faults, commits)
				if err != nil && !faults.Hit() {
					t.Fatalf("fault %d: an error without a fault: %v", n, err)
				}
				h.verify(t, store)
				if err := h.run(store, commits); err != nil {
					t.Fatalf("fault %d: going on afterwards: %v", n, err)
				}
				h.verify(t, store)
				if h.acked != commits {
					t.Fatalf("fault %d: %d commits in the end, want %d", n, h.acked, commits)
				}
				if !faults.Hit() {
					t.Logf("a run survives %d faults", n-1)
					return
				}
			}
		})
	}
}

// TestTransientFaultsHealInPlace fails puts for a while under one open vault, as a
// full disk does: the vault goes on by itself when the cause is gone.
func TestTransientFaultsHealInPlace(t *testing.T) {
	keys, mem := newKey(t), newStore(t)
	newVault(t, mem, keys, vault.Options{}.Small())
	store := &fullStore{Store: mem}
	v := must(vault.Open(ctxOf, store, keys, vault.Options{}.Small()))(t)
	h := &history{keys: keys, contents: historyContents(12)}
	for i := 1; i <= 12; i++ {
		store.full.Store(true)
		if err := h.commit(v, i); !errors.Is(err, blob.ErrNoSpace) {
			t.Fatalf("commit %d on a full store: got %v, want ErrNoSpace", i, err)
		}
		store.full.Store(false)
		if err := h.commit(v, i); err != nil {
			t.Fatal(err)
		}
		h.acked = i
	}
	v.WaitTasks()
	v.Close()
	h.verify(t, mem)
}

// TestAFinishedWriterStaysFinished: after a failed write every call returns the
// first error.
func TestAFinishedWriterStaysFinished(t *testing.T) {
	mem := newStore(t)
	store := &fullStore{Store: mem}
	v := newVault(t, store, newKey(t), vault.Options{}.Small())
	w := must(v.Writer(ctxOf, server, vault.MainBranch))(t)
	e := must(w.Begin(ctxOf, []vault.Volume{{ID: 1, Size: 1 << 30}}))(t)
	store.full.Store(true)
	var err error
	for i := uint64(0); err == nil && i < 1000; i++ {
		err = e.Append(frame(1, blocks(i, 16), vault.CodecRaw, vault.Extent{Block: i * 16, Count: 16}))
	}
	if !errors.Is(err, blob.ErrNoSpace) {
		t.Fatalf("append to a full store: got %v, want ErrNoSpace", err)
	}
	store.full.Store(false)
	wantErr(t, e.Append(frame(1, blocks(1, 1), vault.CodecRaw, vault.Extent{Block: 0, Count: 1})), blob.ErrNoSpace)
	_, err = e.Commit(ctxOf, point(1))
	wantErr(t, err, blob.ErrNoSpace)
	_, err = w.Begin(ctxOf, nil)
	wantErr(t, err, blob.ErrNoSpace)
	if points := must(v.Points(ctxOf, server))(t); len(points) != 0 {
		t.Errorf("points %v after a failed epoch", points)
	}
}
