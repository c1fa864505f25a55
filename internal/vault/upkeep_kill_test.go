package vault_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
)

// crashFolding makes the child maintain the vault while it commits.
const crashFolding = "LIFEBOAT_TEST_CRASH_FOLDING"

// lastPoint returns the number of the newest point; 0: there is none.
func lastPoint(p *drs.RecoveryPoint) (n uint64) {
	if p != nil {
		_, _ = fmt.Sscanf(string(p.ID), "pit-%x", &n)
	}
	return n
}

// foldingChild commits until it is killed, says so after each commit, and folds, trims
// and collects all the while.
func foldingChild(dir string) error {
	store, err := blob.OpenDir(filepath.Join(dir, "vault"))
	if err != nil {
		return err
	}
	keys, err := vault.LoadKeyFile(filepath.Join(dir, "key"))
	if err != nil {
		return err
	}
	v, err := vault.Open(ctxOf, store, keys, upkeepOptions())
	if err != nil {
		return err
	}
	w, err := v.Writer(ctxOf, server, vault.MainBranch)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { // dies with the process
		for {
			if _, err := v.Maintain(ctxOf, server, upkeepPolicy, upkeepClock()); err != nil {
				failed <- err
				return
			}
		}
	}()
	for {
		select {
		case err := <-failed:
			return err
		default:
		}
		n, err := commitStamped(w)
		if err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// commitStamped commits the next point and returns its number.
func commitStamped(w *vault.Writer) (n uint64, err error) {
	n = lastPoint(w.Head().LastPoint) + 1
	e, err := w.Begin(ctxOf, []vault.Volume{{ID: 1, Size: crashBlocks * vault.BlockSize}})
	if err != nil {
		return n, err
	}
	first, count := crashWrites(n)
	for b := first; b < first+count; b += vault.FrameBlocks {
		k := min(vault.FrameBlocks, first+count-b)
		raw := bytes.Repeat(blocks(n, 1), int(k))
		if err := e.Append(frame(1, raw, vault.CodecS2, vault.Extent{Block: b, Count: uint32(k)})); err != nil {
			return n, err
		}
	}
	_, err = e.Commit(ctxOf, point(int(n)))
	return n, err
}

// TestKillWhileFolding kills a process that commits and folds, at no particular moment,
// again and again. Every point that is listed must read right, and what the process said
// it had committed must be the newest, but for one commit more.
func TestKillWhileFolding(t *testing.T) {
	dir := t.TempDir()
	must(vault.CreateKeyFile(filepath.Join(dir, "key")))(t)
	keys := must(vault.LoadKeyFile(filepath.Join(dir, "key")))(t)
	path := filepath.Join(dir, "vault")
	store := must(blob.CreateDir(path))(t)
	newVault(t, store, keys, upkeepOptions())
	store.Close()

	for round := range 8 {
		acked := killedChild(t, dir, 5+rand.IntN(20), crashFolding+"=1")
		store := must(blob.OpenDir(path))(t)
		v := must(vault.Open(ctxOf, store, keys, upkeepOptions()))(t)
		points := must(v.Points(ctxOf, server))(t)
		newest := lastPoint(&points[len(points)-1])
		if newest < acked || newest > acked+1 {
			t.Fatalf("round %d: the newest point is %d, acknowledged was %d", round, newest, acked)
		}
		contents := &disk{}
		contents.grow(crashBlocks * vault.BlockSize)
		for n, i := uint64(1), 0; n <= newest; n++ {
			first, count := crashWrites(n)
			for b := first; b < first+count; b++ {
				copy(contents.data[b*vault.BlockSize:], blocks(n, 1))
			}
			if lastPoint(&points[i]) == n {
				img := must(v.OpenPoint(ctxOf, server, points[i].ID))(t)
				contents.check(t, img, 1)
				img.Close()
				i++
			}
		}
		if round == 7 {
			// What the killed epoch had written out is garbage for certain once the
			// branch has passed its sequences: the next large epoch does.
			w := must(v.Writer(ctxOf, server, vault.MainBranch))(t)
			for range 5 {
				newest = must(commitStamped(w))(t)
			}
			for range 3 {
				must(v.Maintain(ctxOf, server, upkeepPolicy, upkeepClock()))(t)
			}
			must(v.Collect(ctxOf, server))(t)
			v.WaitTasks()
			if freed := must(v.Collect(ctxOf, server))(t); freed.Segments.Objects+freed.Unknown+freed.Unfinished > 0 {
				t.Errorf("collected twice: %+v", freed)
			}
			if _, err := store.Size(ctxOf, manifestOf(1)); len(points) > 60 || !errors.Is(err, blob.ErrAbsent) {
				t.Errorf("%d points of %d are left, manifest 1: %v", len(points), newest, err)
			}
		}
		v.Close()
		store.Close()
	}
}
