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

// The tests that docs/drs-behaviour-walk.md names are there.
func TestBehaviourWalk(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "drs-behaviour-walk.md"))
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`)
	for _, dir := range []string{"internal", "cmd", "test"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, e os.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			for _, m := range declared.FindAllSubmatch(source, -1) {
				there[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	named := regexp.MustCompile(`Test[A-Z][A-Za-z0-9]+`).FindAllString(string(text), -1)
	if len(named) < 50 {
		t.Errorf("the page names %d tests", len(named))
	}
	for _, name := range named {
		if !there[name] {
			t.Errorf("the page names %s, which is no test", name)
		}
	}
}
