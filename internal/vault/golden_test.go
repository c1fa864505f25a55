package vault_test

import (
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob/blobtest"
)

// goldenDisk is what the golden vault holds after n commits.
func goldenDisk(n int) *disk {
	d := &disk{}
	d.grow(20*vault.BlockSize + 100)
	for i := 1; i <= n; i++ {
		copy(d.data[i*vault.BlockSize:], blocks(uint64(i), 2))
		clear(d.data[(i+6)*vault.BlockSize:][:vault.BlockSize])
	}
	return d
}

const goldenCommits = 7

// writeGolden makes a vault with every kind of object in a few small files.
func writeGolden(t *testing.T, dir string) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	keys := must(vault.CreateKeyFile(filepath.Join(dir, "master.key")))(t)
	store := blobtest.NewMem()
	v := newVault(t, store, keys, vault.Options{}.Golden())
	w := must(v.Writer(ctxOf, server, vault.MainBranch))(t)
	for i := 1; i <= goldenCommits; i++ {
		e := must(w.Begin(ctxOf, []vault.Volume{{ID: 1, Device: "/dev/sda", Size: goldenDisk(0).size}}))(t)
		f := frame(1, blocks(uint64(i), 2), vault.Codec(i%3), vault.Extent{Block: uint64(i), Count: 2})
		if err := e.Append(f); err != nil {
			t.Fatal(err)
		}
		if err := e.Zero(1, uint64(i+6), 1); err != nil {
			t.Fatal(err)
		}
		must(e.Commit(ctxOf, point(i)))(t)
	}
	if err := v.Fork(ctxOf, server, point(3).ID, "i-0123456789abcdef0"); err != nil {
		t.Fatal(err)
	}
	v.WaitTasks()
	for _, name := range store.Names() {
		path := filepath.Join(dir, "objects", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, store.Bytes(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGolden reads the vaults that released versions wrote. They stay for ever: a
// new format version adds a folder.
func TestGolden(t *testing.T) {
	for _, version := range []string{"v1"} {
		dir := filepath.Join("testdata", "golden-"+version)
		if _, err := os.Stat(dir); err != nil && flag.Lookup("update").Value.String() == "true" {
			writeGolden(t, dir)
		}
		store := blobtest.NewMem()
		root := filepath.Join(dir, "objects")
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			name, _ := filepath.Rel(root, path)
			store.Replace(filepath.ToSlash(name), b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		key := filepath.Join(t.TempDir(), "master.key") // the repository does not keep modes
		raw := must(os.ReadFile(filepath.Join(dir, "master.key")))(t)
		if err := os.WriteFile(key, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, name := range store.Names() {
			if err := scrub(name, store.Bytes(name)); err != nil {
				t.Error(err)
			}
		}
		whole := store.Clone()
		for _, name := range store.Names() {
			if derived(name) {
				whole.Replace(name, nil)
			}
		}
		for what, store := range map[string]*blobtest.Mem{"with derived data": store, "without": whole} {
			v := must(vault.Open(ctxOf, store, must(vault.LoadKeyFile(key))(t), vault.Options{}.Golden()))(t)
			for i := 1; i <= goldenCommits; i++ {
				img, err := v.OpenPoint(ctxOf, server, point(i).ID)
				if err != nil {
					t.Fatalf("%s, %s: %v", version, what, err)
				}
				goldenDisk(i).check(t, img, 1)
				img.Close()
			}
			img := must(v.OpenHead(ctxOf, server, "i-0123456789abcdef0"))(t)
			goldenDisk(3).check(t, img, 1)
			img.Close()
			head := must(v.Writer(ctxOf, server, vault.MainBranch))(t).Head()
			if want := point(goldenCommits); head.LastPoint.ID != want.ID || !head.LastPoint.Taken.Equal(want.Taken) || head.LastPoint.Consistency != want.Consistency || head.LastPoint.Method != want.Method {
				t.Errorf("last point %+v, want %+v", head.LastPoint, want)
			}
			v.WaitTasks()
			v.Close()
		}
	}
}
