package vault_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob/cached"
	"lifeboat/internal/vault/blob/s3/s3test"
)

// copyAnswer passes on what was recorded.
func copyAnswer(w http.ResponseWriter, rec *httptest.ResponseRecorder) {
	for name, values := range rec.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

// TestStaleListsHideNothing: listings that stay as they were once do not keep a new
// process from the newest commit, nor make it undo one.
func TestStaleListsHideNothing(t *testing.T) {
	far := s3test.Start(t)
	bucket := far.Bucket()
	h := &history{keys: newKey(t), contents: historyContents(12)}
	v := newVault(t, bucket, h.keys, vault.Options{}.Small())
	for i := 1; i <= 3; i++ {
		if err := h.commit(v, i); err != nil {
			t.Fatal(err)
		}
	}
	v.WaitTasks()
	var mu sync.Mutex
	old := map[string]*httptest.ResponseRecorder{}
	far.Around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !r.URL.Query().Has("list-type") {
			next.ServeHTTP(w, r)
			return
		}
		mu.Lock()
		rec := old[r.URL.String()]
		if rec == nil {
			rec = httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			old[r.URL.String()] = rec
		}
		mu.Unlock()
		copyAnswer(w, rec)
	})
	h.acked = 3
	h.verify(t, bucket) // what it lists is what will be listed
	for i := 4; i <= 12; i++ {
		again := must(vault.Open(ctxOf, bucket, h.keys, vault.Options{}.Small()))(t)
		if err := h.commit(again, i); err != nil {
			t.Fatalf("commit %d: %v", i, err)
		}
		again.WaitTasks()
		again.Close()
		h.acked = i
		h.verify(t, bucket)
	}
	far.Around(nil)
	h.verify(t, bucket)
}

// TestLostAnswersOfCommits: every third put's answer is lost, every fifth request is
// answered with 503, and no commit is lost, made twice or taken for another's.
func TestLostAnswersOfCommits(t *testing.T) {
	far := s3test.Start(t)
	bucket := far.Bucket()
	h := &history{keys: newKey(t), contents: historyContents(9)}
	newVault(t, bucket, h.keys, vault.Options{}.Small())
	var mu sync.Mutex
	puts, requests := 0, 0
	far.Around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		mu.Lock()
		requests++
		if r.Method == http.MethodPut {
			puts++
		}
		lose, busy := r.Method == http.MethodPut && puts%3 == 0, requests%5 == 0
		mu.Unlock()
		switch {
		case lose:
			next.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		case busy:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			next.ServeHTTP(w, r)
		}
	})
	if err := h.run(bucket, 9); err != nil {
		t.Fatal(err)
	}
	far.Around(nil)
	h.verify(t, bucket)
	if h.acked != 9 {
		t.Errorf("%d commits, want 9", h.acked)
	}
}

// TestDamageInTheCacheOfDamageInTheStore: what was damaged in the store, fetched, kept
// and then put back from a copy is read again from the store.
func TestDamageInTheCacheOfDamageInTheStore(t *testing.T) {
	store, keys := newStore(t), newKey(t)
	v := newVault(t, store, keys, vault.Options{}.NoInline())
	w := must(v.Writer(ctxOf, server, vault.MainBranch))(t)
	e := must(w.Begin(ctxOf, []vault.Volume{{ID: 1, Size: 4 * vault.ChunkSize}}))(t)
	for i := range uint64(4) {
		if err := e.Append(frame(1, blocks(i, 16), vault.CodecRaw, vault.Extent{Block: i * 16, Count: 16})); err != nil {
			t.Fatal(err)
		}
	}
	must(e.Commit(ctxOf, nil))(t)
	var name string
	for _, n := range store.Names() {
		if strings.HasSuffix(n, ".segment") {
			name = n
		}
	}
	whole := store.Bytes(name)
	for _, at := range []int{1000, len(whole) - 10} { // a frame, and the index
		broken := append([]byte(nil), whole...)
		broken[at] ^= 1
		store.Replace(name, broken)
		dir := t.TempDir()
		read := func() error {
			cache := must(cached.Open(dir, 64<<20, store, nil))(t)
			defer cache.Close() // which writes what it keeps
			v := must(vault.Open(ctxOf, store, keys, vault.Options{Segments: cache}))(t)
			defer v.Close()
			m, err := v.OpenHead(ctxOf, server, vault.MainBranch)
			if err != nil {
				return err
			}
			defer m.Close()
			p := make([]byte, 4*vault.ChunkSize)
			_, err = must(m.Volume(1))(t).ReadAt(p, 0)
			return err
		}
		var corrupt *vault.CorruptError
		if err := read(); !errors.As(err, &corrupt) {
			t.Fatalf("damage at byte %d: %v", at, err)
		}
		store.Replace(name, whole)
		if err := read(); err != nil {
			t.Errorf("put back: %v", err)
		}
	}
}

// TestImagesOfOnePointShareTheirMap: opening a point that is open already reads next
// to nothing.
func TestImagesOfOnePointShareTheirMap(t *testing.T) {
	store := &countedStore{Store: newStore(t)}
	v := newVault(t, store, newKey(t), vault.Options{})
	w := must(v.Writer(ctxOf, server, vault.MainBranch))(t)
	for i := range 40 {
		e := must(w.Begin(ctxOf, []vault.Volume{{ID: 1, Size: 1 << 30}}))(t)
		if err := e.Append(frame(1, blocks(uint64(i), 1), vault.CodecS2, vault.Extent{Block: uint64(i), Count: 1})); err != nil {
			t.Fatal(err)
		}
		must(e.Commit(ctxOf, point(i)))(t)
	}
	v.WaitTasks()
	first := must(v.OpenPoint(ctxOf, server, point(30).ID))(t)
	store.reset()
	second := must(v.OpenPoint(ctxOf, server, point(30).ID))(t)
	if n := store.reads.Load(); n > 3 {
		t.Errorf("%d reads to open a point that is open", n)
	}
	first.Close()
	p := make([]byte, vault.BlockSize)
	must(must(second.Volume(1))(t).ReadAt(p, 30*vault.BlockSize))(t)
	if firstDifference(p, blocks(30, 1)) >= 0 {
		t.Error("the second image reads otherwise after the first was closed")
	}
	second.Close()
}
