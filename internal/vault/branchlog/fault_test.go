package branchlog_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"lifeboat/internal/durable"
	"lifeboat/internal/vault/branchlog"
)

func TestAfterAFailedSyncTheLogIsFinished(t *testing.T) {
	base := newBase(1<<20, 1)
	dir := create(t, base.Size(), testKey)
	boom := errors.New("the disk is on fire")
	fail := false
	l, err := branchlog.OpenWith(dir, testKey, base, durable.Files{Fault: func(op, _ string, do func() error) error {
		if fail && op == "sync branch log" {
			return boom
		}
		return do()
	}}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	write(t, l, []byte("x"), 0)
	flush(t, l)
	write(t, l, []byte("y"), 0)
	fail = true
	if err := l.Flush(ctx); !errors.Is(err, boom) {
		t.Fatalf("Flush: %v", err)
	}
	fail = false // too late
	_, werr := l.WriteAt([]byte("z"), 0)
	_, rerr := l.ReadAt(make([]byte, 1), 0)
	for what, err := range map[string]error{"flush": l.Flush(ctx), "write": werr, "read": rerr, "trim": l.Trim(ctx, 0, 4096)} {
		if !errors.Is(err, boom) {
			t.Errorf("%s after the failure: %v", what, err)
		}
	}
}

// TestFlushesShareASync has many wait for the disk at once.
func TestFlushesShareASync(t *testing.T) {
	base := newBase(1<<20, 1)
	dir := create(t, base.Size(), testKey)
	var syncs atomic.Int64
	gate := make(chan struct{})
	l, err := branchlog.OpenWith(dir, testKey, base, durable.Files{Fault: func(op, _ string, do func() error) error {
		if op == "sync branch log" {
			syncs.Add(1)
			<-gate
		}
		return do()
	}}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const n = 50
	var wrote, done sync.WaitGroup
	wrote.Add(n)
	for i := range n {
		done.Go(func() {
			write(t, l, []byte("x"), int64(i*5000))
			wrote.Done()
			wrote.Wait()
			flush(t, l)
		})
	}
	wrote.Wait()
	close(gate)
	done.Wait()
	if got := syncs.Load(); got > 2 {
		t.Errorf("%d syncs for %d flushes", got, n)
	}
}

// TestFullDisk fills a small file system. Writes fail with ENOSPC and change
// nothing; with space again the log goes on.
func TestFullDisk(t *testing.T) {
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("a small file system needs mount(2): %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(mount, syscall.MNT_DETACH) })
	base := newBase(16<<20, 1)
	dir := filepath.Join(mount, "disk-0")
	if err := branchlog.Create(dir, base.Size(), testKey); err != nil {
		t.Fatal(err)
	}
	l := openSmall(t, dir, testKey, base, 256)
	ballast := filepath.Join(mount, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(base)
	fill := func() (failed bool) {
		for off := 0; off < 8<<20; off += 100_000 {
			p := bytes.Repeat([]byte{byte(off / 100_000)}, 100_000)
			_, err := l.WriteAt(p, int64(off))
			if errors.Is(err, syscall.ENOSPC) {
				// What fitted of it may be there: groups are whole or absent.
				got := make([]byte, len(p))
				if _, err := l.ReadAt(got, int64(off)); err != nil {
					t.Fatal(err)
				}
				if !isMix(got[:100_000/4096*4096], p, want[off:]) && off%4096 == 0 {
					t.Fatal("a failed write left something else")
				}
				copy(want[off:], got)
				return true
			}
			if err != nil {
				t.Fatal(err)
			}
			copy(want[off:], p)
		}
		return false
	}
	if !fill() {
		t.Fatal("the disk did not fill up")
	}
	check(t, l, want)
	flush(t, l)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	p := bytes.Repeat([]byte{0xee}, 500_000)
	write(t, l, p, 12<<20)
	copy(want[12<<20:], p)
	if !fill() {
		t.Fatal("the disk did not fill up again")
	}
	check(t, l, want)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openSmall(t, dir, testKey, base, 256)
	check(t, l, want)
}
