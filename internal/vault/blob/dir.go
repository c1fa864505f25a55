package blob

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"lifeboat/internal/durable"
)

// Dir keeps objects as files below one directory of a local file system.
//
// An object is written to a temporary file, synced, and linked to its name,
// which fails if the name is taken; then the directory is synced. Temporary
// files lie in one folder, so that those a crash left behind are found without
// walking the store.
type Dir struct {
	root  string
	files durable.Files
	lock  *os.File // holds a shared lock while the store is open

	mu sync.Mutex
	// settled holds the folders whose own entry and whose listed entries are known
	// to be durable, so that a commit syncs one directory only. Guarded by mu.
	settled map[string]bool
}

var _ Store = (*Dir)(nil)

const (
	lockName = ".lifeboat-store"
	tempName = ".tmp"
)

// CreateDir makes a new, empty store at path, which must be absent or an empty
// directory, and opens it.
func CreateDir(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, kindOf(fmt.Errorf("create store %s: %w", path, err))
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("create store %s: %w", path, err)
	}
	for _, e := range entries {
		if e.Name() == lockName {
			return nil, fmt.Errorf("create store %s: %w", path, ErrExists)
		}
		if e.Name() != tempName { // a creation that was cut short
			return nil, fmt.Errorf("create store %s: the directory holds other files, such as %s: choose an empty one", path, e.Name())
		}
	}
	var files durable.Files
	err = files.Mkdir("create store", filepath.Join(path, tempName))
	if err == nil {
		err = files.CreateFile("create store", filepath.Join(path, lockName), []byte("lifeboat object store v1\n"), 0o600)
	}
	if err == nil {
		err = files.SyncDir("create store", filepath.Dir(filepath.Clean(path)))
	}
	if err != nil {
		return nil, kindOf(fmt.Errorf("create store %s: %w", path, err))
	}
	return OpenDir(path)
}

// OpenDir opens the store at path. A directory that CreateDir did not make is
// refused with ErrAbsent and left as it is. Temporary files of crashed writers
// are swept when nobody else has the store open.
func OpenDir(path string) (*Dir, error) { return openDir(path, durable.Files{}) }

func openDir(path string, files durable.Files) (*Dir, error) {
	lock, err := os.Open(filepath.Join(path, lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open store %s: it is not a Lifeboat store, check the path: %w", path, ErrAbsent)
	}
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	d := &Dir{root: path, files: files, lock: lock, settled: map[string]bool{}}
	// Only an exclusive holder knows that no temporary file is in use.
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		d.sweep()
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_SH); err != nil {
		lock.Close()
		return nil, fmt.Errorf("open store %s: lock: %w", path, err)
	}
	return d, nil
}

// sweep removes left-over temporary files. They do no harm, so that failing (on a
// read-only file system, say) is none either.
func (d *Dir) sweep() {
	entries, err := os.ReadDir(filepath.Join(d.root, tempName))
	if err != nil {
		return
	}
	for _, e := range entries {
		os.Remove(filepath.Join(d.root, tempName, e.Name()))
	}
}

// Close releases the store.
func (d *Dir) Close() error { return d.lock.Close() }

// PutIfAbsent implements Store.
func (d *Dir) PutIfAbsent(ctx context.Context, name string, parts ...[]byte) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	if err := d.put(name, parts); err != nil {
		return d.here(kindOf(fmt.Errorf("put %s: %w", name, err)))
	}
	return nil
}

func (d *Dir) put(name string, parts [][]byte) (err error) {
	var rnd [12]byte
	rand.Read(rnd[:])
	tmp := filepath.Join(d.root, tempName, hex.EncodeToString(rnd[:]))
	f, err := d.files.Create("put: create", tmp, 0o600)
	if err != nil {
		return err
	}
	// The name in the temporary folder need not go durably: the next open sweeps.
	defer os.Remove(tmp)
	err = d.files.WriteBulk("put: write", f, parts...)
	if err == nil {
		err = d.files.Sync("put: sync", f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	folder := path.Dir(name)
	for range 8 { // Delete may remove an emptied folder under our hands
		if err = d.settle(folder, true); err == nil {
			err = d.files.Link("put: link", tmp, d.path(name))
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		d.unsettle(folder)
	}
	var taken error
	if errors.Is(err, fs.ErrExist) {
		err, taken = nil, ErrExists
	}
	if err != nil {
		return err
	}
	// Also what was there before us must be durable when we speak of it.
	if err := d.syncFolder("put: sync directory", folder); err != nil {
		d.unsettle(folder)
		return err
	}
	return taken
}

// settle makes sure, once per folder and process, that the folder, all above
// it and every name in it are durable: an earlier process may have died between
// making a name and syncing it.
func (d *Dir) settle(folder string, create bool) error {
	d.mu.Lock()
	done := d.settled[folder]
	d.mu.Unlock()
	if done {
		return nil
	}
	if folder != "." {
		if err := d.settle(path.Dir(folder), create); err != nil {
			return err
		}
		if create {
			if err := d.files.Mkdir("put: make folder", d.path(folder)); err != nil {
				return err
			}
			if err := d.files.SyncDir("put: sync parent", d.path(path.Dir(folder))); err != nil {
				return err
			}
		}
	}
	if err := d.files.SyncDir("settle", d.path(folder)); err != nil {
		return err
	}
	d.mu.Lock()
	d.settled[folder] = true
	d.mu.Unlock()
	return nil
}

func (d *Dir) unsettle(folder string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ; folder != "."; folder = path.Dir(folder) {
		delete(d.settled, folder)
	}
}

// ReadAt implements Store.
func (d *Dir) ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error) {
	if err := CheckName(name); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	f, err := os.Open(d.path(name))
	if err != nil {
		return 0, d.here(readKind(fmt.Errorf("read %s: %w", name, err)))
	}
	defer f.Close()
	n, err := f.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, fmt.Errorf("read %s at %d: %w", name, off, err)
	}
	return n, err
}

// Size implements Store.
func (d *Dir) Size(ctx context.Context, name string) (int64, error) {
	if err := CheckName(name); err != nil {
		return 0, err
	}
	info, err := os.Lstat(d.path(name))
	if err != nil {
		return 0, d.here(readKind(fmt.Errorf("size of %s: %w", name, err)))
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("size of %s: not a regular file", name)
	}
	return info.Size(), nil
}

// List implements Store.
func (d *Dir) List(ctx context.Context, folder string) ([]string, error) {
	if folder != "" {
		if err := CheckName(strings.TrimSuffix(folder, "/")); err != nil || !strings.HasSuffix(folder, "/") {
			return nil, fmt.Errorf("list %q: not a folder name", folder)
		}
	}
	// Another process may have linked a name it has not synced yet.
	err := d.settle(path.Clean(folder), false)
	if err == nil {
		err = d.files.SyncDir("list: sync directory", d.path(folder))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, d.present(folder)
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", folder, err)
	}
	entries, err := os.ReadDir(d.path(folder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, d.present(folder)
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", folder, err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		name := folder + e.Name()
		switch {
		case strings.HasPrefix(e.Name(), "."):
			continue
		case !e.IsDir():
			names = append(names, name)
		case d.holdsObject(d.path(name)):
			names = append(names, name+"/")
		}
	}
	if len(names) == 0 { // as a mount point is
		return names, d.present(folder)
	}
	slices.Sort(names) // a folder's slash sorts after '-' and '.'
	return names, nil
}

// holdsObject tells whether any file lies below dir: a crash can leave folders
// empty. It looks at few entries: the first one of a full folder tells.
func (d *Dir) holdsObject(dir string) bool {
	f, err := os.Open(dir)
	if err != nil { // an unreadable folder is shown, and fails when it is read
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	for {
		entries, err := f.ReadDir(16)
		for _, e := range entries {
			if !e.IsDir() || d.holdsObject(filepath.Join(dir, e.Name())) {
				return true
			}
		}
		if err != nil {
			return !errors.Is(err, io.EOF)
		}
	}
}

// Delete implements Store.
func (d *Dir) Delete(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	folder := path.Dir(name)
	err := d.files.Remove("delete: unlink", d.path(name))
	if err == nil {
		err = d.syncFolder("delete: sync directory", folder)
	}
	if err != nil {
		return d.here(kindOf(fmt.Errorf("delete %s: %w", name, err)))
	}
	// Folders that became empty go too; rmdir refuses the others.
	for folder != "." && os.Remove(d.path(folder)) == nil {
		d.unsettle(folder)
		folder = path.Dir(folder)
	}
	return nil
}

// here is err, unless it speaks of absence only because the whole directory is gone: a
// file system that was unmounted must not look like a store without objects.
func (d *Dir) here(err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if gone := d.present(""); gone != nil {
		return gone
	}
	return err
}

// present returns ErrGone when the directory is not there, or not a store any more.
func (d *Dir) present(folder string) error {
	_, err := os.Stat(filepath.Join(d.root, lockName))
	if err == nil {
		return nil
	}
	d.mu.Lock()
	clear(d.settled) // of what comes back nothing is known
	d.mu.Unlock()
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrGone, d.root)
	}
	return fmt.Errorf("list %s: %w", folder, err)
}

// syncFolder syncs a folder, or what is left above it when a Delete has removed
// it meanwhile, as empty, with everything that was ever in it.
func (d *Dir) syncFolder(op, folder string) error {
	for {
		err := d.files.SyncDir(op, d.path(folder))
		if folder == "." || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		folder = path.Dir(folder)
	}
}

func (d *Dir) path(name string) string { return filepath.Join(d.root, filepath.FromSlash(name)) }

// CheckName refuses names that Store does not allow. It keeps every object below the root and out of the store's own files.
func CheckName(name string) error {
	if len(name) == 0 || len(name) > 512 {
		return fmt.Errorf("object name of %d bytes: want 1 to 512", len(name))
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part[0] == '.' || len(part) > 200 {
			return fmt.Errorf("object name %q: a part is empty, too long or begins with a dot", name)
		}
		for _, c := range []byte(part) {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
			default:
				return fmt.Errorf("object name %q: character %q is not allowed", name, c)
			}
		}
	}
	return nil
}

// readKind names absence as the store's own kind of error.
func readKind(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", err, ErrAbsent)
	}
	return err
}

// kindOf names what can keep a write from happening, likewise.
func kindOf(err error) error {
	for _, k := range []struct{ is, kind error }{
		{fs.ErrNotExist, ErrAbsent},
		{syscall.ENOSPC, ErrNoSpace},
		{syscall.EDQUOT, ErrNoSpace},
		{syscall.EROFS, ErrReadOnly},
		{fs.ErrPermission, ErrReadOnly},
	} {
		if errors.Is(err, k.is) {
			return fmt.Errorf("%w: %w", err, k.kind)
		}
	}
	return err
}
