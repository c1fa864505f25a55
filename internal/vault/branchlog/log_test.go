package branchlog_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"lifeboat/internal/vault/branchlog"
)

func TestWritesCoverTheBase(t *testing.T) {
	for name, key := range keys {
		for _, size := range []int{1 << 20, 1<<20 + 512, 1<<20 - 4095} {
			t.Run(fmt.Sprintf("%s %d", name, size), func(t *testing.T) {
				base := newBase(size, 1)
				want := bytes.Clone(base)
				dir := create(t, int64(size), key)
				l := open(t, dir, key, base)
				check(t, l, want)
				for i, w := range []struct{ off, n int }{
					{0, 4096}, {4096, 8192}, {5000, 10}, {8191, 2}, {12288 - 1, 4098}, {size - 1, 1}, {size - 5000, 5000},
					{600000, 1}, {300000, 200000}, {0, 0},
				} {
					p := bytes.Repeat([]byte{byte(i + 1)}, w.n)
					copy(want[w.off:], p)
					write(t, l, p, int64(w.off))
					check(t, l, want)
				}
				clear(want[100:9000])
				if err := l.Zero(ctx, 100, 8900, true); err != nil {
					t.Fatal(err)
				}
				clear(want[size-9000:])
				if err := l.Trim(ctx, int64(size-9000), 9000); err != nil {
					t.Fatal(err)
				}
				check(t, l, want)
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				l = open(t, dir, key, base)
				check(t, l, want)
				write(t, l, []byte("again"), 10)
				copy(want[10:], "again")
				check(t, l, want)
			})
		}
	}
}

func TestRefusals(t *testing.T) {
	base := newBase(1<<20, 1)
	dir := create(t, base.Size(), testKey)
	is := func(what string, got, want error) {
		t.Helper()
		if !errors.Is(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	is("create where one is", branchlog.Create(dir, 1<<20, testKey), fs.ErrExist)
	_, err := branchlog.Open(dir+"x", testKey, base)
	is("open where none is", err, fs.ErrNotExist)
	_, err = branchlog.Open(dir, nil, base)
	is("open without the key", err, branchlog.ErrWrongKey)
	_, err = branchlog.Open(dir, bytes.Repeat([]byte{1}, 32), base)
	is("open with another key", err, branchlog.ErrWrongKey)
	if _, err = branchlog.Open(dir, testKey, newBase(2<<20, 1)); err == nil {
		t.Error("a base of another size was accepted")
	}
	if err := branchlog.Create(dir+"y", 1<<20, []byte("short")); err == nil {
		t.Error("a short key was accepted")
	}
	if err := branchlog.Create(dir+"y", 0, nil); err == nil {
		t.Error("a disk of no bytes was accepted")
	}
	l := open(t, dir, testKey, base)
	_, err = branchlog.Open(dir, testKey, base)
	is("open twice", err, branchlog.ErrInUse)
	is("destroy an open one", branchlog.Destroy(dir), branchlog.ErrInUse)
	for _, r := range []struct{ off, n int64 }{{-1, 1}, {1 << 20, 1}, {1<<20 - 1, 2}} {
		if _, err := l.WriteAt(make([]byte, r.n), r.off); err == nil {
			t.Errorf("a write of %d at %d was accepted", r.n, r.off)
		}
		if _, err := l.ReadAt(make([]byte, r.n), r.off); err == nil {
			t.Errorf("a read of %d at %d was accepted", r.n, r.off)
		}
		if err := l.Zero(ctx, r.off, r.n, true); err == nil {
			t.Errorf("zeroing %d at %d was accepted", r.n, r.off)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
	_, err = l.WriteAt([]byte("x"), 0)
	is("write after Close", err, branchlog.ErrClosed)
	is("flush after Close", l.Flush(ctx), branchlog.ErrClosed)
	_, err = l.ReadAt(make([]byte, 1), 0)
	is("read after Close", err, branchlog.ErrClosed)
	if err := branchlog.Destroy(dir); err != nil {
		t.Error(err)
	}
	is("destroy what is gone", branchlog.Destroy(dir), fs.ErrNotExist)
	if left, _ := os.ReadDir(filepath.Dir(dir)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestCreateAfterACrash starts over from what a crashed Create or Destroy left.
func TestCreateAfterACrash(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "disk-0")
	for _, left := range []string{".disk-0.new.0123", ".disk-0.old.4567"} {
		if err := os.MkdirAll(filepath.Join(filepath.Dir(dir), left), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	base := newBase(1<<20, 1)
	if _, err := branchlog.Open(dir, testKey, base); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Open: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil { // an empty directory is no log
		t.Fatal(err)
	}
	if err := branchlog.Create(dir, base.Size(), testKey); err != nil {
		t.Fatal(err)
	}
	open(t, dir, testKey, base).Close()
	if err := branchlog.Destroy(dir); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(dir)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestNothingReadableIsStored(t *testing.T) {
	base := newBase(1<<20, 1)
	secret := bytes.Repeat([]byte("the customer's secret. "), 1000)
	for name, key := range keys {
		dir := create(t, base.Size(), key)
		l := open(t, dir, key, base)
		write(t, l, secret, 12345)
		l.Close()
		found := false
		for _, f := range logFiles(t, dir) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			found = found || bytes.Contains(b, secret[:40])
		}
		if found != (key == nil) {
			t.Errorf("%s: the text is readable: %v", name, found)
		}
	}
}

func TestExtents(t *testing.T) {
	base := newBase(1<<20, 1) // data in the first half
	dir := create(t, base.Size(), testKey)
	l := open(t, dir, testKey, base)
	write(t, l, make([]byte, 8192), 768<<10) // data in the hole
	if err := l.Trim(ctx, 128<<10, 64<<10); err != nil {
		t.Fatal(err)
	}
	describe := func(l *branchlog.Log, off, n int64) (s string) {
		var last bool
		var sum int64
		err := l.Extents(ctx, off, n, func(length int64, hole bool) bool {
			if sum > 0 && hole != last {
				s += fmt.Sprintf("%d %v,", sum, last)
				sum = 0
			}
			last, sum = hole, sum+length
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		return s + fmt.Sprintf("%d %v", sum, last)
	}
	for _, tc := range []struct {
		off, n int64
		want   string
	}{
		{0, 1 << 20, "131072 false,65536 true,327680 false,262144 true,8192 false,253952 true"},
		{130 << 10, 100, "100 true"},
		{100, 131072, "130972 false,100 true"},
		{768<<10 - 1, 3, "1 true,2 false"},
	} {
		if got := describe(l, tc.off, tc.n); got != tc.want {
			t.Errorf("%d+%d: %s, want %s", tc.off, tc.n, got, tc.want)
		}
	}
	l.Close()
	l = open(t, dir, testKey, plainBase{base})
	if got, want := describe(l, 0, 1<<20), "131072 false,65536 true,851968 false"; got != want {
		t.Errorf("over a base without a map: %s, want %s", got, want)
	}
}

// TestConcurrentWrites has writers change neighbouring bytes of the same blocks:
// each must find all of its own bytes afterwards.
func TestConcurrentWrites(t *testing.T) {
	const size, writers = 256 << 10, 16
	base := newBase(size, 1)
	dir := create(t, size, testKey)
	l := openSmall(t, dir, testKey, base, 512)
	want := bytes.Clone(base)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 3))
			for i := range 300 {
				// The w-th sixteenth of each 1000 bytes is this writer's alone.
				off := rnd.IntN(size/1000)*1000 + w*62
				p := bytes.Repeat([]byte{byte(rnd.Uint32())}, 62)
				if _, err := l.WriteAt(p, int64(off)); err != nil {
					t.Error(err)
				}
				copy(want[off:], p)
				if i%64 == 0 {
					if err := l.Flush(ctx); err != nil {
						t.Error(err)
					}
				}
				got := make([]byte, 62)
				if _, err := l.ReadAt(got, int64(off)); err != nil || !bytes.Equal(got, p) {
					t.Errorf("writer %d reads %x, %v, want %x", w, got, err, p)
				}
			}
		})
	}
	wg.Wait()
	check(t, l, want)
	l.Close()
	check(t, open(t, dir, testKey, base), want)
}

func TestRecords(t *testing.T) {
	base := newBase(4<<20, 1)
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			dir := create(t, base.Size(), key)
			l := openSmall(t, dir, key, base, 200)
			want := bytes.Clone(base)
			rnd := rand.New(rand.NewPCG(5, 6))
			replica := bytes.Clone(base)
			var since uint64
			for range 40 {
				for range 10 {
					off := rnd.IntN(len(base) - 100000)
					p := bytes.Repeat([]byte{byte(rnd.Uint32())}, rnd.IntN(100000))
					if rnd.IntN(4) == 0 {
						clear(p)
						if err := l.Trim(ctx, int64(off), int64(len(p))); err != nil {
							t.Fatal(err)
						}
					} else {
						write(t, l, p, int64(off))
					}
					copy(want[off:], p)
				}
				last := since
				for r, err := range l.Records(ctx, since) {
					if err != nil {
						t.Fatal(err)
					}
					if r.Sequence < last || r.Sequence <= since {
						t.Fatalf("record %d after %d, since %d", r.Sequence, last, since)
					}
					last = r.Sequence
					at := replica[r.Block*branchlog.BlockSize:][:int(r.Count)*branchlog.BlockSize]
					if clear(at); r.Kind == branchlog.Data {
						copy(at, r.Data)
					}
				}
				since = last
				if !bytes.Equal(replica, want) {
					t.Fatalf("the replica differs at sequence %d", since)
				}
				if rnd.IntN(8) == 0 {
					l.Close()
					l = openSmall(t, dir, key, base, 200)
				}
			}
		})
	}
}
