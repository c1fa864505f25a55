package blob

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lifeboat/internal/durable"
)

func TestOpenDirNeverInvents(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "absent")} {
		if _, err := OpenDir(path); !errors.Is(err, ErrAbsent) {
			t.Errorf("OpenDir(%s): got %v, want ErrAbsent", path, err)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("OpenDir left %v behind", entries)
	}
}

func TestCreateDirWantsAnEmptyPlace(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, "precious"), nil, 0o600)
	if _, err := CreateDir(dir); err == nil || !strings.Contains(err.Error(), "precious") {
		t.Errorf("got %v, want a refusal that names the file", err)
	}
	dir = filepath.Join(t.TempDir(), "new")
	d, err := CreateDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if _, err := CreateDir(dir); !errors.Is(err, ErrExists) {
		t.Errorf("second CreateDir: got %v, want ErrExists", err)
	}
}

func newDir(t *testing.T, fault func(op, path string, do func() error) error) (*Dir, string) {
	path := filepath.Join(t.TempDir(), "store")
	d, err := CreateDir(path)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if d, err = openDir(path, durable.Files{Fault: fault}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, path
}

func TestLeftoversAreSweptOnlyWhenAlone(t *testing.T) {
	d, path := newDir(t, nil)
	left := filepath.Join(path, tempName, "half-written")
	os.WriteFile(left, []byte("x"), 0o600)
	second, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
	if _, err := os.Stat(left); err != nil {
		t.Fatalf("temporary file of a store in use was swept: %v", err)
	}
	d.Close()
	if d, err = OpenDir(path); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := os.Stat(left); err == nil {
		t.Error("left-over temporary file is still there")
	}
}

// TestEveryFaultLeavesWholeObjects fails each labelled operation of a put.
func TestEveryFaultLeavesWholeObjects(t *testing.T) {
	for _, c := range []struct {
		err  error
		kind error
	}{{syscall.ENOSPC, ErrNoSpace}, {syscall.EROFS, ErrReadOnly}, {syscall.EIO, syscall.EIO}} {
		for _, site := range []string{"put: create", "put: write", "put: sync", "put: make folder", "put: sync parent", "settle", "put: link", "put: sync directory"} {
			t.Run(site+"/"+c.err.Error(), func(t *testing.T) {
				armed := true
				d, path := newDir(t, func(op, _ string, do func() error) error {
					if op == site && armed {
						armed = false
						return c.err
					}
					return do()
				})
				err := d.PutIfAbsent(t.Context(), "a/b", []byte("content"))
				if armed {
					t.Fatalf("no operation is labelled %q", site)
				}
				if !errors.Is(err, c.kind) {
					t.Errorf("got %v, want %v", err, c.kind)
				}
				size, err := d.Size(t.Context(), "a/b")
				if site == "put: sync directory" {
					if err != nil || size != 7 {
						t.Errorf("object: %d bytes, %v; want it whole", size, err)
					}
				} else if !errors.Is(err, ErrAbsent) {
					t.Errorf("object: got %v, want ErrAbsent", err)
				}
				if left, _ := os.ReadDir(filepath.Join(path, tempName)); len(left) != 0 {
					t.Errorf("temporary files left: %v", left)
				}
				// The cause gone, all goes on.
				if err := d.PutIfAbsent(t.Context(), "a/c", []byte("more")); err != nil {
					t.Errorf("put after the fault: %v", err)
				}
			})
		}
	}
}

// TestListFailsRatherThanShowWhatMayVanish: an entry whose directory could not be
// synced is not listed as if it were durable.
func TestListFailsRatherThanShowWhatMayVanish(t *testing.T) {
	broken := false
	d, _ := newDir(t, func(op, _ string, do func() error) error {
		if broken && strings.Contains(op, "sync directory") {
			return syscall.EIO
		}
		return do()
	})
	broken = true
	if err := d.PutIfAbsent(t.Context(), "a/b", []byte("x")); err == nil {
		t.Fatal("put: want an error")
	}
	if names, err := d.List(t.Context(), "a/"); err == nil {
		t.Errorf("List shows %v", names)
	}
	broken = false
	if names, err := d.List(t.Context(), "a/"); err != nil || len(names) != 1 {
		t.Errorf("List = %v, %v; want the object", names, err)
	}
}

// TestWhatADeadProcessLinkedIsSyncedBeforeItIsListed: it may have died between
// linking a name and syncing the directory.
func TestWhatADeadProcessLinkedIsSyncedBeforeItIsListed(t *testing.T) {
	dying, path := newDir(t, func(op, _ string, do func() error) error {
		if op == "put: sync directory" {
			return syscall.EIO
		}
		return do()
	})
	if err := dying.PutIfAbsent(t.Context(), "a/b/c", []byte("x")); err == nil {
		t.Fatal("put: want an error")
	}
	dying.Close()
	synced := map[string]bool{}
	next, err := openDir(path, durable.Files{Fault: func(op, dir string, do func() error) error {
		synced[dir] = true
		return do()
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if names, err := next.List(t.Context(), "a/b/"); err != nil || len(names) != 1 {
		t.Fatalf("List = %v, %v; want the object", names, err)
	}
	for _, dir := range []string{"a/b", "a", "."} {
		if !synced[filepath.Join(path, dir)] {
			t.Errorf("listed, but %s was not synced", dir)
		}
	}
}
