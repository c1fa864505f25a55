package ebpf

import (
	"math/rand/v2"
	"slices"
	"testing"

	"lifeboat/internal/source/blocktrack"
)

// The ranges of a bitmap are the set bits, joined, with coarse bits spread out; and
// nothing stays set in one that was wiped.
func TestRanges(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		g := geometry{shift: minShift + uint(rng.IntN(5)), grains: 1 + rng.Int64N(300_000)}
		words := make([]uint64, g.words())
		want := make([]bool, g.fineWords()*64)
		for range rng.IntN(50) {
			from := rng.Int64N(g.grains)
			for i := from; i < min(from+1+rng.Int64N(200), g.grains); i++ {
				words[i/64] |= 1 << (i % 64)
				want[i] = true
			}
		}
		for range rng.IntN(4) {
			c := rng.Int64N((g.grains + 1<<coarseShift - 1) >> coarseShift)
			words[g.fineWords()+c/64] |= 1 << (c % 64)
			for i := c << coarseShift; i < min((c+1)<<coarseShift, int64(len(want))); i++ {
				want[i] = true
			}
		}
		var r runs
		for i := int64(0); i < int64(len(want)); i++ {
			if want[i] {
				r.add(i<<g.shift, (i+1)<<g.shift)
			}
		}
		if got := g.ranges(words); !slices.Equal(got, r.list) {
			t.Fatalf("%+v:\n got %v\nwant %v", g, got, r.list)
		}
		wipe(words)
		if slices.ContainsFunc(words, func(w uint64) bool { return w != 0 }) {
			t.Fatalf("%+v: bits left", g)
		}
	}
}

func TestClip(t *testing.T) {
	all := []blocktrack.Range{{Offset: 0, Length: 100}, {Offset: 150, Length: 100}, {Offset: 300, Length: 10}}
	want := []blocktrack.Range{{Offset: 0, Length: 50}, {Offset: 100, Length: 50}}
	if got := clip(all, 50, 150); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Memory stays bounded by the choice of the grain.
func TestGrain(t *testing.T) {
	for _, test := range []struct {
		bytes int64
		want  uint
	}{{1 << 20, 12}, {1 << 40, 12}, {1<<40 + 1<<20, 13}, {8 << 40, 15}, {16 << 40, 16}, {100 << 40, 16}} {
		if got := shiftFor(test.bytes); got != test.want {
			t.Errorf("%d bytes: grain 1<<%d, want 1<<%d", test.bytes, got, test.want)
		}
	}
}
