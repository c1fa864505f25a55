// Package blobtest holds what tests need of blob stores: the contract every store
// must keep, a store in memory, and one that fails when told to.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"lifeboat/internal/vault/blob"
)

// Contract checks that the stores open makes, each empty, keep the contract
// of blob.Store.
func Contract(t *testing.T, open func(t *testing.T) blob.Store) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, s blob.Store)
	}{
		{"PutThenRead", putThenRead},
		{"PutNeverReplaces", putNeverReplaces},
		{"ReadRanges", readRanges},
		{"AbsentIsAbsent", absentIsAbsent},
		{"ListShowsOneLevel", listShowsOneLevel},
		{"DeleteEmptiesFolders", deleteEmptiesFolders},
		{"BadNamesAreRefused", badNames},
		{"OneOfManyPutsWins", oneWins},
		{"FoldersComeAndGoUnderLoad", foldersUnderLoad},
		{"EndedContext", endedContext},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

func get(t *testing.T, s blob.Store, name string) []byte {
	t.Helper()
	size, err := s.Size(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if n, err := s.ReadAt(t.Context(), name, b, 0); n != len(b) || err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("ReadAt %s: %d bytes, %v; want %d", name, n, err, size)
	}
	return b
}

func put(t *testing.T, s blob.Store, name string, parts ...[]byte) {
	t.Helper()
	if err := s.PutIfAbsent(t.Context(), name, parts...); err != nil {
		t.Fatal(err)
	}
}

func putThenRead(t *testing.T, s blob.Store) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	put(t, s, "a/b/c.x", []byte("one "), nil, []byte("two"))
	put(t, s, "empty")
	put(t, s, "a/big", big)
	if got := get(t, s, "a/b/c.x"); string(got) != "one two" {
		t.Errorf("got %q, want the parts in order", got)
	}
	if got := get(t, s, "empty"); len(got) != 0 {
		t.Errorf("empty object has %d bytes", len(got))
	}
	if !bytes.Equal(get(t, s, "a/big"), big) {
		t.Error("large object differs")
	}
}

func putNeverReplaces(t *testing.T, s blob.Store) {
	part := []byte("first")
	put(t, s, "x", part)
	copy(part, "XXXXX") // the parts belong to the caller again
	if err := s.PutIfAbsent(t.Context(), "x", []byte("second")); !errors.Is(err, blob.ErrExists) {
		t.Fatalf("second put: got %v, want ErrExists", err)
	}
	if got := get(t, s, "x"); string(got) != "first" {
		t.Errorf("object became %q", got)
	}
}

func readRanges(t *testing.T, s blob.Store) {
	put(t, s, "r", []byte("0123456789"))
	for _, c := range []struct {
		off  int64
		n    int
		want string
		eof  bool
	}{{0, 4, "0123", false}, {3, 5, "34567", false}, {8, 5, "89", true}, {10, 1, "", true}, {99, 1, "", true}} {
		p := make([]byte, c.n)
		n, err := s.ReadAt(t.Context(), "r", p, c.off)
		if string(p[:n]) != c.want || c.eof != errors.Is(err, io.EOF) || !c.eof && err != nil {
			t.Errorf("ReadAt(%d, %d) = %q, %v; want %q, EOF %v", c.off, c.n, p[:n], err, c.want, c.eof)
		}
	}
}

func absentIsAbsent(t *testing.T, s blob.Store) {
	put(t, s, "dir/there", []byte("x"))
	for _, name := range []string{"not", "dir/not", "no/dir/not"} {
		if _, err := s.ReadAt(t.Context(), name, make([]byte, 1), 0); !errors.Is(err, blob.ErrAbsent) {
			t.Errorf("ReadAt(%s): got %v, want ErrAbsent", name, err)
		}
		if _, err := s.Size(t.Context(), name); !errors.Is(err, blob.ErrAbsent) {
			t.Errorf("Size(%s): got %v, want ErrAbsent", name, err)
		}
		if err := s.Delete(t.Context(), name); !errors.Is(err, blob.ErrAbsent) {
			t.Errorf("Delete(%s): got %v, want ErrAbsent", name, err)
		}
	}
	if names, err := s.List(t.Context(), "no/such/"); err != nil || len(names) != 0 {
		t.Errorf("List of an absent folder: %v, %v; want nothing", names, err)
	}
}

func wantList(t *testing.T, s blob.Store, folder string, want ...string) {
	t.Helper()
	got, err := s.List(t.Context(), folder)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("List(%q) = %q, want %q", folder, got, want)
	}
}

func listShowsOneLevel(t *testing.T, s blob.Store) {
	for _, name := range []string{"b", "a/2", "a/1", "a/sub/3", "a/sub-x/4", "c/d/e/5"} {
		put(t, s, name, []byte(name))
	}
	wantList(t, s, "", "a/", "b", "c/")
	wantList(t, s, "a/", "a/1", "a/2", "a/sub-x/", "a/sub/")
	wantList(t, s, "c/", "c/d/")
	if _, err := s.List(t.Context(), "a"); err == nil {
		t.Error("List of a name without a slash: want an error")
	}
}

func deleteEmptiesFolders(t *testing.T, s blob.Store) {
	put(t, s, "a/b/1", []byte("x"))
	put(t, s, "a/2", []byte("x"))
	if err := s.Delete(t.Context(), "a/b/1"); err != nil {
		t.Fatal(err)
	}
	wantList(t, s, "a/", "a/2")
	if err := s.Delete(t.Context(), "a/2"); err != nil {
		t.Fatal(err)
	}
	wantList(t, s, "")
	put(t, s, "a/b/1", []byte("again"))
	if got := get(t, s, "a/b/1"); string(got) != "again" {
		t.Errorf("got %q", got)
	}
}

func badNames(t *testing.T, s blob.Store) {
	for _, name := range []string{"", "/", "/a", "a/", "a//b", "../a", "a/../b", ".a", "a/.b", "a b", "a\\b", "ä", "a\x00b", string(make([]byte, 999))} {
		if err := s.PutIfAbsent(t.Context(), name, []byte("x")); err == nil {
			t.Errorf("put %q: want an error", name)
		}
		if _, err := s.ReadAt(t.Context(), name, make([]byte, 1), 0); err == nil || errors.Is(err, blob.ErrAbsent) {
			t.Errorf("read %q: got %v, want a refusal of the name", name, err)
		}
	}
	wantList(t, s, "")
}

func oneWins(t *testing.T, s blob.Store) {
	const writers = 16
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			errs[i] = s.PutIfAbsent(context.Background(), "race/n", fmt.Appendf(nil, "writer %d", i))
		})
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner < 0:
			winner = i
		case err == nil:
			t.Errorf("writers %d and %d both won", winner, i)
		case !errors.Is(err, blob.ErrExists):
			t.Error(err)
		}
	}
	if got, want := string(get(t, s, "race/n")), fmt.Sprintf("writer %d", winner); got != want {
		t.Errorf("object is %q, want %q", got, want)
	}
}

func foldersUnderLoad(t *testing.T, s blob.Store) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				name := fmt.Sprintf("f/g/%d-%d", i, j)
				if err := s.PutIfAbsent(context.Background(), name, []byte("x")); err != nil {
					t.Errorf("put: %v", err)
				}
				if err := s.Delete(context.Background(), name); err != nil {
					t.Errorf("delete: %v", err)
				}
			}
		})
	}
	wg.Wait()
	wantList(t, s, "")
}

func endedContext(t *testing.T, s blob.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.PutIfAbsent(ctx, "x", []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("put: got %v, want context.Canceled", err)
	}
	wantList(t, s, "")
}
