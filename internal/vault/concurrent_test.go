package vault_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"lifeboat/internal/vault"
)

// TestManyReadersOneWriter reads old points, whose contents must not move, through a
// cache that is too small, while new ones are committed and images close under
// their readers.
func TestManyReadersOneWriter(t *testing.T) {
	v := newVault(t, newDirStore(t), newKey(t), vault.Options{CacheBytes: 1 << 20}.Small())
	const size = 256 * vault.BlockSize
	content := func(n int) *disk {
		d := &disk{}
		d.grow(size)
		for b := 0; b < size/vault.BlockSize; b += 16 {
			copy(d.data[b*vault.BlockSize:], blocks(uint64(n*1000+b), 16))
		}
		return d
	}
	commit := func(w *vault.Writer, n int) {
		e := must(w.Begin(ctxOf, []vault.Volume{{ID: 1, Size: size}}))(t)
		d := content(n)
		for b := 0; b < size/vault.BlockSize; b += 16 {
			f := frame(1, d.data[b*vault.BlockSize:][:16*vault.BlockSize], vault.Codec(b/16%3), vault.Extent{Block: uint64(b), Count: 16})
			if err := e.Append(f); err != nil {
				t.Fatal(err)
			}
		}
		must(e.Commit(ctxOf, point(n)))(t)
	}
	w := must(v.Writer(ctxOf, server, vault.MainBranch))(t)
	const points = 3
	for n := range points {
		commit(w, n)
	}
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			rnd := rand.New(rand.NewPCG(rand.Uint64(), 0))
			for range 6 {
				n := rnd.IntN(points)
				img, err := v.OpenPoint(ctxOf, server, point(n).ID)
				if err != nil {
					t.Error(err)
					return
				}
				r, err := img.Volume(1)
				if err != nil {
					t.Error(err)
					return
				}
				want := content(n)
				var within sync.WaitGroup
				for range 3 {
					seed := rnd.Uint64()
					within.Go(func() { readRanges(t, r, want, seed) })
				}
				if rnd.IntN(2) == 0 {
					within.Wait()
				}
				img.Close()
				within.Wait()
			}
		})
	}
	for n := points; n < points+10; n++ {
		commit(w, n)
	}
	readers.Wait()
}

// readRanges reads random ranges and a sequential stream until the image is closed.
func readRanges(t *testing.T, r *vault.VolumeReader, want *disk, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	for i := range int64(16) {
		off, n := i*vault.ChunkSize, int64(vault.ChunkSize)
		if seed%2 == 0 {
			off = rnd.Int64N(want.size)
			n = 1 + rnd.Int64N(min(want.size-off, 300<<10))
		}
		p := make([]byte, n)
		_, err := r.ReadAt(p, off)
		if errors.Is(err, vault.ErrClosed) {
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		if firstDifference(p, want.data[off:off+n]) >= 0 {
			t.Errorf("%d bytes at %d differ", n, off)
		}
	}
}
