package iam

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func openReplays(t testing.TB, path string, now time.Time) *Replays {
	t.Helper()
	m, err := OpenReplays(path, now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A change that one process has accepted is no first one for those after it, however
// it ended, until its signature is good no more.
func TestReplaysOutliveTheProcess(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "signatures"), time.Now()
	m := openReplays(t, path, now)
	for i := range 3 {
		if !m.first(fmt.Sprint("early ", i), now, replayWindow) {
			t.Fatal("not the first")
		}
	}
	later := now.Add(replayWindow + time.Second) // another generation
	if !m.first("late", later, replayWindow) {
		t.Fatal("not the first")
	}
	for range 3 { // killed each time: nothing is closed
		m = openReplays(t, path, later)
		if m.first("late", later, replayWindow) {
			t.Error("a signature is forgotten with its process")
		}
	}
	if m = openReplays(t, path, later); !m.first("early 1", later, replayWindow) {
		t.Error("a signature that has expired is kept")
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if m.first("late", later, replayWindow) {
		t.Error("the memory ended with its journal")
	}
	far := later.Add(3 * replayWindow)
	openReplays(t, path, far)
	if info, err := os.Stat(path); err != nil || info.Size() != int64(len(replayMagic)) {
		t.Errorf("what has expired is kept: %v, %v", info, err)
	}
}

// A file that was torn anywhere loses at most the last signature; one that cannot be
// understood is begun anew.
func TestTornReplays(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "signatures"), time.Now()
	m := openReplays(t, path, now)
	m.first("a", now, replayWindow)
	m.first("b", now, replayWindow)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range text {
		if err := os.WriteFile(path, text[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		m := openReplays(t, path, now)
		if whole := n >= len(replayMagic)+replayRecord; m.first("a", now, replayWindow) == whole {
			t.Fatalf("cut at %d: whole %v", n, whole)
		}
		if !m.first("b", now, replayWindow) {
			t.Fatalf("cut at %d: a torn signature is taken for whole", n)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// When the disk fails, changes go on.
func TestReplaysWithoutTheirFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	m := openReplays(t, filepath.Join(dir, "signatures"), now)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	later := now.Add(2 * replayWindow)
	for _, signature := range []string{"a", "b"} {
		if !m.first(signature, later, replayWindow) || m.first(signature, later, replayWindow) {
			t.Errorf("%s: the memory does not work without its file", signature)
		}
	}
}

func FuzzReplays(f *testing.F) {
	f.Add([]byte(replayMagic))
	f.Add([]byte(replayMagic + "12345678 and thirty-two bytes of a hash, and more"))
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(t.TempDir(), "signatures")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		m := openReplays(t, path, time.Now())
		if !m.first("a", time.Now(), replayWindow) {
			t.Error("a signature that was never seen is known")
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
