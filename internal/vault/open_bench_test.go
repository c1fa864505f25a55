package vault_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"lifeboat/internal/vault"
	"lifeboat/internal/vault/retention"
)

// BenchmarkOpen opens a point of a volume that was written sequentially, 8 MiB of
// the volume per segment, and then changed by 10,000 small epochs, in a vault
// just opened.
func BenchmarkOpen(b *testing.B) {
	const epochs = 10000
	for _, c := range []struct {
		gib    uint64
		folded bool
	}{{1, false}, {128, false}, {128, true}} {
		gib := c.gib
		b.Run(fmt.Sprintf("%dGiB,folded=%v", gib, c.folded), func(b *testing.B) {
			store, keys := newDirStore(b), newKey(b)
			opt := vault.Options{}.TinySegments()
			v := newVault(b, store, keys, opt)
			w := must(v.Writer(b.Context(), server, vault.MainBranch))(b)
			vol := []vault.Volume{{ID: 1, Size: int64(gib << 30)}}
			f := frame(1, make([]byte, vault.ChunkSize), vault.CodecS2, vault.Extent{})
			e := must(w.Begin(b.Context(), vol))(b)
			for i := range gib << 30 / vault.ChunkSize {
				f.Extents[0] = vault.Extent{Block: i * vault.FrameBlocks, Count: vault.FrameBlocks}
				if err := e.Append(f); err != nil {
					b.Fatal(err)
				}
			}
			must(e.Commit(b.Context(), point(0)))(b)
			rnd := rand.New(rand.NewPCG(1, 1))
			raw := make([]byte, vault.BlockSize)
			var first, last time.Duration
			for i := range epochs {
				e := must(w.Begin(b.Context(), vol))(b)
				for range 4 {
					if err := e.Append(frame(1, raw, vault.CodecS2, vault.Extent{Block: rnd.Uint64N(gib << 18), Count: 1})); err != nil {
						b.Fatal(err)
					}
				}
				begin := time.Now()
				must(e.Commit(b.Context(), point(i+1)))(b)
				if i < 1000 {
					first += time.Since(begin)
				} else if i >= epochs-1000 {
					last += time.Since(begin)
				}
			}
			v.WaitTasks()
			if c.folded {
				policy := retention.Policy{Journal: 20 * time.Minute, Rules: []retention.Rule{{Every: 10 * time.Minute, For: 24 * time.Hour}}}
				for more := true; more; {
					r := must(v.Maintain(b.Context(), server, policy, time.Now()))(b)
					more = r.More
				}
				v.WaitTasks()
			}
			v.Close()

			var before, after runtime.MemStats
			b.ResetTimer()
			for b.Loop() {
				runtime.GC()
				runtime.ReadMemStats(&before)
				v := must(vault.Open(b.Context(), store, keys, opt))(b)
				begin := time.Now()
				img := must(v.OpenPoint(b.Context(), server, point(epochs).ID))(b)
				took := time.Since(begin)
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(took.Microseconds())/1000, "ms-cold")
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB")
				b.ReportMetric(float64(must(img.Volume(1))(b).Records()), "records")
				begin = time.Now()
				img2 := must(v.OpenPoint(b.Context(), server, must(v.Points(b.Context(), server))(b)[3].ID))(b)
				b.ReportMetric(float64(time.Since(begin).Microseconds())/1000, "ms-warm")
				img.Close()
				img2.Close()
				v.WaitTasks()
				v.Close()
			}
			b.ReportMetric(first.Seconds(), "ms-commit-first-1000")
			b.ReportMetric(last.Seconds(), "ms-commit-last-1000")
		})
	}
}
