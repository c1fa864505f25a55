package architecture

import (
	"bufio"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const root = "../.."

// TestImportsPointDownward reads the imports of every Go file of the module and
// reports each one that the table of rules does not allow, with the reason.
func TestImportsPointDownward(t *testing.T) {
	module := moduleName(t)
	files := 0
	walk(t, func(path string) {
		files++
		dir := filepath.ToSlash(filepath.Dir(path))
		for _, imported := range importsOf(t, path) {
			target, ours := strings.CutPrefix(imported, module+"/")
			if !ours {
				continue
			}
			// Tests may use the public contract suites and doubles of any package below
			// internal; the direction matters for what ships.
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			if complaint := judge(dir, target); complaint != "" {
				t.Errorf("%s: %s", path, complaint)
			}
		}
	})
	if files == 0 {
		t.Fatal("found no Go files: the test looks in the wrong place")
	}
}

// TestJudge shows that the table forbids what it should.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		from, to string
		allowed  bool
	}{
		{"internal/vault", "internal/drs", true},
		{"internal/vault/segment", "internal/vault/blob", true},
		{"internal/vault", "internal/recovery", false},
		{"internal/drs", "internal/durable", false},
		{"internal/source/agent", "internal/ingest", false},
		{"internal/source/blocktrack", "internal/source/agent", false},
		{"internal/vault/segment", "internal/vault", false},
		{"internal/source/agent", "internal/source/blocktrack", true},
		{"internal/drsapi", "internal/vault", false},
		{"internal/recovery/nbd", "internal/vault", false},
		{"internal/server", "internal/vault/blob", true},
		{"internal/server", "internal/source/agent", false},
		{"cmd/lifeboat", "internal/server", true},
		{"internal/drawer", "internal/drs", false},
	} {
		if complaint := judge(c.from, c.to); (complaint == "") != c.allowed {
			t.Errorf("%s importing %s: allowed %v, want %v (%s)", c.from, c.to, complaint == "", c.allowed, complaint)
		}
	}
}

// judge returns why the import is not allowed, or nothing.
func judge(from, to string) string {
	for _, r := range mayNever {
		if under(from, r.dir) && underAny(to, r.may) {
			return fmt.Sprintf("%s must not import %s: %s", from, to, r.why)
		}
	}
	r, ok := ruleFor(from)
	if !ok {
		return fmt.Sprintf("%s has no rule yet: say in test/architecture/rules_test.go what it may import and why", from)
	}
	if under(to, r.dir) || underAny(to, r.may) {
		return ""
	}
	return fmt.Sprintf("%s must not import %s: %s", from, to, r.why)
}

// ruleFor finds the rule of the nearest directory.
func ruleFor(dir string) (rule, bool) {
	best, found := rule{}, false
	for _, r := range rules {
		if under(dir, r.dir) && len(r.dir) >= len(best.dir) {
			best, found = r, true
		}
	}
	return best, found
}

func under(dir, parent string) bool { return dir == parent || strings.HasPrefix(dir, parent+"/") }

func underAny(dir string, parents []string) bool {
	for _, parent := range parents {
		if under(dir, parent) {
			return true
		}
	}
	return false
}

func moduleName(t *testing.T) string {
	t.Helper()
	f, err := os.Open(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "module "); ok {
			return strings.TrimSpace(name)
		}
	}
	t.Fatal("go.mod names no module")
	return ""
}

// walk calls visit with the module-relative path of every Go file.
func walk(t *testing.T, visit func(path string)) {
	t.Helper()
	for _, top := range []string{"cmd", "internal", "test"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && entry.Name() == "testdata":
				return filepath.SkipDir
			case !entry.IsDir() && strings.HasSuffix(path, ".go"):
				relative, err := filepath.Rel(root, path)
				if err != nil {
					return err
				}
				visit(relative)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func importsOf(t *testing.T, path string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var imports []string
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		imports = append(imports, imported)
	}
	return imports
}
