package vault_test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
)

// The environment of the child that TestKill kills.
const crashDir = "LIFEBOAT_TEST_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		child := crashChild
		if os.Getenv(crashFolding) != "" {
			child = foldingChild
		}
		fmt.Println("error:", child(dir))
		os.Exit(1)
	}
	debug.SetGCPercent(400) // many short lives of small vaults: else the collector is a third of the work
	os.Exit(m.Run())
}

const crashBlocks = 600

// crashWrites are the blocks that the commit of manifest n stamps: few, which lie
// in the manifest, or many, which need segments of their own.
func crashWrites(n uint64) (first, count uint64) {
	if n%5 == 0 {
		return 0, crashBlocks
	}
	return n * 13 % (crashBlocks - 3), 3
}

// crashChild commits until it is killed, and says so after each commit.
func crashChild(dir string) error {
	store, err := blob.OpenDir(filepath.Join(dir, "vault"))
	if err != nil {
		return err
	}
	keys, err := vault.LoadKeyFile(filepath.Join(dir, "key"))
	if err != nil {
		return err
	}
	v, err := vault.Open(ctxOf, store, keys, vault.Options{}.Small())
	if err != nil {
		return err
	}
	w, err := v.Writer(ctxOf, server, vault.MainBranch)
	if err != nil {
		return err
	}
	for {
		e, err := w.Begin(ctxOf, []vault.Volume{{ID: 1, Size: crashBlocks * vault.BlockSize}})
		if err != nil {
			return err
		}
		n := w.Head().Number + 1
		first, count := crashWrites(n)
		for b := first; b < first+count; b++ {
			if err := e.Append(frame(1, blocks(n, 1), vault.CodecS2, vault.Extent{Block: b, Count: 1})); err != nil {
				return err
			}
		}
		var p *drs.RecoveryPoint
		if n%3 == 0 {
			p = point(int(n))
		}
		if _, err := e.Commit(ctxOf, p); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// TestKill kills a committing process again and again, at no particular moment. What
// it said it had committed must be there, with at most one commit more.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	must(vault.CreateKeyFile(filepath.Join(dir, "key")))(t)
	keys := must(vault.LoadKeyFile(filepath.Join(dir, "key")))(t)
	path := filepath.Join(dir, "vault")
	store := must(blob.CreateDir(path))(t)
	newVault(t, store, keys, vault.Options{}.Small())
	store.Close()

	contents := &disk{}
	contents.grow(crashBlocks * vault.BlockSize)
	applied := uint64(1) // the empty branch is manifest 1
	for round := range 8 {
		acked := killedChild(t, dir, 1+rand.IntN(20))

		store := must(blob.OpenDir(path))(t)
		v := must(vault.Open(ctxOf, store, keys, vault.Options{}.Small()))(t)
		head := must(v.Writer(ctxOf, server, vault.MainBranch))(t).Head()
		if head.Number < acked || head.Number > acked+1 {
			t.Fatalf("round %d: head is %d, acknowledged was %d", round, head.Number, acked)
		}
		for ; applied < head.Number; applied++ {
			first, count := crashWrites(applied + 1)
			for b := first; b < first+count; b++ {
				copy(contents.data[b*vault.BlockSize:], blocks(applied+1, 1))
			}
		}
		img := must(v.OpenHead(ctxOf, server, vault.MainBranch))(t)
		contents.check(t, img, 1)
		img.Close()
		points := must(v.Points(ctxOf, server))(t)
		if want := head.Number / 3; uint64(len(points)) != want {
			t.Errorf("round %d: %d points, want %d", round, len(points), want)
		}
		v.Close()
		store.Close()
	}
	if left, _ := filepath.Glob(filepath.Join(path, ".tmp", "*")); len(left) > 0 {
		t.Errorf("temporary files left: %v", left)
	}
}

// killedChild lets a child commit n times or more, kills it, and returns the last
// commit it acknowledged.
func killedChild(t *testing.T, dir string, n int, env ...string) (acked uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), crashDir+"="+dir), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for i := 0; lines.Scan(); i++ {
		if _, err := fmt.Sscan(lines.Text(), &acked); err != nil {
			t.Fatalf("child: %s", lines.Text())
		}
		if i == n { // it is in the midst of the next commit
			cmd.Process.Kill()
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("child ended by itself: %v", err)
	}
	return acked
}
