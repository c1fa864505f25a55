package architecture

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// named finds the names of metrics: those of the agent are made by its desc.
var named = regexp.MustCompile(`"lifeboat_([a-z_]+)"|\bdesc\("([a-z_]+)"`)

// TestMetricsAreDocumented: whoever watches finds each metric in docs/metrics.md.
func TestMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs/metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	walk(t, func(path string) {
		if strings.HasSuffix(path, "_test.go") || !strings.HasPrefix(filepath.ToSlash(path), "internal/") {
			return
		}
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), "client_golang/prometheus") {
			return
		}
		for _, m := range named.FindAllStringSubmatch(string(text), -1) {
			name := strings.TrimPrefix(m[1]+m[2], "agent_")
			if found++; name != "" && !regexp.MustCompile("`"+name+"[`{]").Match(page) {
				t.Errorf("%s: docs/metrics.md does not tell of the metric %s", path, name)
			}
		}
	})
	if found < 20 {
		t.Fatalf("found %d metrics: the test looks for the wrong words", found)
	}
}
