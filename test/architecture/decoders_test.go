package architecture

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// decodes recognises code that takes numbers out of bytes, as decoders of stored and
// received data do.
var decodes = regexp.MustCompile(`binary\.(Little|Big)Endian\.Uint|binary\.Read\(|binary\.Uvarint`)

// unfuzzed are packages that need no fuzz test, and why.
var unfuzzed = map[string]string{}

// TestDecodersAreFuzzed: a package that decodes binary data has a fuzz test.
func TestDecodersAreFuzzed(t *testing.T) {
	decoding, fuzzed := map[string]string{}, map[string]bool{}
	walk(t, func(path string) {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		switch {
		case !strings.HasPrefix(dir, "internal/"):
		case !strings.HasSuffix(path, "_test.go"):
			if decodes.Match(text) {
				decoding[dir] = path
			}
		case strings.Contains(string(text), "\nfunc Fuzz"):
			fuzzed[dir] = true
		}
	})
	if len(decoding) < 5 {
		t.Fatalf("found %d packages that decode: the test looks for the wrong words", len(decoding))
	}
	for dir, path := range decoding {
		if !fuzzed[dir] && unfuzzed[dir] == "" {
			t.Errorf("%s decodes bytes (%s) and no Fuzz test gives it arbitrary ones", dir, path)
		}
	}
}
