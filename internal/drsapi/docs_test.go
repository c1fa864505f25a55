package drsapi

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/drs-compatibility.md has a row for every operation that the server has, and
// for no other.
func TestCompatibilityPage(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "drs-compatibility.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## Operations\n")
	section, _, _ = strings.Cut(section, "\n## ")
	table, _, _ := strings.Cut(section, "\n### ")
	if !ok {
		t.Fatal("the page has no section Operations")
	}
	rows := map[string]string{}
	name := regexp.MustCompile(`^[A-Z][A-Za-z]+$`)
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 3 || !strings.HasPrefix(line, "|") || strings.Contains(line, "---") || strings.TrimSpace(cells[0]) == "Operation" {
			continue
		}
		for _, op := range strings.Split(cells[0], ",") {
			op = strings.TrimSpace(op)
			if !name.MatchString(op) {
				t.Errorf("row %q names no operation", cells[0])
			}
			if rows[op] != "" {
				t.Errorf("%s has two rows", op)
			}
			rows[op] = line
		}
	}
	s := newSite(t)
	var supported []string
	for _, op := range s.api.operations {
		supported = append(supported, op.name)
		if rows[op.name] == "" {
			t.Errorf("%s has no row", op.name)
		}
	}
	for op := range rows {
		if !slices.Contains(supported, op) {
			t.Errorf("%s is no operation", op)
		}
	}
}
