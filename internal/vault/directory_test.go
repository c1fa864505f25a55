package vault_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"lifeboat/internal/vault/blob"
)

// directory is a store in a directory whose objects a test can look at and change.
type directory struct {
	*blob.Dir
	path string
	t    testing.TB
}

// newDirectory returns an empty one, open until the test ends.
func newDirectory(t testing.TB) *directory {
	t.Helper()
	path := filepath.Join(quickDir(t), "vault")
	store, err := blob.CreateDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return &directory{store, path, t}
}

// quickDir is a folder for the length of a test, in memory where there is room. What a
// power cut leaves is package blob's to test; here thousands of syncs only take time.
func quickDir(t testing.TB) string {
	t.Helper()
	const memory = "/dev/shm"
	var fs unix.Statfs_t
	if unix.Statfs(memory, &fs) != nil || fs.Type != unix.TMPFS_MAGIC || int64(fs.Bavail)*fs.Bsize < 1<<30 {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "lifeboat-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Clone returns a new directory with the same objects.
func (d *directory) Clone() *directory {
	d.t.Helper()
	c := newDirectory(d.t)
	for _, name := range d.Names() {
		c.Replace(name, d.Bytes(name))
	}
	return c
}

// Names returns the names of all objects, sorted.
func (d *directory) Names() []string {
	d.t.Helper()
	var out []string
	err := filepath.WalkDir(d.path, func(path string, entry fs.DirEntry, err error) error {
		name, relErr := filepath.Rel(d.path, path)
		switch {
		case errors.Is(err, fs.ErrNotExist): // the vault works on
			return nil
		case err != nil || relErr != nil:
			return errors.Join(err, relErr)
		case entry.IsDir() && name == ".tmp":
			return filepath.SkipDir
		case !entry.IsDir() && !strings.HasPrefix(name, "."):
			out = append(out, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// Bytes returns an object, which must exist.
func (d *directory) Bytes(name string) []byte {
	d.t.Helper()
	content, err := os.ReadFile(filepath.Join(d.path, name))
	if err != nil {
		d.t.Fatal(err)
	}
	return content
}

// Replace does what no store may: it changes an object. Nil removes it.
func (d *directory) Replace(name string, content []byte) {
	d.t.Helper()
	path := filepath.Join(d.path, name)
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err == nil && content != nil {
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
			err = os.WriteFile(path, content, 0o600)
		}
	}
	if err != nil {
		d.t.Fatal(err)
	}
}
