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

// A directory that is gone, as when its file system is unmounted, is no store without
// objects: nothing is absent in it, nothing is made in its place, and it comes back.
func TestADirectoryThatIsGoneIsNotEmpty(t *testing.T) {
	parent := t.TempDir()
	place, away := filepath.Join(parent, "store"), filepath.Join(parent, "away")
	d, err := CreateDir(place)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ctx := t.Context()
	if err := d.PutIfAbsent(ctx, "a/x", []byte("content")); err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{"nothing", "the mount point"} {
		if err := os.Rename(place, away); err != nil {
			t.Fatal(err)
		}
		if left == "the mount point" {
			if err := os.Mkdir(place, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		_, readErr := d.ReadAt(ctx, "a/x", make([]byte, 1), 0)
		_, sizeErr := d.Size(ctx, "a/x")
		_, listErr := d.List(ctx, "a/")
		_, rootErr := d.List(ctx, "")
		for what, err := range map[string]error{
			"read": readErr, "size": sizeErr, "list": listErr, "list all": rootErr,
			"put": d.PutIfAbsent(ctx, "a/y", []byte("more")), "delete": d.Delete(ctx, "a/x"),
		} {
			trouble := TroubleOf(err)
			if !errors.Is(err, ErrGone) || errors.Is(err, ErrAbsent) || trouble == nil || !trouble.Away || !strings.Contains(trouble.Text, place) {
				t.Errorf("%s, %s is left: %v, %+v", what, left, err, trouble)
			}
		}
		if left == "the mount point" {
			if entries, err := os.ReadDir(place); err != nil || len(entries) > 0 {
				t.Errorf("the mount point holds %v, %v", entries, err)
			}
			if err := os.Remove(place); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Rename(away, place); err != nil {
			t.Fatal(err)
		}
		if names, err := d.List(ctx, "a/"); err != nil || len(names) != 1 {
			t.Errorf("when it is back it lists %v, %v", names, err)
		}
	}
	if err := d.PutIfAbsent(ctx, "a/y", []byte("more")); err != nil {
		t.Error(err)
	}
}
