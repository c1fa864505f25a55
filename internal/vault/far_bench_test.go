package vault_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob/cached"
	"lifeboat/internal/vault/blob/s3/s3test"
)

// BenchmarkFar measures reads from a bucket each of whose answers takes 30 ms more.
func BenchmarkFar(b *testing.B) {
	const latency, chunks = 30 * time.Millisecond, 1024 // 64 MiB
	far := s3test.Start(b)
	bucket, keys := far.Bucket(), newKey(b)
	v := newVault(b, bucket, keys, vault.Options{})
	w := must(v.Writer(ctxOf, server, vault.MainBranch))(b)
	for i := range uint64(chunks) {
		if i%64 != 0 {
			continue
		}
		e := must(w.Begin(ctxOf, []vault.Volume{{ID: 1, Size: chunks * vault.ChunkSize}}))(b)
		for k := range uint64(64) {
			if err := e.Append(frame(1, blocks(i+k, 16), vault.CodecRaw, vault.Extent{Block: (i + k) * 16, Count: 16})); err != nil {
				b.Fatal(err)
			}
		}
		must(e.Commit(ctxOf, point(int(i))))(b)
	}
	for i := range 300 { // small epochs, as they come
		e := must(w.Begin(ctxOf, nil))(b)
		if err := e.Append(frame(1, blocks(uint64(i), 1), vault.CodecS2, vault.Extent{Block: uint64(i) * 31, Count: 1})); err != nil {
			b.Fatal(err)
		}
		must(e.Commit(ctxOf, point(10000+i)))(b)
	}
	v.WaitTasks()
	far.Around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		time.Sleep(latency)
		next.ServeHTTP(w, r)
	})
	defer far.Around(nil)
	open := func(b *testing.B, opt vault.Options) (*vault.Vault, *vault.Image) {
		v := must(vault.Open(ctxOf, bucket, keys, opt))(b)
		return v, must(v.OpenPoint(ctxOf, server, point(10299).ID))(b)
	}
	b.Run("open", func(b *testing.B) {
		for range b.N {
			v, img := open(b, vault.Options{Far: true})
			img.Close()
			v.Close()
		}
	})
	sequential := func(b *testing.B, opt vault.Options) {
		for range b.N {
			b.StopTimer()
			v, img := open(b, opt)
			r := must(img.Volume(1))(b)
			b.StartTimer()
			n := must(io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.NewSectionReader(r, 0, r.Size()), make([]byte, 128<<10)))(b)
			b.SetBytes(n)
			img.Close()
			v.Close()
		}
	}
	b.Run("sequential near", func(b *testing.B) { sequential(b, vault.Options{}) })
	b.Run("sequential far", func(b *testing.B) { sequential(b, vault.Options{Far: true}) })
	b.Run("sequential cache cold", func(b *testing.B) {
		c := must(cached.Open(b.TempDir(), 1<<30, bucket, nil))(b)
		defer c.Close()
		sequential(b, vault.Options{Far: true, Segments: c})
	})
	b.Run("sequential cache warm", func(b *testing.B) {
		c := must(cached.Open(b.TempDir(), 1<<30, bucket, nil))(b)
		defer c.Close()
		v, img := open(b, vault.Options{Far: true, Segments: c})
		r := must(img.Volume(1))(b)
		must(io.Copy(io.Discard, io.NewSectionReader(r, 0, r.Size())))(b)
		img.Close()
		v.Close()
		b.ResetTimer()
		sequential(b, vault.Options{Far: true, Segments: c})
	})
}
