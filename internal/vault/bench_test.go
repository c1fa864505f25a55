package vault_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/blob/blobtest"
)

// discard takes segments and throws them away: what is left is the vault's own work.
type discard struct{ blob.Store }

func (d discard) PutIfAbsent(ctx context.Context, name string, parts ...[]byte) error {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	if n > 2<<20 {
		return nil
	}
	return d.Store.PutIfAbsent(ctx, name, parts...)
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAppend is the cost of a sync, frame by frame, with 64 KiB payloads.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		name  string
		store func(b *testing.B) blob.Store
	}{
		{"discard", func(b *testing.B) blob.Store { return discard{blobtest.NewMem()} }},
		{"dir", func(b *testing.B) blob.Store { return newDirStore(b) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			v := newVault(b, c.store(b), newKey(b), vault.Options{})
			w := must(v.Writer(b.Context(), server, vault.MainBranch))(b)
			vol := vault.Volume{ID: 1, Size: 1 << 40}
			raw := make([]byte, vault.ChunkSize)
			rand.NewChaCha8([32]byte{}).Read(raw)
			digest := vault.ChunkDigest(0, raw)
			e := must(w.Begin(b.Context(), []vault.Volume{vol}))(b)
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			cpu := cpuTime()
			for i := 0; b.Loop(); i++ {
				err := e.Append(vault.Frame{Volume: 1, RawLen: len(raw), Payload: raw, Digest: digest,
					Extents: []vault.Extent{{Block: uint64(i) * vault.FrameBlocks, Count: vault.FrameBlocks}}})
				if err != nil {
					b.Fatal(err)
				}
			}
			must(e.Commit(b.Context(), point(1)))(b)
			gib := float64(b.N) * float64(len(raw)) / (1 << 30)
			b.ReportMetric((cpuTime()-cpu).Seconds()/gib, "cpu-s/GiB")
		})
	}
}

// BenchmarkCommit is the latency of small epochs on a local directory.
func BenchmarkCommit(b *testing.B) {
	for _, c := range []struct {
		name   string
		blocks int
	}{{"4KiB", 1}, {"256KiB", 64}} {
		b.Run(c.name, func(b *testing.B) {
			v := newVault(b, newDirStore(b), newKey(b), vault.Options{})
			w := must(v.Writer(b.Context(), server, vault.MainBranch))(b)
			vol := vault.Volume{ID: 1, Size: 1 << 40}
			rnd := rand.New(rand.NewPCG(1, 1))
			raw := blocks(1, 1)
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				begin := time.Now()
				e := must(w.Begin(b.Context(), []vault.Volume{vol}))(b)
				for range c.blocks {
					if err := e.Append(frame(1, raw, vault.CodecRaw, vault.Extent{Block: rnd.Uint64N(1 << 28), Count: 1})); err != nil {
						b.Fatal(err)
					}
				}
				must(e.Commit(b.Context(), point(i)))(b)
				took = append(took, time.Since(begin))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
		})
	}
}

// BenchmarkRead reads one committed GiB-sized stretch, sequentially and at random.
func BenchmarkRead(b *testing.B) {
	v := newVault(b, newDirStore(b), newKey(b), vault.Options{})
	w := must(v.Writer(b.Context(), server, vault.MainBranch))(b)
	const size = 256 << 20
	e := must(w.Begin(b.Context(), []vault.Volume{{ID: 1, Size: size}}))(b)
	raw := blocks(1, vault.FrameBlocks)
	for i := range uint64(size / vault.ChunkSize) {
		f := frame(1, raw, vault.CodecZstd, vault.Extent{Block: i * vault.FrameBlocks, Count: vault.FrameBlocks})
		if err := e.Append(f); err != nil {
			b.Fatal(err)
		}
	}
	must(e.Commit(b.Context(), point(1)))(b)
	img := must(v.OpenPoint(b.Context(), server, point(1).ID))(b)
	defer img.Close()
	r := must(img.Volume(1))(b)

	b.Run("sequential-128KiB", func(b *testing.B) {
		p := make([]byte, 128<<10)
		b.SetBytes(int64(len(p)))
		cpu := cpuTime()
		for i := int64(0); b.Loop(); i++ {
			must(r.ReadAt(p, i*int64(len(p))%size))(b)
		}
		b.ReportMetric((cpuTime()-cpu).Seconds()/(float64(b.N)*float64(len(p))/(1<<30)), "cpu-s/GiB")
	})
	b.Run("random-4KiB", func(b *testing.B) {
		p := make([]byte, 4<<10)
		b.SetBytes(int64(len(p)))
		rnd := rand.New(rand.NewPCG(1, 1))
		for b.Loop() {
			must(r.ReadAt(p, rnd.Int64N(size/4096)*4096))(b)
		}
	})
	b.Run("cached-4KiB", func(b *testing.B) {
		p := make([]byte, 4<<10)
		b.SetBytes(int64(len(p)))
		b.RunParallel(func(pb *testing.PB) {
			rnd := rand.New(rand.NewPCG(rand.Uint64(), 1))
			for pb.Next() {
				r.ReadAt(p, rnd.Int64N(16<<20/4096)*4096)
			}
		})
	})
}
