package branchlog

import (
	"math/rand/v2"
	"testing"
)

// TestExtentMap compares the map with an array of blocks, on a disk large enough
// for many leaves, and sees that what set replaces is told once.
func TestExtentMap(t *testing.T) {
	const blocks = 20_000
	for seed := range uint64(4) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var m extentMap
		want := make([]extent, blocks) // one block each; count 0: nothing
		for step := range 30_000 {
			x := extent{start: uint64(rnd.IntN(blocks)), kind: Kind(1 + rnd.IntN(3)), file: uint32(rnd.IntN(3))}
			n := 1 + rnd.IntN(4)
			switch {
			case step%1000 == 999:
				n = 1 + rnd.IntN(blocks/2) // across many leaves
			case step%3 == 0 && step > 0: // as sequential writes are
				n = 1 + rnd.IntN(20)
			}
			x.count = uint32(min(uint64(n), blocks-x.start))
			if x.count > maxGroupBlocks && x.kind == Data {
				x.kind = Trim
			}
			if x.kind == Data {
				x.index = uint8(rnd.IntN(maxGroupBlocks - int(x.count) + 1))
				x.pos = uint32(rnd.IntN(1000)) + uint32(x.index)
			}
			m.set(x, func(old extent) {
				for b := old.start; b < old.end(); b++ {
					if b < x.start || b >= x.end() || want[b] != old.clip(b, b+1) {
						t.Fatalf("seed %d step %d: set %+v says it replaces %+v at %d", seed, step, x, old, b)
					}
					want[b] = extent{}
				}
			})
			for b := x.start; b < x.end(); b++ {
				if want[b].count != 0 {
					t.Fatalf("seed %d step %d: set %+v did not tell of block %d", seed, step, x, b)
				}
				want[b] = x.clip(b, b+1)
			}
			if step%500 == 0 || step > 29_990 {
				checkMap(t, &m, want)
			}
		}
		if len(m.leaves) < 10 {
			t.Errorf("only %d leaves: the test is too small", len(m.leaves))
		}
	}
}

func checkMap(t *testing.T, m *extentMap, want []extent) {
	t.Helper()
	for _, l := range m.leaves {
		if len(l) == 0 || len(l) > leafMax+2 {
			t.Fatalf("a leaf of %d extents", len(l))
		}
	}
	next := uint64(0)
	m.walk(0, uint64(len(want)), func(x extent) bool {
		for ; next < x.start; next++ {
			if want[next].count != 0 {
				t.Fatalf("block %d is missing", next)
			}
		}
		for ; next < x.end(); next++ {
			if want[next] != x.clip(next, next+1) {
				t.Fatalf("block %d: %+v, want %+v", next, x.clip(next, next+1), want[next])
			}
		}
		return true
	})
	for ; next < uint64(len(want)); next++ {
		if want[next].count != 0 {
			t.Fatalf("block %d is missing at the end", next)
		}
	}
}
