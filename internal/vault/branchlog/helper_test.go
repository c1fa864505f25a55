package branchlog_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"lifeboat/internal/durable"
	"lifeboat/internal/vault/branchlog"
)

type ctxType = context.Context

var ctx = context.Background()

// testBase is a base in memory. Pages it does not have read as zeros.
type testBase []byte

func (b testBase) Size() int64 { return int64(len(b)) }

func (b testBase) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Extents says hole for each 64 KiB of zeros.
func (b testBase) Extents(_ context.Context, off, n int64, yield func(int64, bool) bool) error {
	for end := off + n; off < end; {
		next := min(off/65536*65536+65536, end)
		if !yield(next-off, allZero(b[off:next])) {
			return nil
		}
		off = next
	}
	return nil
}

func allZero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

// plainBase knows nothing of holes.
type plainBase struct{ b testBase }

func (b plainBase) Size() int64                             { return b.b.Size() }
func (b plainBase) ReadAt(p []byte, off int64) (int, error) { return b.b.ReadAt(p, off) }

// newBase has random text in its first half.
func newBase(size int, seed uint64) testBase {
	b := make(testBase, size)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for i := range b[:size/2] {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

var testKey = bytes.Repeat([]byte{0x5a}, branchlog.KeySize)

// keys are both ways to store a log.
var keys = map[string][]byte{"encrypted": testKey, "plain": nil}

// fastDir is a directory in memory where there is one: these tests look at what
// is written and in which order, and a real fsync would only make them slow.
func fastDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "branchlog")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func create(t testing.TB, size int64, key []byte) string {
	t.Helper()
	dir := filepath.Join(fastDir(t), "disk-0")
	if err := branchlog.Create(dir, size, key); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t testing.TB, dir string, key []byte, base branchlog.Base) *branchlog.Log {
	t.Helper()
	return openSmall(t, dir, key, base, 64<<20/branchlog.BlockSize)
}

// openSmall opens with log files of so many blocks.
func openSmall(t testing.TB, dir string, key []byte, base branchlog.Base, blocks uint32) *branchlog.Log {
	t.Helper()
	l, err := branchlog.OpenWith(dir, key, base, durable.Files{}, blocks)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func write(t testing.TB, l *branchlog.Log, p []byte, off int64) {
	t.Helper()
	if n, err := l.WriteAt(p, off); err != nil || n != len(p) {
		t.Fatalf("write %d bytes at %d: %d, %v", len(p), off, n, err)
	}
}

func flush(t testing.TB, l *branchlog.Log) {
	t.Helper()
	if err := l.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// check compares the whole disk with want.
func check(t testing.TB, l *branchlog.Log, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := l.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("the disk differs at byte %d (block %d): %#x, want %#x", i, i/branchlog.BlockSize, got[i], want[i])
			}
		}
	}
}

// copyDir copies a log's directory as it is at this moment.
func copyDir(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(fastDir(t), "copy")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// logFiles are the paths of the log files, oldest first.
func logFiles(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}
