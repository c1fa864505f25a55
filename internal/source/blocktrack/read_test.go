package blocktrack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

func sum(chunk []byte) Digest {
	s := sha256.Sum256(chunk)
	return Digest(s[:16])
}

// memDisk is a disk in memory with holes and faults.
type memDisk struct {
	data  []byte
	holes []Range
	size  func() (int64, error) // nil: len(data)
	fault func(off int64, n int) (int, error)
	reads atomic.Int64
}

func (d *memDisk) Name() string { return "memory" }

func (d *memDisk) Size() (int64, error) {
	if d.size != nil {
		return d.size()
	}
	return int64(len(d.data)), nil
}

func (d *memDisk) ReadAt(p []byte, off int64) (int, error) {
	d.reads.Add(int64(len(p)))
	if d.fault != nil {
		if n, err := d.fault(off, len(p)); err != nil {
			return n, err
		}
	}
	n := copy(p, d.data[min(off, int64(len(d.data))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (d *memDisk) Data(off int64) (Range, error) {
	end := int64(len(d.data))
	for _, h := range d.holes {
		if off >= h.Offset && off < h.Offset+h.Length {
			off = h.Offset + h.Length
		} else if h.Offset > off {
			end = min(end, h.Offset)
		}
	}
	if off >= int64(len(d.data)) {
		return Range{}, io.EOF
	}
	return Range{off, end - off}, nil
}

// changed reads everything and returns the chunks that differ, applying them.
func changed(t *testing.T, dev Device, table *Table, c Changes) map[int64]Chunk {
	t.Helper()
	var mu sync.Mutex
	found := map[int64]Chunk{}
	var done atomic.Int64
	err := Read(context.Background(), dev, table, c, 3, &done, func(chunk Chunk) error {
		mu.Lock()
		defer mu.Unlock()
		if _, twice := found[chunk.Index]; twice {
			t.Errorf("chunk %d came twice", chunk.Index)
		}
		chunk.Raw = bytes.Clone(chunk.Raw)
		found[chunk.Index] = chunk
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.All && done.Load() != table.Size() {
		t.Errorf("%d of %d bytes dealt with", done.Load(), table.Size())
	}
	for _, chunk := range found {
		table.Keep(chunk)
	}
	return found
}

// A model of random writes, zeros, holes and growth: what Read emits, applied to
// a copy, makes the copy equal to the disk; and a second pass is quiet.
func TestReadKeepsACopyEqual(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	disk := &memDisk{data: make([]byte, 5<<20+777)}
	table := NewTable(int64(len(disk.data)), sum)
	replica := make([]byte, len(disk.data))
	apply := func(found map[int64]Chunk) {
		for _, c := range found {
			c.Each(func(r Range, content []byte) {
				dst := replica[r.Offset:min(r.Offset+r.Length, int64(len(replica)))]
				clear(dst)
				copy(dst, content)
			})
		}
	}
	for round := range 60 {
		for range rng.IntN(4) {
			off := rng.IntN(len(disk.data))
			n := min(rng.IntN(300_000), len(disk.data)-off)
			if rng.IntN(3) == 0 {
				clear(disk.data[off : off+n])
			} else {
				disk.data[off] ^= byte(1 + rng.IntN(255))
			}
		}
		if round%9 == 8 {
			more := 1 + rng.IntN(200_000)
			disk.data = append(disk.data, make([]byte, more)...)
			replica = append(replica, make([]byte, more)...)
			if err := Read(context.Background(), disk, table, Changes{All: true}, 2, new(atomic.Int64), nil); !errors.Is(err, ErrGrown) {
				t.Fatalf("a grown disk: %v", err)
			}
			if err := table.Grow(int64(len(disk.data))); err != nil {
				t.Fatal(err)
			}
		}
		disk.holes = nil
		for off := 0; off+4096 <= len(disk.data); off += 4096 {
			if bytes.Equal(disk.data[off:off+4096], make([]byte, 4096)) && rng.IntN(2) == 0 {
				disk.holes = append(disk.holes, Range{int64(off), 4096})
			}
		}
		disk.holes = join(disk.holes)
		apply(changed(t, disk, table, Changes{All: true}))
		if !bytes.Equal(replica, disk.data) {
			t.Fatalf("round %d: the copy differs", round)
		}
		if again := changed(t, disk, table, Changes{All: true}); len(again) > 0 {
			t.Fatalf("round %d: %d chunks changed at rest", round, len(again))
		}
	}
}

func join(rs []Range) []Range {
	var out []Range
	for _, r := range rs {
		if n := len(out); n > 0 && out[n-1].Offset+out[n-1].Length == r.Offset {
			out[n-1].Length += r.Length
		} else {
			out = append(out, r)
		}
	}
	return out
}

func TestReadSkipsHolesAndOtherRanges(t *testing.T) {
	disk := &memDisk{data: make([]byte, 16<<20), holes: []Range{{0, 8 << 20}}}
	table := NewTable(16<<20, sum)
	if found := changed(t, disk, table, Changes{All: true}); len(found) > 0 {
		t.Errorf("%d chunks of zeros", len(found))
	}
	if n := disk.reads.Load(); n != 8<<20 {
		t.Errorf("%d bytes read", n)
	}
	disk.holes = nil
	for _, at := range []int{100, 70000, 1 << 20, 9 << 20, 16<<20 - 1} {
		disk.data[at] = 1
	}
	disk.reads.Store(0)
	found := changed(t, disk, table, Changes{Ranges: []Range{{90, 20}, {69000, 2000}, {9<<20 - 1, 2}}})
	var got []int64
	for i := range found {
		got = append(got, i)
	}
	slices.Sort(got)
	if !slices.Equal(got, []int64{0, 1, 9 << 20 / ChunkSize}) {
		t.Errorf("chunks %v", got)
	}
	if n := disk.reads.Load(); n > 5*ChunkSize {
		t.Errorf("%d bytes read for 4 chunks", n)
	}
}

// What cannot be read is an error that names the place, never zeros.
func TestReadFaults(t *testing.T) {
	const bad = 3<<20 + 4096
	broken := func(err error, n int) func(int64, int) (int, error) {
		return func(off int64, length int) (int, error) {
			if off <= bad && bad < off+int64(length) {
				return n, err
			}
			return 0, nil
		}
	}
	for _, test := range []struct {
		name  string
		fault func(off int64, n int) (int, error)
		size  func() (int64, error)
		want  func(error) bool
	}{
		{"bad sector", broken(syscall.EIO, 4096), nil, func(err error) bool {
			var e *ReadError
			return errors.As(err, &e) && e.Offset <= bad && e.Offset > bad-readSize && errors.Is(err, syscall.EIO)
		}},
		{"ends early", broken(io.EOF, 0), nil, func(err error) bool { var e *ReadError; return errors.As(err, &e) }},
		{"gone while read", broken(&GoneError{"memory", syscall.ENXIO}, 0), nil, func(err error) bool { var e *GoneError; return errors.As(err, &e) }},
		{"gone before", nil, func() (int64, error) { return 0, &GoneError{"memory", os.ErrNotExist} }, func(err error) bool { var e *GoneError; return errors.As(err, &e) }},
		{"shrunk", nil, func() (int64, error) { return 4 << 20, nil }, func(err error) bool {
			var e *ShrunkError
			return errors.As(err, &e) && e.Was == 8<<20 && e.Now == 4<<20
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			disk := &memDisk{data: make([]byte, 8<<20), fault: test.fault, size: test.size}
			err := Read(context.Background(), disk, NewTable(8<<20, sum), Changes{All: true}, 2, new(atomic.Int64), func(c Chunk) error {
				t.Errorf("chunk %d of a disk of zeros", c.Index)
				return nil
			})
			if !test.want(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestReadEndsWithItsContextAndItsEmit(t *testing.T) {
	disk := &memDisk{data: bytes.Repeat([]byte{1}, 64<<20)}
	stop := errors.New("stop")
	err := Read(context.Background(), disk, NewTable(64<<20, sum), Changes{All: true}, 2, new(atomic.Int64), func(Chunk) error { return stop })
	if !errors.Is(err, stop) || disk.reads.Load() > 8<<20 {
		t.Errorf("%v after %d bytes", err, disk.reads.Load())
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(stop)
	err = Read(ctx, disk, NewTable(64<<20, sum), Changes{All: true}, 2, new(atomic.Int64), func(Chunk) error { return nil })
	if !errors.Is(err, stop) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestOpenImageFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Truncate(64 << 20)
	f.WriteAt([]byte("data"), 32<<20)
	f.Close()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Block() || d.Cached() {
		t.Error("an image file is no block device")
	}
	table := NewTable(64<<20, sum)
	if found := changed(t, d, table, Changes{All: true}); len(found) != 1 || string(found[512].Raw[:4]) != "data" {
		t.Errorf("found %d chunks", len(found))
	}
	if r, err := d.Data(0); err != nil || r.Offset != 32<<20 {
		t.Logf("this file system tells no holes: %+v, %v", r, err)
	}

	os.Rename(path, path+".away")
	var gone *GoneError
	if _, err := d.Size(); !errors.As(err, &gone) {
		t.Errorf("a renamed file: %v", err)
	}
	os.WriteFile(path, []byte("another"), 0o600)
	if _, err := d.Size(); !errors.As(err, &gone) || !strings.Contains(err.Error(), "taken its name") {
		t.Errorf("a replaced file: %v", err)
	}
	os.WriteFile(path, nil, 0o600)
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("an empty file: %v", err)
	}
	if _, err := Open("/dev/null"); err == nil || !strings.Contains(err.Error(), "neither") {
		t.Errorf("a character device: %v", err)
	}
}

// A block device is read around the page cache: what another opener wrote past
// the cache is seen, and a device that is detached is gone.
func TestOpenBlockDevice(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("loop devices need root")
	}
	back := filepath.Join(t.TempDir(), "back.img")
	if err := os.WriteFile(back, make([]byte, 8<<20+512), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", back).Output()
	if err != nil {
		t.Skipf("no loop device here: %v", err)
	}
	loop := strings.TrimSpace(string(out))
	defer exec.Command("losetup", "--detach", loop).Run()

	d, err := Open(loop)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if !d.Block() {
		t.Error("a loop device is a block device")
	}
	size, err := d.Size()
	if err != nil || size != 8<<20+512 {
		t.Fatalf("size %d, %v", size, err)
	}
	table := NewTable(size, sum)
	if found := changed(t, d, table, Changes{All: true}); len(found) > 0 {
		t.Errorf("%d chunks of zeros", len(found))
	}
	w, err := os.OpenFile(loop, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt([]byte("tail"), 8<<20+508); err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt([]byte("head"), 0); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Sync(), w.Close()); err != nil {
		t.Fatal(err)
	}
	found := changed(t, d, table, Changes{All: true})
	if len(found) != 2 || !bytes.HasPrefix(found[0].Raw, []byte("head")) || string(found[128].Raw[508:512]) != "tail" || len(found[128].Raw) != 4096 {
		t.Errorf("found %d chunks", len(found))
	}
}

// Several disks are read in turn: a small one does not wait for the large one that
// comes before it.
func TestReadAllIsFair(t *testing.T) {
	large := &memDisk{data: bytes.Repeat([]byte{1}, 64<<20)}
	small := &memDisk{data: bytes.Repeat([]byte{2}, 4<<20)}
	var atEnd int64
	none := func(Chunk) error { return nil }
	last := func(c Chunk) error {
		if c.Index == int64(len(small.data))/ChunkSize-1 {
			atEnd = large.reads.Load()
		}
		return nil
	}
	err := ReadAll(context.Background(), []Reading{
		{large, NewTable(64<<20, sum), Changes{All: true}, new(atomic.Int64), new(atomic.Int64), none},
		{small, NewTable(4<<20, sum), Changes{All: true}, new(atomic.Int64), nil, last},
	}, 1)
	if err != nil || large.reads.Load() != 64<<20 || small.reads.Load() != 4<<20 {
		t.Errorf("%d and %d bytes read, %v", large.reads.Load(), small.reads.Load(), err)
	}
	if atEnd > 5<<20 {
		t.Errorf("the small disk waited for %d bytes of the large one", atEnd)
	}
}
