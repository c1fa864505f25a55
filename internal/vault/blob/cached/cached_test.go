package cached_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/blob/blobtest"
	"lifeboat/internal/vault/blob/cached"
)

// remote counts what is asked of a store.
type remote struct {
	*blobtest.Mem
	reads atomic.Int64
	hold  chan struct{} // reads wait until it is closed; nil: they do not
}

func (r *remote) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	r.reads.Add(1)
	if r.hold != nil {
		select {
		case <-r.hold:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	return r.Mem.ReadAt(ctx, name, p, off)
}

func newRemote(t *testing.T, size int) (*remote, []byte) {
	t.Helper()
	content := make([]byte, size)
	rnd := rand.NewChaCha8([32]byte{1})
	rnd.Read(content)
	r := &remote{Mem: blobtest.NewMem()}
	if err := r.PutIfAbsent(t.Context(), "a/object", content); err != nil {
		t.Fatal(err)
	}
	return r, content
}

func open(t *testing.T, dir string, limit int64, r cached.Reader) *cached.Cache {
	t.Helper()
	c, err := cached.Open(dir, limit, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func read(t *testing.T, c *cached.Cache, content []byte, off int64, n int) {
	t.Helper()
	p := make([]byte, n)
	got, err := c.ReadAt(t.Context(), "a/object", p, off)
	want := content[min(off, int64(len(content))):min(off+int64(n), int64(len(content)))]
	if got != len(want) || !bytes.Equal(p[:got], want) || errors.Is(err, io.EOF) != (len(want) < n) || err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("read %d at %d: %d bytes, %v; want %d", n, off, got, err, len(want))
	}
}

// TestReadsAsTheStoreDoes compares random reads, also past the end, fresh and kept.
func TestReadsAsTheStoreDoes(t *testing.T) {
	for _, size := range []int{1, cached.BlockSize, 5*cached.BlockSize + 7777, 4 * cached.BlockSize} {
		r, content := newRemote(t, size)
		dir := t.TempDir()
		for range 2 {
			c := open(t, dir, 64<<20, r)
			for range 200 {
				read(t, c, content, rand.Int64N(int64(size)+cached.BlockSize), 1+rand.IntN(3*cached.BlockSize))
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := open(t, dir, 1<<20, r).ReadAt(t.Context(), "no", make([]byte, 1), 0); !errors.Is(err, blob.ErrAbsent) {
			t.Errorf("absent: %v", err)
		}
	}
}

// TestKeptBlocksAreNotFetchedAgain, neither by this process nor by the next.
func TestKeptBlocksAreNotFetchedAgain(t *testing.T) {
	r, content := newRemote(t, 8*cached.BlockSize)
	dir := t.TempDir()
	c := open(t, dir, 64<<20, r)
	read(t, c, content, 0, len(content))
	if n := r.reads.Load(); n != 2 {
		t.Errorf("%d requests for eight blocks, want two", n)
	}
	c.Close() // written by then
	c = open(t, dir, 64<<20, r)
	read(t, c, content, 0, len(content))
	if n := r.reads.Load(); n != 2 {
		t.Errorf("%d requests more after a restart", n-2)
	}
	if s := c.Stats(); s.Hits != 8 || s.Misses != 0 || s.Bytes < 8*cached.BlockSize {
		t.Errorf("%+v", s)
	}
	c.Forget("a/object", 0, cached.BlockSize)
	read(t, c, content, 10, 10)
	if n := r.reads.Load(); n != 3 {
		t.Errorf("what was to be forgotten was not fetched again")
	}
	c.Close()
}

// TestDamagedBlocksAreFetchedAnew damages every file in every way.
func TestDamagedBlocksAreFetchedAnew(t *testing.T) {
	r, content := newRemote(t, 3*cached.BlockSize+5)
	for name, damage := range map[string]func(b []byte) []byte{
		"flip":       func(b []byte) []byte { b[rand.IntN(len(b))] ^= 1 << rand.IntN(8); return b },
		"torn":       func(b []byte) []byte { return b[:rand.IntN(len(b))] },
		"longer":     func(b []byte) []byte { return append(b, 0) },
		"zeroed":     func(b []byte) []byte { clear(b); return b },
		"half empty": func(b []byte) []byte { clear(b[len(b)/2:]); return b },
		"swapped":    nil,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for range 10 {
				c := open(t, dir, 64<<20, r)
				read(t, c, content, 0, len(content))
				c.Close()
				files := blockFiles(t, dir)
				if len(files) != 4 {
					t.Fatalf("%d blocks are kept, want 4", len(files))
				}
				for i, file := range files {
					b, err := os.ReadFile(file)
					if err != nil {
						t.Fatal(err)
					}
					if damage != nil {
						b = damage(b)
					} else if b, err = os.ReadFile(files[(i+1)%4]); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(file, b, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				c = open(t, dir, 64<<20, r)
				read(t, c, content, 0, len(content))
				if s := c.Stats(); name != "swapped" && s.Damaged != 4 {
					t.Errorf("%d blocks were seen to be damaged, want 4", s.Damaged)
				}
				c.Close()
			}
		})
	}
}

func blockFiles(t *testing.T, dir string) (out []string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, path)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTheDirectoryMayGo while it is read from and written to.
func TestTheDirectoryMayGo(t *testing.T) {
	r, content := newRemote(t, 16*cached.BlockSize)
	dir := filepath.Join(t.TempDir(), "cache")
	c := open(t, dir, 5*cached.BlockSize, r)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				p := make([]byte, 4096)
				off := rand.Int64N(int64(len(content) - len(p)))
				if n, err := c.ReadAt(context.Background(), "a/object", p, off); n != len(p) || err != nil || !bytes.Equal(p, content[off:off+4096]) {
					t.Errorf("read at %d: %d, %v", off, n, err)
				}
			}
		})
	}
	for range 50 {
		os.RemoveAll(dir)
	}
	wg.Wait()
	c.Close()
}

// TestSizeIsBounded: the blocks used least recently go.
func TestSizeIsBounded(t *testing.T) {
	r, content := newRemote(t, 64*cached.BlockSize)
	dir := t.TempDir()
	const limit = 10 * (cached.BlockSize + 100)
	c := open(t, dir, limit, r)
	for off := 0; off < len(content); off += cached.BlockSize {
		read(t, c, content, int64(off), 100)
		read(t, c, content, 0, 100) // in use all the time
	}
	c.Close()
	size := int64(0)
	for _, file := range blockFiles(t, dir) {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > limit || size < limit/2 {
		t.Errorf("%d bytes are kept, want at most %d", size, limit)
	}
	before := r.reads.Load()
	c = open(t, dir, limit/4, r) // made smaller: some go at once
	if s := c.Stats(); s.Bytes > limit/4 {
		t.Errorf("%d bytes are kept, want at most %d", s.Bytes, limit/4)
	}
	c.Close()
	if r.reads.Load() != before {
		t.Error("opening reads from the store")
	}
}

// TestUselessDirectories: what cannot be written is done without.
func TestUselessDirectories(t *testing.T) {
	r, content := newRemote(t, 3*cached.BlockSize)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"a file": file, "below a file": filepath.Join(file, "x"), "full": "/dev/full/x", "read-only": "/proc/lifeboat"} {
		c := open(t, dir, 64<<20, r)
		for range 3 {
			read(t, c, content, 0, len(content))
		}
		if err := c.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := open(t, t.TempDir(), 0, r)
	read(t, c, content, 5, 100)
	c.Close()
}

// TestOneFetchServesAll: readers of one block wait for one request, and are not hurt
// when the one who made it gives up.
func TestOneFetchServesAll(t *testing.T) {
	r, content := newRemote(t, cached.BlockSize)
	r.hold = make(chan struct{})
	c := open(t, t.TempDir(), 64<<20, r)
	ctx, giveUp := context.WithCancelCause(t.Context())
	errs := make(chan error, 9)
	go func() {
		_, err := c.ReadAt(ctx, "a/object", make([]byte, 10), 0)
		errs <- err
	}()
	for r.reads.Load() == 0 { // the first one is on its way
		select {
		case err := <-errs:
			t.Fatal(err)
		default:
		}
	}
	for range 8 {
		go func() {
			p := make([]byte, 10)
			_, err := c.ReadAt(context.Background(), "a/object", p, 20)
			if err == nil && !bytes.Equal(p, content[20:30]) {
				err = errors.New("other bytes")
			}
			errs <- err
		}()
	}
	gone := errors.New("gone")
	giveUp(gone)
	if err := <-errs; !errors.Is(err, gone) {
		t.Errorf("who gave up: %v", err)
	}
	close(r.hold)
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := r.reads.Load(); n > 9 {
		t.Errorf("%d requests", n)
	}
	c.Close()
}

// FuzzBlock: whatever lies in a block's file, a read returns what the store has.
func FuzzBlock(f *testing.F) {
	content := []byte("what the store has")
	r := &remote{Mem: blobtest.NewMem()}
	if err := r.PutIfAbsent(context.Background(), "a/object", content); err != nil {
		f.Fatal(err)
	}
	dir := f.TempDir()
	c, err := cached.Open(dir, 1<<20, r, nil)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := c.ReadAt(context.Background(), "a/object", make([]byte, 5), 0); err != nil {
		f.Fatal(err)
	}
	c.Close()
	files, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil || len(files) != 1 {
		f.Fatal(files, err)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte(strings.Replace(string(good), "LBCACHE1", "LBCACHE2", 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.MkdirAll(filepath.Dir(files[0]), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(files[0], b, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := cached.Open(dir, 1<<20, r, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		p := make([]byte, len(content))
		if n, err := c.ReadAt(t.Context(), "a/object", p, 0); n != len(p) || err != nil || !bytes.Equal(p, content) {
			t.Fatalf("read %q, %v", p[:n], err)
		}
	})
}
