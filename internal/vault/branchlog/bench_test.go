package branchlog_test

import (
	"math/rand/v2"
	"path/filepath"
	"testing"

	"lifeboat/internal/vault/branchlog"
)

// BenchmarkOpen opens a log of 64 Ki random 4 KiB writes, each a group of its
// own: 256 MiB of data and as much of headers.
func BenchmarkOpen(b *testing.B) {
	base := make(testBase, 1<<30)
	dir := create(b, base.Size(), testKey)
	l := open(b, dir, testKey, base)
	rnd := rand.New(rand.NewPCG(1, 1))
	p := make([]byte, branchlog.BlockSize)
	for range 64 << 10 {
		write(b, l, p, rnd.Int64N(1<<18)*branchlog.BlockSize)
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		l, err := branchlog.Open(dir, testKey, base)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		b.ReportMetric(float64(l.Stats().Extents), "extents")
		l.Close()
		b.StartTimer()
	}
}

func BenchmarkRandomRead4K(b *testing.B)  { benchmark(b, false) }
func BenchmarkRandomWrite4K(b *testing.B) { benchmark(b, true) }

// benchmark has all processors read or write random blocks of a written disk.
func benchmark(b *testing.B, writing bool) {
	for name, key := range keys {
		b.Run(name, func(b *testing.B) {
			base := make(testBase, 256<<20)
			l := open(b, create(b, base.Size(), key), key, base)
			write(b, l, make([]byte, len(base)), 0)
			b.SetBytes(branchlog.BlockSize)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				p := make([]byte, branchlog.BlockSize)
				rnd := rand.New(rand.NewPCG(rand.Uint64(), 1))
				do := l.ReadAt
				if writing {
					do = l.WriteAt
				}
				for pb.Next() {
					if _, err := do(p, rnd.Int64N(1<<16)*branchlog.BlockSize); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkFlushedWrite is one small write at a time, each durable.
func BenchmarkFlushedWrite(b *testing.B) {
	base := make(testBase, 256<<20)
	dir := filepath.Join(b.TempDir(), "disk-0") // on a disk, not in memory
	if err := branchlog.Create(dir, base.Size(), testKey); err != nil {
		b.Fatal(err)
	}
	l := open(b, dir, testKey, base)
	p := make([]byte, branchlog.BlockSize)
	rnd := rand.New(rand.NewPCG(1, 1))
	for b.Loop() {
		write(b, l, p, rnd.Int64N(1<<16)*branchlog.BlockSize)
		if err := l.Flush(ctx); err != nil {
			b.Fatal(err)
		}
	}
}
