package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// The table goes between these lines of a Markdown file.
const (
	tableBegin = "<!-- bench: made from bench/results.json by `make bench-readme`; change nothing here -->"
	tableEnd   = "<!-- /bench -->"
)

// writeReadme puts the table of the kept results into a Markdown file that has a
// place for it.
func writeReadme(kept, path string) error {
	r, err := readResults(kept)
	if err != nil {
		return err
	}
	if len(r.Measures) == 0 {
		return fmt.Errorf("%s holds no results: run make bench first", kept)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(text), tableBegin)
	_, after, closed := strings.Cut(rest, tableEnd)
	if !ok || !closed {
		return fmt.Errorf("%s has no place for the table: add these two lines where it should be:\n%s\n%s", path, tableBegin, tableEnd)
	}
	made := before + tableBegin + "\n" + r.table() + tableEnd + after
	if made == string(text) {
		return nil
	}
	return os.WriteFile(path, []byte(made), 0o644)
}

// table is the results as Markdown.
func (r *results) table() string {
	var b strings.Builder
	b.WriteString("| what | ours | peer | ratio | to reach | |\n|---|---|---|---|---|---|\n")
	for _, m := range r.Measures {
		if m.Why != "" {
			fmt.Fprintf(&b, "| %s | not measured: %s | | | | |\n", m.Name, cell(m.Why))
			continue
		}
		peer, times := "", ""
		if m.Peer != "" {
			peer, times = m.Peer+": "+figure(m.PeerValue, m.Unit), ratio(m.Ratio)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", m.Name, figure(m.Ours, m.Unit), peer, times, m.reach(), m.verdict())
	}
	fmt.Fprintf(&b, "\n%s, %d CPUs, %s. Peers: %s.\n", r.At.Format("2006-01-02"), r.CPUs, r.Go, r.peers())
	return b.String()
}

func (r *results) peers() string {
	var names []string
	for name, version := range r.Peers {
		names = append(names, name+" "+version)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }
