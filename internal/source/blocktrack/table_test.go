package blocktrack

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
)

var testOrigin = Origin{Server: "s-0123456789abcdef0", Disk: "serial:7", Size: 5*ChunkSize + 777, Seed: 99}

func testTable(t *testing.T) (*Table, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "table")
	table, err := CreateTable(path, testOrigin, sum)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	return table, path
}

// What was settled before the seal is there after it, and nothing else is; and a
// table is sealed once only.
func TestTableLastsWhenSealed(t *testing.T) {
	table, path := testTable(t)
	disk := &memDisk{data: make([]byte, testOrigin.Size)}
	rand.NewChaCha8([32]byte{1}).Read(disk.data[:3*ChunkSize])
	changed(t, disk, table, Changes{All: true})
	table.Put(1, Entry{1}, 7) // never acknowledged
	head := Head{Number: 12, Hash: [32]byte{3}}
	if err := table.Seal(head); err != nil {
		t.Fatal(err)
	}
	again, at, err := ReopenTable(path, testOrigin, sum)
	if err != nil || at != head {
		t.Fatalf("head %+v, %v", at, err)
	}
	defer again.Close()
	if found := changed(t, disk, again, Changes{All: true}); len(found) > 0 {
		t.Errorf("%d chunks differ from a sealed table", len(found))
	}
	// This is what a power cut finds from now on.
	var told *TableError
	if _, _, err := ReopenTable(path, testOrigin, sum); !errors.As(err, &told) {
		t.Errorf("a table in use was taken for sealed: %v", err)
	}
}

func TestTablesThatAreRefused(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(path string, o *Origin) error
	}{
		{"another disk", func(_ string, o *Origin) error { o.Disk = "serial:8"; return nil }},
		{"another server", func(_ string, o *Origin) error { o.Server = "s-1"; return nil }},
		{"another seed", func(_ string, o *Origin) error { o.Seed++; return nil }},
		{"another size", func(_ string, o *Origin) error { o.Size++; return nil }},
		{"absent", func(path string, _ *Origin) error { return os.Remove(path) }},
		{"empty", func(path string, _ *Origin) error { return os.Truncate(path, 0) }},
		{"cut short", func(path string, _ *Origin) error { return os.Truncate(path, tableHeaderSize+entrySize) }},
		{"a flipped bit", func(path string, _ *Origin) error {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err == nil {
				_, err = f.WriteAt([]byte{0xff}, 70)
				f.Close()
			}
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			table, path := testTable(t)
			if err := table.Seal(Head{}); err != nil {
				t.Fatal(err)
			}
			origin := testOrigin
			if err := test.spoil(path, &origin); err != nil {
				t.Fatal(err)
			}
			var told *TableError
			if _, _, err := ReopenTable(path, origin, sum); !errors.As(err, &told) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A header of version 1 stays readable.
func TestTableHeaderGolden(t *testing.T) {
	h := tableHeader{state: tableSealed, origin: testOrigin, head: Head{Number: 5, Hash: [32]byte{0: 0xc0, 31: 0xff}}}
	for i := range 16 {
		h.id[i], h.boot[i] = byte(i), byte(0xb0+i)
	}
	raw := h.encode()
	got := hex.Dump(raw[:144]) + hex.Dump(raw[tableHeaderSize-16:])
	path := filepath.Join("testdata", "table-header.golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		os.MkdirAll("testdata", 0o755)
		os.WriteFile(path, []byte(got), 0o644)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	var back tableHeader
	if err := back.decode(raw); err != nil || back != h {
		t.Errorf("decoded %+v, %v", back, err)
	}
}

func FuzzTableHeader(f *testing.F) {
	h := tableHeader{state: tableOpen, origin: testOrigin}
	f.Add(h.encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) == tableHeaderSize { // or no mutation passes
			binary.LittleEndian.PutUint32(raw[tableHeaderSize-4:], crc32.Checksum(raw[:tableHeaderSize-4], tableCRC))
		}
		var h tableHeader
		if err := h.decode(raw); err != nil {
			if !errors.Is(err, errTable) {
				t.Errorf("%v", err)
			}
			return
		}
		var again tableHeader
		if err := again.decode(h.encode()); err != nil || again != h {
			t.Errorf("%+v became %+v, %v", h, again, err)
		}
	})
}

// One changed block is one block, read and found, if the tracker named it; zeros
// are told apart; and the digest of a whole chunk comes with a whole chunk only.
func TestReadFindsBlocks(t *testing.T) {
	disk := &memDisk{data: make([]byte, 4*ChunkSize)}
	rand.NewChaCha8([32]byte{2}).Read(disk.data)
	table := NewTable(int64(len(disk.data)), sum)
	for i, c := range changed(t, disk, table, Changes{All: true}) {
		if c.Data != 0xffff || c.Digest != sum(disk.data[i*ChunkSize:(i+1)*ChunkSize]) {
			t.Errorf("first reading of chunk %d: %+v", i, c)
		}
	}
	disk.data[ChunkSize+5*4096+17] ^= 1
	clear(disk.data[ChunkSize+11*4096 : ChunkSize+13*4096])
	disk.reads.Store(0)
	named := Changes{Ranges: []Range{{ChunkSize + 5*4096 + 512, 512}, {ChunkSize + 11*4096, 3 * 4096}}}
	found := changed(t, disk, table, named)
	c, ok := found[1]
	if len(found) != 1 || !ok || c.Data != 1<<5 || c.Zero != 3<<11 || c.Digest != (Digest{}) {
		t.Fatalf("found %+v", found)
	}
	if !bytes.Equal(c.Raw, disk.data[ChunkSize+5*4096:ChunkSize+6*4096]) || c.Bytes() != 3*4096 {
		t.Errorf("content of %d bytes, %d in all", len(c.Raw), c.Bytes())
	}
	if n := disk.reads.Load(); n != 4*4096 {
		t.Errorf("%d bytes read for four blocks", n)
	}
	if again := changed(t, disk, table, Changes{All: true}); len(again) > 0 {
		t.Errorf("found again: %+v", again)
	}
}

// What the vault told of chunks is enough to find them equal, after which their
// blocks are known one by one.
func TestReadLearnsBlocks(t *testing.T) {
	disk := &memDisk{data: make([]byte, 4*ChunkSize)}
	rand.NewChaCha8([32]byte{3}).Read(disk.data[:2*ChunkSize+4096])
	table := NewTable(int64(len(disk.data)), sum)
	var told []Digest
	for i := range 4 {
		told = append(told, sum(disk.data[i*ChunkSize:(i+1)*ChunkSize]))
	}
	told[1] = Digest{} // the vault cannot compare
	if err := table.Load(0, told); err != nil {
		t.Fatal(err)
	}
	// The one block named has the rest of its chunk read.
	found := changed(t, disk, table, Changes{Ranges: []Range{{4096, 1}, {ChunkSize + 4096, 1}, {3*ChunkSize + 4096, 1}}})
	if len(found) != 1 || found[1].Data != 0xffff {
		t.Fatalf("found %+v", found)
	}
	disk.data[1], disk.data[2*ChunkSize] = disk.data[1]+1, disk.data[2*ChunkSize]+1
	found = changed(t, disk, table, Changes{All: true})
	if len(found) != 2 || found[0].Data != 1 || found[2].Data != 0xffff {
		t.Errorf("found %+v", found)
	}
}

// Spilling to the file changes nothing, whatever is under way, and waits while the
// table is held.
func TestTableSpills(t *testing.T) {
	table, _ := testTable(t)
	table.Put(2, Entry{2}, 1)
	table.Put(3, Entry{3}, 1)
	table.Put(3, Entry{4}, 2)
	table.Settle(2, Entry{2}, 1)
	table.Settle(3, Entry{3}, 1)
	check := func(when string, want ...uint64) {
		t.Helper()
		for i, w := range want {
			if e, err := table.Newest(int64(i)); err != nil || e[0] != w {
				t.Errorf("%s: chunk %d is %d, want %d; %v", when, i, e[0], w, err)
			}
		}
	}
	table.Hold(true)
	if err := table.spill(0); err != nil || len(table.settled) != 2 {
		t.Errorf("%d entries left while held, %v", len(table.settled), err)
	}
	table.Hold(false)
	check("before", 0, 0, 2, 4, 0, 0)
	if err := table.spill(0); err != nil || len(table.settled) != 0 {
		t.Errorf("%d entries left, %v", len(table.settled), err)
	}
	check("after", 0, 0, 2, 4, 0, 0)
	table.Rollback()
	check("rolled back", 0, 0, 2, 3, 0, 0)
}

// A table whose file cannot be written says so, and forgets nothing.
func TestTableOnAFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	table, _ := testTable(t)
	file := table.file
	table.Keep(Chunk{Index: 1, Entry: Entry{9}})
	table.file = full
	var told *TableError
	if err := table.spill(0); !errors.As(err, &told) {
		t.Errorf("got %v", err)
	}
	if err := table.Seal(Head{}); !errors.As(err, &told) {
		t.Errorf("sealed: %v", err)
	}
	table.file = file
	full.Close()
	if e, err := table.Newest(1); err != nil || e[0] != 9 {
		t.Errorf("lost %v, %v", e[0], err)
	}
}

// A disk of 256 GiB without data costs no memory and next to no time to look at.
func TestReadLargeHoles(t *testing.T) {
	const size = 1 << 38
	disk := &memDisk{data: nil, holes: []Range{{0, size}}, size: func() (int64, error) { return size, nil }}
	table, err := CreateTable(filepath.Join(t.TempDir(), "table"), Origin{Size: size}, sum)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	table.Keep(Chunk{Index: 1 << 21, Entry: Entry{1}})
	var done atomic.Int64
	n := 0
	err = Read(context.Background(), disk, table, Changes{All: true}, 1, &done, func(c Chunk) error { n++; return nil })
	if err != nil || n != 1 || done.Load() != size {
		t.Errorf("%d chunks, %d bytes, %v", n, done.Load(), err)
	}
}
