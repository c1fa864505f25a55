package vault_test

import (
	"context"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob/cached"
)

// traced makes a server with two volumes and two points, the second of which differs.
func traced(t *testing.T, store objects, keys vault.KeyWrapper) (first, second *disk) {
	t.Helper()
	v := newVault(t, store, keys, vault.Options{}.NoInline())
	w := must(v.Writer(ctxOf, server, vault.MainBranch))(t)
	vols := []vault.Volume{{ID: 1, Size: 64 * vault.ChunkSize}, {ID: 7, Size: 64*vault.ChunkSize - 4096}}
	d := &disk{}
	d.grow(64 * vault.ChunkSize)
	for round := range 2 {
		e := must(w.Begin(ctxOf, vols))(t)
		for i := range uint64(64) {
			if round == 1 && i%3 != 0 {
				continue
			}
			raw := blocks(i+uint64(round)*1000, 16)
			for _, id := range []vault.VolumeID{1, 7} {
				f := raw
				if id == 7 && i == 63 {
					f = raw[:15*vault.BlockSize]
				}
				if err := e.Append(frame(id, f, vault.CodecRaw, vault.Extent{Block: i * 16, Count: uint32(len(f) / vault.BlockSize)})); err != nil {
					t.Fatal(err)
				}
			}
			copy(d.data[i*vault.ChunkSize:], raw)
		}
		must(e.Commit(ctxOf, point(round+1)))(t)
		if round == 0 {
			first = d.clone()
		}
	}
	v.WaitTasks()
	return first, d
}

// TestTheNextBootFindsItsFrames: what one boot read, of any point, is loaded in that
// order before another one asks, and then asks the store for nothing.
func TestTheNextBootFindsItsFrames(t *testing.T) {
	mem, keys := newStore(t), newKey(t)
	first, second := traced(t, mem, keys)
	rnd := rand.New(rand.NewPCG(1, 2))
	type access struct {
		id  vault.VolumeID
		off int64
		n   int
	}
	var boot []access
	for range 60 { // too little to be taken for a sequential reader
		boot = append(boot, access{[]vault.VolumeID{1, 7}[rnd.IntN(2)], rnd.Int64N(60 * vault.ChunkSize), 1 + rnd.IntN(8<<10)})
	}
	read := func(img *vault.Image, d *disk) {
		for _, a := range boot {
			p := make([]byte, a.n)
			must(must(img.Volume(a.id))(t).ReadAt(p, a.off))(t)
			if firstDifference(p, d.data[a.off:a.off+int64(a.n)]) >= 0 {
				t.Fatalf("%d bytes of volume %d at %d differ", a.n, a.id, a.off)
			}
		}
	}

	v := must(vault.Open(ctxOf, mem, keys, vault.Options{}))(t)
	if _, err := v.Trace(ctxOf, server); !errors.Is(err, vault.ErrAbsent) {
		t.Fatalf("a trace before any boot: %v", err)
	}
	img := must(v.OpenPoint(ctxOf, server, point(1).ID))(t)
	recorder := img.Record()
	read(img, first)
	trace := recorder.Stop()
	read(img, first) // no longer noted
	img.Close()
	if n := trace.Chunks(); n < 30 || n > 128 || trace[0].Volume != boot[0].id || int64(trace[0].Chunk) != boot[0].off/vault.ChunkSize {
		t.Errorf("a trace of %d chunks that begins with %+v, after a boot that begins with %+v", n, trace[0], boot[0])
	}
	for range 3 {
		if err := v.SaveTrace(ctxOf, server, trace); err != nil {
			t.Fatal(err)
		}
	}
	v.Close()

	for name, opt := range map[string]vault.Options{"memory": {}, "cache": {Far: true}} {
		t.Run(name, func(t *testing.T) {
			store := &countedStore{Store: mem}
			if opt.Far {
				c := must(cached.Open(t.TempDir(), 64<<20, store, nil))(t)
				defer c.Close()
				opt.Segments = c
			}
			v := must(vault.Open(ctxOf, store, keys, opt))(t)
			defer v.Close()
			again := must(v.Trace(ctxOf, server))(t)
			if !slices.Equal(again, trace) {
				t.Fatalf("the trace became %v", again)
			}
			img := must(v.OpenPoint(ctxOf, server, point(2).ID))(t)
			defer img.Close()
			if err := img.Prefetch(t.Context(), again); err != nil {
				t.Fatal(err)
			}
			store.reset()
			read(img, second)
			if n := store.bytes.Load(); n > 0 {
				t.Errorf("%d bytes in %d requests were asked of the store after the prefetch", n, store.reads.Load())
			}
		})
	}
}

// TestPrefetchGoesOnWhenMemoryIsFull: what it does not decode it reads all the same.
func TestPrefetchGoesOnWhenMemoryIsFull(t *testing.T) {
	mem, keys := newStore(t), newKey(t)
	traced(t, mem, keys)
	fetched := func(memory int64) int64 {
		store := &countedStore{Store: mem}
		v := must(vault.Open(ctxOf, store, keys, vault.Options{CacheBytes: memory}))(t)
		defer v.Close()
		img := must(v.OpenPoint(ctxOf, server, point(2).ID))(t)
		defer img.Close()
		store.reset()
		if err := img.Prefetch(t.Context(), vault.Trace{{1, 0, 60}}); err != nil {
			t.Fatal(err)
		}
		return store.bytes.Load()
	}
	if all, got := fetched(64<<20), fetched(1<<20); all < 1<<20 || got < all {
		t.Errorf("%d bytes were read with little memory, %d with much", got, all)
	}
}

// TestPrefetchEndsWithItsContext, and does no harm to who reads the same.
func TestPrefetchEndsWithItsContext(t *testing.T) {
	store, keys := newStore(t), newKey(t)
	_, second := traced(t, store, keys)
	v := must(vault.Open(ctxOf, store, keys, vault.Options{Far: true}))(t)
	defer v.Close()
	for range 20 {
		img := must(v.OpenPoint(ctxOf, server, point(2).ID))(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- img.Prefetch(ctx, vault.Trace{{1, 0, 64}, {3, 0, 9}, {7, 10, 1000}}) }()
		p := make([]byte, 64*vault.ChunkSize)
		go cancel()
		must(must(img.Volume(1))(t).ReadAt(p, 0))(t)
		if firstDifference(p, second.data) >= 0 {
			t.Fatal("differs")
		}
		<-done
		img.Close()
	}
}

// TestDamagedTracesAreDoneWithout: they are derived, and their loss is none.
func TestDamagedTracesAreDoneWithout(t *testing.T) {
	store, keys := newStore(t), newKey(t)
	v := newVault(t, store, keys, vault.Options{})
	if err := v.SaveTrace(ctxOf, server, vault.Trace{{1, 2, 3}}); err != nil {
		t.Fatal(err)
	}
	name := "servers/" + string(server) + "/traces/0000000000000001.trace"
	whole := store.Bytes(name)
	for _, at := range sample(len(whole)) {
		b := slices.Clone(whole)
		b[at] ^= 1
		store.Replace(name, b)
		if got, err := v.Trace(ctxOf, server); err == nil || !errors.Is(err, vault.ErrAbsent) {
			t.Errorf("flip at byte %d: %v, %v", at, got, err)
		}
	}
	if err := v.SaveTrace(ctxOf, server, vault.Trace{{1, 2, 4}}); err != nil {
		t.Fatal(err)
	}
	if got := must(v.Trace(ctxOf, server))(t); !slices.Equal(got, vault.Trace{{1, 2, 4}}) {
		t.Errorf("a new trace after a damaged one: %v", got)
	}
	if report := must(vault.Verify(ctxOf, store, keys, vault.Options{}, vault.VerifyOptions{}))(t); report.UnknownCount != 0 {
		t.Errorf("verify does not know a trace: %+v", report)
	}
}

// FuzzTrace: what decodes is bounded and encodes to the same bytes.
func FuzzTrace(f *testing.F) {
	f.Add(vault.EncodeTrace(nil))
	f.Add(vault.EncodeTrace(vault.Trace{{1, 2, 3}, {9, 1<<32 - 1, 1}}))
	f.Add([]byte{255, 255, 255, 255, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		trace, err := vault.DecodeTrace(b)
		if err != nil {
			return
		}
		if trace.Chunks() > 1<<16 || !slices.Equal(vault.EncodeTrace(trace), b) {
			t.Fatalf("%x decodes to %d chunks that encode otherwise", b, trace.Chunks())
		}
	})
}

// The example of the documentation is what is written.
func TestTraceAsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/formats/vault-trace.md")
	if err != nil {
		t.Fatal(err)
	}
	dump := "    " + hex.Dump(vault.EncodeTrace(vault.Trace{{1, 2, 3}}))
	if !strings.Contains(string(text), dump) {
		t.Errorf("docs/formats/vault-trace.md does not hold this dump:\n%s", dump)
	}
}
