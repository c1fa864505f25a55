package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestChooseRows(t *testing.T) {
	all := []row{{name: "sync"}, {name: "nbd-warm"}, {name: "nbd-cold"}}
	for only, want := range map[string]string{
		"": "sync nbd-warm nbd-cold", "nbd": "nbd-warm nbd-cold", "nbd-cold, sync": "sync nbd-cold", "boot": "", "sync,boot": "",
	} {
		chosen, err := choose(all, only)
		var names []string
		for _, r := range chosen {
			names = append(names, r.name)
		}
		if got := strings.Join(names, " "); (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("rows %q: %q, %v; want %q", only, got, err, want)
		}
	}
	seen := map[string]bool{}
	for _, r := range rows {
		if r.name == "" || r.about == "" || r.run == nil || seen[r.name] {
			t.Errorf("row %+v", r)
		}
		seen[r.name] = true
	}
}

func TestARowWithoutItsPeerSaysSo(t *testing.T) {
	r := row{name: "x", needs: []string{"no-such-program"}, run: func(context.Context, *bench) ([]measurement, error) {
		t.Error("it ran")
		return nil, nil
	}}
	if _, err := r.measure(t.Context(), &bench{}); err == nil || !strings.Contains(err.Error(), "no-such-program is not installed") {
		t.Errorf("%v", err)
	}
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		m    measurement
		want string
	}{
		{measurement{Ours: 2, Reach: 3}, "reached"},
		{measurement{Ours: 4, Reach: 3}, "NOT reached"},
		{measurement{Ours: 2, Peer: "p", PeerValue: 4, Reach: 0.4}, "NOT reached"},
		{measurement{Ours: 2, Peer: "p", PeerValue: 4, Reach: 0.5}, "reached"},
		{measurement{Ours: 3, Peer: "p", PeerValue: 4, Reach: 0.7, AtLeast: true}, "reached"},
		{measurement{Ours: 2, Peer: "p", PeerValue: 4, Reach: 0.7, AtLeast: true}, "NOT reached"},
		{measurement{Ours: 2, Peer: "p", PeerValue: 4}, ""},
		{measurement{Why: "no"}, ""},
	} {
		c.m.settle("row", time.Now())
		if got := c.m.verdict(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.m, got, c.want)
		}
	}
}

// A run of some rows keeps the figures of the others, in the order of the table,
// and the table goes into the README between its marks.
func TestResultsAreKeptAndShown(t *testing.T) {
	dir := t.TempDir()
	file, readme := filepath.Join(dir, "bench", "results.json"), filepath.Join(dir, "README.md")
	at := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	entry := func(row, name string, ours float64) measurement {
		m := measurement{Name: name, Unit: "ms", Ours: ours, Peer: "peer", PeerValue: 10, Reach: 1}
		m.settle(row, at)
		return m
	}
	first := results{At: at, CPUs: 2, Peers: map[string]string{"zstd": "1.5"}, Measures: []measurement{
		entry("sync", "a sync", 5), entry("vault", "a commit", 20), entry("gone", "of a row that is no more", 1), {Row: "boot", Name: "a boot", Why: "no | QEMU"},
	}}
	if err := first.write(file); err != nil {
		t.Fatal(err)
	}
	kept, err := readResults(file)
	if err != nil {
		t.Fatal(err)
	}
	second := results{At: at, CPUs: 2, Peers: first.Peers, Measures: []measurement{entry("vault", "a commit", 4)}}
	second.keep(kept, []row{{name: "vault"}})
	if err := second.write(file); err != nil {
		t.Fatal(err)
	}
	if err := writeReadme(file, readme); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no README: %v", err)
	}
	if err := os.WriteFile(readme, []byte("# no place\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeReadme(file, readme); err == nil {
		t.Error("a README without a place for the table was accepted")
	}
	for range 2 { // the second time finds its own table
		if text, _ := os.ReadFile(readme); !strings.Contains(string(text), tableEnd) {
			if err := os.WriteFile(readme, []byte("# Lifeboat\n"+tableBegin+"\nold\n"+tableEnd+"\nmore\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := writeReadme(file, readme); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(readme)
	if err != nil {
		t.Fatal(err)
	}
	want := "# Lifeboat\n" + tableBegin + `
| what | ours | peer | ratio | to reach | |
|---|---|---|---|---|---|
| a sync | 5 ms | peer: 10 ms | 0.50x | at most 1.00x | reached |
| a commit | 4 ms | peer: 10 ms | 0.40x | at most 1.00x | reached |
| a boot | not measured: no \| QEMU | | | | |

2026-11-23, 2 CPUs, . Peers: zstd 1.5.
` + tableEnd + "\nmore\n"
	if string(text) != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}

// The images hold what their names say.
func TestSources(t *testing.T) {
	words := newText(deterministic{})
	p := make([]byte, 100_000)
	if _, err := io.ReadFull(words, p); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(p), " "); n < 5000 || strings.ContainsRune(string(p), 0) {
		t.Errorf("text of %d words: %.80q", n, p)
	}
}

// deterministic is a source of numbers that go through all bits.
type deterministic struct{}

var counter uint64

func (deterministic) Uint64() uint64 {
	counter += 0x9e3779b97f4a7c15
	return counter
}
