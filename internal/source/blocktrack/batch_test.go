package blocktrack

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestBatch: many reads at once are what the same reads are one by one, with and
// without the kernel's help, by many at a time.
func TestBatch(t *testing.T) {
	const blocks = 512
	content := make([]byte, blocks*blockSize-100)
	rand.NewChaCha8([32]byte{1}).Read(content)
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, denied := range []bool{false, true} {
		d, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		d.batches.denied = denied
		var group sync.WaitGroup
		for worker := range uint64(4) {
			group.Go(func() {
				random := rand.New(rand.NewPCG(worker, 1))
				for range 200 {
					reads := make([]batchRead, 1+random.IntN(batchMost))
					for i := range reads {
						at, n := random.IntN(blocks), 1+random.IntN(4)
						reads[i] = batchRead{buf: alignedBuffer(n * blockSize), off: int64(at) * blockSize}
					}
					d.readBatch(reads)
					for _, r := range reads {
						want := content[r.off:min(int(r.off)+len(r.buf), len(content))]
						if !bytes.Equal(r.buf[:r.n], want) || (r.err != nil) != (len(want) < len(r.buf)) {
							t.Errorf("read of %d at %d: %d bytes, %v, want %d", len(r.buf), r.off, r.n, r.err, len(want))
						}
						if r.err != nil && !errors.Is(r.err, io.EOF) {
							t.Errorf("end of the file: %v", r.err)
						}
					}
				}
			})
		}
		group.Wait()
		if got := len(d.batches.free) > 0; got == denied {
			t.Errorf("contexts of the kernel used: %v", got)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if d.batches.take() != nil {
			t.Error("a closed disk has contexts")
		}
	}
}

// TestBatchErrors: what the kernel refuses is the read's own error.
func TestBatchErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 4*blockSize), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	reads := []batchRead{{buf: alignedBuffer(blockSize)}, {buf: alignedBuffer(blockSize), off: -blockSize}, {buf: alignedBuffer(blockSize), off: 3 * blockSize}}
	d.readBatch(reads)
	if reads[0].err != nil || reads[2].err != nil || reads[0].n != blockSize || reads[2].n != blockSize {
		t.Errorf("good reads beside a bad one: %+v", reads)
	}
	if reads[1].err == nil || reads[1].n != 0 {
		t.Errorf("a read before the disk's begin: %d bytes, %v", reads[1].n, reads[1].err)
	}
	var gone *GoneError
	if !errors.As(d.explain(syscall.ENODEV), &gone) {
		t.Error("a vanished disk is not told")
	}
}

func TestPieces(t *testing.T) {
	for _, test := range []struct {
		ranges []Range
		want   int
	}{
		{nil, 0},
		{[]Range{{0, 1}}, 1},
		{[]Range{{0, blockSize}, {readSize - blockSize, blockSize}}, 1},
		{[]Range{{readSize - 1, 2}}, 2},
		{[]Range{{0, 1}, {readSize, 3 * readSize}, {4*readSize - 1, 1}, {9 * readSize, 1}}, 5},
	} {
		if got := (Changes{Ranges: test.ranges}).Pieces(); got != test.want {
			t.Errorf("%v: %d pieces, want %d", test.ranges, got, test.want)
		}
	}
}

// TestReadCountsBatches: who counts what is read of a disk does not take its batches.
func TestReadCountsBatches(t *testing.T) {
	const size, ranges = 4 << 20, 20
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, bytes.Repeat([]byte{7}, size), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var changes Changes
	for i := range int64(ranges) {
		changes.Ranges = append(changes.Ranges, Range{i * 16 * blockSize, blockSize})
	}
	var read, done atomic.Int64
	table := NewTable(size, sum)
	keep := func(c Chunk) error { table.Keep(c); return nil }
	if err := Read(t.Context(), d, table, Changes{All: true}, 1, &done, keep); err != nil {
		t.Fatal(err)
	}
	reading := Reading{Device: d, Table: table, Changes: changes, Done: &done, Read: &read, Emit: keep}
	if err := ReadAll(t.Context(), []Reading{reading}, 1); err != nil {
		t.Fatal(err)
	}
	if len(d.batches.free) == 0 {
		t.Error("blocks were read one by one")
	}
	if got := read.Load(); got != ranges*blockSize {
		t.Errorf("%d bytes read, counted as %d", ranges*blockSize, got)
	}
}
