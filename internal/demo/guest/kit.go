package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// kitVersion changes when what a kit holds does, so that old ones are left alone.
const kitVersion = "kit-v2"

// kit is what every guest is made of, taken from packages of the distribution
// and kept in the cache: a kernel, the modules it needs to reach its disk, and
// a static busybox.
type kit struct {
	dir string

	KernelPackage string
	Modules       []string // file names below modules/, in the order to load them
	Applets       []string // busybox applets
	Digest        string   // over all of the kit's files
}

func (k kit) kernel() string            { return filepath.Join(k.dir, "vmlinuz") }
func (k kit) busybox() string           { return filepath.Join(k.dir, "busybox") }
func (k kit) module(name string) string { return filepath.Join(k.dir, "modules", name) }
func kitFile(dir string) string         { return filepath.Join(dir, "kit.json") }
func (k kit) filesInOrder() []string {
	files := []string{k.kernel(), k.busybox()}
	for _, module := range k.Modules {
		files = append(files, k.module(module))
	}
	return files
}

// openKit returns the cached kit of Build's machines, fetching its packages the
// first time.
func openKit(ctx context.Context) (kit, error) { return openNamedKit(ctx, kitVersion, wantedModules) }

// openNamedKit returns a kit with the modules wanted, by the name it has in the cache.
func openNamedKit(ctx context.Context, name string, modules []string) (kit, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return kit{}, fmt.Errorf("find a cache directory: %w; set HOME or XDG_CACHE_HOME", err)
	}
	parent := filepath.Join(cache, "lifeboat", "guest")
	dir := filepath.Join(parent, name)
	if k, err := loadKit(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return kit{}, err
	}
	work, err := os.MkdirTemp(parent, ".fetch-*")
	if err != nil {
		return kit{}, err
	}
	defer os.RemoveAll(work)
	made := filepath.Join(work, name)
	if err := makeKit(ctx, work, made, modules); err != nil {
		return kit{}, err
	}
	// Another process may have been faster; then its kit is as good as ours.
	if err := os.Rename(made, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return kit{}, err
	}
	return loadKit(dir)
}

func loadKit(dir string) (kit, error) {
	data, err := os.ReadFile(kitFile(dir))
	if err != nil {
		return kit{}, err
	}
	k := kit{dir: dir}
	if err := json.Unmarshal(data, &k); err != nil {
		return kit{}, fmt.Errorf("damaged cache %s: %w; remove that directory and run again", dir, err)
	}
	switch digest, err := k.digest(); {
	case err != nil:
		return kit{}, fmt.Errorf("damaged cache %s: %w; remove that directory and run again", dir, err)
	case digest != k.Digest:
		return kit{}, fmt.Errorf("damaged cache %s: its files have changed; remove that directory and run again", dir)
	}
	return k, nil
}

func (k kit) digest() (string, error) {
	var sums bytes.Buffer
	for _, path := range k.filesInOrder() {
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&sums, "%s %s\n", filepath.Base(path), hexDigest(data))
	}
	return hexDigest(sums.Bytes()), nil
}

// makeKit fetches and unpacks packages below work and writes a kit to dir.
func makeKit(ctx context.Context, work, dir string, modules []string) error {
	if runtime.GOARCH != "amd64" {
		return fmt.Errorf("guests are x86-64 machines made of the host's own packages, and this host is %s", runtime.GOARCH)
	}
	tree := filepath.Join(work, "tree")
	kernel, err := fetchPackages(ctx, work, tree)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "modules"), 0o755); err != nil {
		return err
	}
	k := kit{dir: dir, KernelPackage: kernel}

	vmlinuz, err := oneOf(tree, "boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz", "lib/modules/*/vmlinuz")
	if err != nil {
		return err
	}
	if err := copyFile(vmlinuz, k.kernel(), 0o644); err != nil {
		return err
	}
	busybox, err := oneOf(tree, "bin/busybox", "usr/bin/busybox")
	if err != nil {
		return err
	}
	if err := copyFile(busybox, k.busybox(), 0o755); err != nil {
		return err
	}
	applets, err := exec.CommandContext(ctx, k.busybox(), "--list").Output()
	if err != nil {
		return fmt.Errorf("list the applets of busybox: %w", err)
	}
	k.Applets = strings.Fields(string(applets))

	k.Modules, err = collectModules(tree, filepath.Join(dir, "modules"), modules)
	if err != nil {
		return err
	}
	if k.Digest, err = k.digest(); err != nil {
		return err
	}
	description, err := json.MarshalIndent(k, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(kitFile(dir), description, 0o644)
}

// oneOf returns the first match of the patterns below dir.
func oneOf(dir string, patterns ...string) (string, error) {
	for _, pattern := range patterns {
		matches, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return "", err
		}
		if len(matches) > 0 {
			return matches[0], nil
		}
	}
	return "", fmt.Errorf("the fetched packages hold no %s", strings.Join(patterns, " or "))
}

func copyFile(from, to string, mode os.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, mode)
}
