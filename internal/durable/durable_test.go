package durable_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"lifeboat/internal/durable"
)

func TestWriteFileReplacesWholeOrNothing(t *testing.T) {
	boom := errors.New("boom")
	for _, site := range []string{"save: create", "save: write", "save: sync", "save: place", "save: sync directory"} {
		t.Run(site, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "state")
			if err := (durable.Files{}).WriteFile("save", path, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			hit := false
			faulty := durable.Files{Fault: func(op, _ string, do func() error) error {
				if op == site {
					hit = true
					return boom
				}
				return do()
			}}
			if err := faulty.WriteFile("save", path, []byte("new"), 0o600); !errors.Is(err, boom) {
				t.Fatalf("WriteFile: got %v, want the injected error", err)
			}
			if !hit {
				t.Fatalf("no operation is labelled %q", site)
			}
			want := "old"
			if site == "save: sync directory" {
				want = "new" // already in place, only not known to be durable
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != want {
				t.Errorf("file holds %q (%v), want %q", got, err, want)
			}
			if left, _ := os.ReadDir(dir); len(left) != 1 {
				t.Errorf("%d files left, want 1: %v", len(left), left)
			}
		})
	}
}

func TestCreateFileNeverReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	var files durable.Files
	if err := files.CreateFile("create", path, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := files.CreateFile("create", path, []byte("second"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("second CreateFile: got %v, want fs.ErrExist", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "first" {
		t.Errorf("file holds %q, want the first content", got)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
}

func TestWriteBulkWritesEveryByte(t *testing.T) {
	whole := make([]byte, 3<<20+123)
	for i := range whole {
		whole[i] = byte(i * 7)
	}
	var files durable.Files
	for _, data := range [][]byte{whole, whole[1:], whole[:2<<20], whole[:100], nil} { // aligned, not aligned, whole blocks, small
		f, err := files.Create("bulk", filepath.Join(t.TempDir(), "f"), 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := files.WriteBulk("bulk", f, data); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(files.Sync("bulk", f), f.Close()); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes written, %d read back (%v), or they differ", len(data), len(got), err)
		}
	}
}
