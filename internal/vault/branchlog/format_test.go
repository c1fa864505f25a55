package branchlog_test

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/vault/branchlog"
)

var update = flag.Bool("update", false, "write the golden logs anew")

// TestDocumentedBytes compares the hex dump in the format's document with what
// the code writes.
func TestDocumentedBytes(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/formats/branch-log.md")
	if err != nil {
		t.Fatal(err)
	}
	dump := hex.Dump(branchlog.PlainGroup()[:160])
	if !strings.Contains(string(doc), dump) {
		t.Errorf("docs/formats/branch-log.md does not hold this dump:\n%s", dump)
	}
}

// goldenDisk is what the golden logs hold over a base of zeros.
func goldenDisk() []byte {
	disk := make([]byte, 64*branchlog.BlockSize-100)
	copy(disk[4096:], bytes.Repeat([]byte{1}, 8192))
	copy(disk[10000:], "not aligned")
	copy(disk[len(disk)-5:], "right")
	return disk
}

// TestGoldenLogs opens logs that the first version of the format wrote.
func TestGoldenLogs(t *testing.T) {
	want := goldenDisk()
	base := make(testBase, len(want))
	for name, key := range keys {
		golden := filepath.Join("testdata", "v1-"+name)
		if *update {
			writeGolden(t, golden, key, base, want)
		}
		dir := filepath.Join(fastDir(t), "log")
		if err := os.CopyFS(dir, os.DirFS(golden)); err != nil {
			t.Fatal(err)
		}
		l, err := branchlog.Open(dir, key, base)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		check(t, l, want)
		l.Close()
	}
}

func writeGolden(t *testing.T, golden string, key []byte, base testBase, want []byte) {
	t.Helper()
	if err := os.RemoveAll(golden); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(fastDir(t), "log")
	if err := branchlog.Create(dir, base.Size(), key); err != nil {
		t.Fatal(err)
	}
	l := open(t, dir, key, base)
	write(t, l, bytes.Repeat([]byte{9}, 40000), 4096)
	if err := l.Zero(ctx, 0, l.Size(), true); err != nil {
		t.Fatal(err)
	}
	write(t, l, want[4096:4096+8192], 4096)
	write(t, l, want[10000:10011], 10000)
	write(t, l, want[len(want)-5:], int64(len(want)-5))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(golden, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
}
