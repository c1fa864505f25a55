package vault_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
)

// countedStore counts the reads and the bytes read.
type countedStore struct {
	blob.Store
	reads, bytes atomic.Int64
}

func (s *countedStore) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	n, err := s.Store.ReadAt(ctx, name, p, off)
	s.reads.Add(1)
	s.bytes.Add(int64(n))
	return n, err
}

func (s *countedStore) reset() { s.reads.Store(0); s.bytes.Store(0) }

// TestOpeningReadsFewObjects: the number of epochs hardly matters.
func TestOpeningReadsFewObjects(t *testing.T) {
	const epochs = 2200
	store, keys := newStore(t), newKey(t)
	v := newVault(t, store, keys, vault.Options{})
	w := must(v.Writer(ctxOf, server, vault.MainBranch))(t)
	for i := range epochs {
		e := must(w.Begin(ctxOf, []vault.Volume{{ID: 1, Size: 1 << 30}}))(t)
		if err := e.Append(frame(1, make([]byte, 4096), vault.CodecS2, vault.Extent{Block: uint64(i*7919) % (1 << 18), Count: 1})); err != nil {
			t.Fatal(err)
		}
		must(e.Commit(ctxOf, point(i)))(t)
	}
	v.WaitTasks()
	open := func(s blob.Store) int64 {
		counted := &countedStore{Store: s}
		v := must(vault.Open(ctxOf, counted, keys, vault.Options{}))(t)
		counted.reset()
		img := must(v.OpenPoint(ctxOf, server, point(epochs-1).ID))(t)
		reads := counted.reads.Load()
		if n := must(img.Volume(1))(t).Records(); n != epochs {
			t.Errorf("%d records, want %d", n, epochs)
		}
		img.Close()
		v.WaitTasks()
		v.Close()
		return reads
	}
	// At most 255 manifests after a pack, eight packs with their last manifests, and 31 objects of each of three kinds, and
	// a few others.
	if n := open(store); n > 255+16+3*31+20 {
		t.Errorf("%d reads with derived data", n)
	}
	for _, name := range store.Names() {
		if derived(name) {
			store.Replace(name, nil)
		}
	}
	if n := open(store); n < 2*epochs {
		t.Errorf("%d reads without derived data: it was not gone", n)
	}
	if n := open(store); n > 255+16+3*31+20 {
		t.Errorf("%d reads after the first opening healed it", n)
	}
}

// TestSequentialReadsAreFewAndLarge: a reader of small pieces has whole stretches
// fetched, each byte once; a random reader one frame.
func TestSequentialReadsAreFewAndLarge(t *testing.T) {
	store := &countedStore{Store: newStore(t)}
	v := newVault(t, store, newKey(t), vault.Options{})
	w := must(v.Writer(ctxOf, server, vault.MainBranch))(t)
	const chunks = 256
	e := must(w.Begin(ctxOf, []vault.Volume{{ID: 1, Size: chunks * vault.ChunkSize}}))(t)
	for i := range uint64(chunks) {
		if err := e.Append(frame(1, blocks(i, 16), vault.CodecRaw, vault.Extent{Block: i * 16, Count: 16})); err != nil {
			t.Fatal(err)
		}
	}
	must(e.Commit(ctxOf, nil))(t)

	img := must(v.OpenHead(ctxOf, server, vault.MainBranch))(t)
	r := must(img.Volume(1))(t)
	store.reset()
	must(r.ReadAt(make([]byte, 4096), 100*vault.ChunkSize+8192))(t)
	if got := store.bytes.Load(); got > 2*vault.ChunkSize { // a frame, and the index once
		t.Errorf("a random read of 4 KiB fetched %d bytes", got)
	}
	store.reset()
	p := make([]byte, 16<<10)
	for off := int64(0); off < r.Size(); off += int64(len(p)) {
		must(r.ReadAt(p, off))(t)
	}
	img.Close()
	if reads, limit := store.reads.Load(), int64(chunks/2); reads > limit {
		t.Errorf("%d reads for %d frames, want at most %d", reads, chunks, limit)
	}
	if got := store.bytes.Load(); got > chunks*(vault.ChunkSize+16)*11/10 {
		t.Errorf("fetched %d bytes to read %d", got, r.Size())
	}
}

// TestASmallEpochIsOneObject: commit is the creation of one object.
func TestASmallEpochIsOneObject(t *testing.T) {
	store := newStore(t)
	v := newVault(t, store, newKey(t), vault.Options{})
	w := must(v.Writer(ctxOf, server, vault.MainBranch))(t)
	before := len(store.Names())
	e := must(w.Begin(ctxOf, []vault.Volume{{ID: 1, Size: 1 << 30}}))(t)
	for i := range uint64(10) {
		if err := e.Append(frame(1, blocks(i, 16), vault.CodecRaw, vault.Extent{Block: i * 100, Count: 16})); err != nil {
			t.Fatal(err)
		}
	}
	must(e.Commit(ctxOf, point(1)))(t)
	names := store.Names()
	if len(names) != before+1 || strings.Contains(strings.Join(names, " "), ".segment") {
		t.Errorf("%d objects more: %v", len(names)-before, names)
	}
}
