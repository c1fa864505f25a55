package extent_test

import (
	"testing"

	"pgregory.net/rapid"

	"lifeboat/internal/vault/extent"
)

// cell is what one block of the reference map holds.
type cell struct {
	seg, pos uint32
	set      bool
}

func paint(cells []cell, r extent.Record) {
	for i := range r.Count {
		c := cell{seg: r.Seg, pos: r.Pos, set: true}
		if !r.Zero() {
			c.pos += i
		}
		cells[r.Block+uint64(i)] = c
	}
}

func TestResolveEqualsPainting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const size = 200
		want := make([]cell, size)
		var log []extent.Record
		for range rapid.IntRange(0, 60).Draw(t, "records") {
			block := rapid.Uint64Range(0, size-1).Draw(t, "block")
			r := extent.Record{Block: block, Count: rapid.Uint32Range(1, uint32(size-block)).Draw(t, "count"),
				Seg: rapid.Uint32Range(0, 3).Draw(t, "seg"), Pos: rapid.Uint32Range(0, 500).Draw(t, "pos")}
			if rapid.IntRange(0, 3).Draw(t, "zero") == 0 {
				r.Seg, r.Pos = 0, extent.ZeroPos
			}
			log = append(log, r)
			paint(want, r)
		}
		m := extent.Resolve(log)
		if !extent.Sorted(m) {
			t.Fatalf("not sorted: %v", m)
		}
		got := make([]cell, size)
		for _, r := range m {
			paint(got, r)
		}
		for b := range want {
			if got[b] != want[b] {
				t.Fatalf("block %d: got %v, want %v", b, got[b], want[b])
			}
			i := extent.Find(m, uint64(b))
			if covered := i < len(m) && m[i].Block <= uint64(b); covered != want[b].set {
				t.Fatalf("Find(%d) = %d: covered %v, want %v", b, i, covered, want[b].set)
			}
		}
	})
}

func TestAppendMeltsNeighbours(t *testing.T) {
	var m []extent.Record
	for _, r := range []extent.Record{
		{Block: 0, Count: 16, Pos: 0}, {Block: 16, Count: 16, Pos: 16}, // continues
		{Block: 32, Count: 4, Pos: 48}, // a gap in positions
		{Block: 36, Count: 8, Pos: extent.ZeroPos}, {Block: 44, Count: 8, Pos: extent.ZeroPos},
		{Block: 52, Count: 4, Seg: 1, Pos: 52}, // another segment
	} {
		m = extent.Append(m, r)
	}
	want := []extent.Record{{Block: 0, Count: 32}, {Block: 32, Count: 4, Pos: 48},
		{Block: 36, Count: 16, Pos: extent.ZeroPos}, {Block: 52, Count: 4, Seg: 1, Pos: 52}}
	if len(m) != len(want) {
		t.Fatalf("got %v, want %v", m, want)
	}
	for i := range m {
		if m[i] != want[i] {
			t.Errorf("record %d: got %v, want %v", i, m[i], want[i])
		}
	}
}
