package e2e

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/drs"
	"golang.org/x/sys/unix"
)

// objects returns the paths of all objects of a kind below a directory, the largest first.
func objects(t *testing.T, dir, suffix string) []string {
	t.Helper()
	var paths []string
	size := map[string]int64{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, suffix) {
			return err
		}
		info, err := e.Info()
		if err == nil {
			paths = append(paths, path)
			size[path] = info.Size()
		}
		return err
	})
	if err != nil || len(paths) == 0 {
		t.Fatalf("no %s below %s: %v", suffix, dir, err)
	}
	slices.SortFunc(paths, func(a, b string) int { return int(size[b] - size[a]) })
	return paths
}

// change replaces a file by what f makes of it, and returns how to undo that.
func change(t *testing.T, path string, f func([]byte) []byte) (undo func()) {
	t.Helper()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(f(slices.Clone(whole)))
	return func() { t.Helper(); write(whole) }
}

// Damage of every sort is named, with the points that it hurts, by verify beside the
// running server; the server says clearly what it cannot read, and all is well again
// once the object is back.
func TestDamageIsNamedAndMended(t *testing.T) {
	in := install(t)
	image := randomImage(t, 48, 4)
	want := fileDigest(t, image)
	_, server := in.startAgent(t, image)
	point := in.pointIDs(t, server)[0]
	vault := filepath.Join(in.dir, "vault")
	segments, manifests := objects(t, vault, ".segment"), objects(t, vault, ".manifest")
	key := objects(t, vault, ".key")[0]
	image2 := filepath.Join(t.TempDir(), "x.img")
	export := func() (string, int) {
		_, errs, code := lifeboat(t, in.env, "export", server, "--point", point, "--output", image2, "--force")
		return errs, code
	}
	// Frames in the server's cache would hide what is damaged on the disk.
	restart := func() {
		t.Helper()
		if err := in.server.stop(t); err != nil {
			t.Fatal(err)
		}
		in.startServer(t)
	}
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	for _, c := range []struct {
		what, object string
		f            func([]byte) []byte
		hurts        bool
	}{
		{"a flipped bit", segments[0], flip, true},
		{"a truncated segment", segments[0], func(b []byte) []byte { return b[:len(b)-1000] }, true},
		{"an empty segment", segments[0], func([]byte) []byte { return nil }, true},
		{"a truncated manifest", manifests[0], func(b []byte) []byte { return b[:150] }, true},
		{"a flipped key", key, flip, false},
	} {
		undo := change(t, c.object, c.f)
		out, errs, code := lifeboat(t, nil, "vault", "verify", "--data", in.dir, "--json")
		name, _ := filepath.Rel(vault, c.object)
		var report struct {
			Sound   bool
			Damages []struct {
				Object string
				Points []string
			}
		}
		if err := json.Unmarshal([]byte(out), &report); err != nil || code == 0 || report.Sound || len(report.Damages) == 0 {
			t.Fatalf("%s: exit %d, %v: %s%s", c.what, code, err, out, errs)
		}
		if d := report.Damages[0]; d.Object != name || c.hurts && !strings.HasSuffix(name, ".manifest") && !slices.Contains(d.Points, point) {
			t.Errorf("%s of %s: %+v", c.what, name, report.Damages)
		}
		if _, _, code := lifeboat(t, nil, "vault", "verify", "--no-key", "--data", in.dir); code == 0 {
			t.Errorf("%s: a scrub without key finds nothing", c.what)
		}
		restart()
		if errs, code := export(); code == 0 || strings.Contains(c.object, ".segment") && !strings.Contains(errs, name) {
			t.Errorf("%s: export: exit %d: %s", c.what, code, errs)
		}
		undo()
		restart()
		if errs, code := export(); code != 0 || fileDigest(t, image2) != want {
			t.Fatalf("%s is mended, and export: exit %d: %s", c.what, code, errs)
		}
	}
	must(t, "vault", "verify", "--data", in.dir)

	// Two objects that changed places are whole, each of them, and yet in the wrong one.
	if len(segments) < 2 {
		t.Fatalf("one segment only")
	}
	swap := func() {
		t.Helper()
		for _, move := range [][2]string{{segments[0], segments[0] + "x"}, {segments[1], segments[0]}, {segments[0] + "x", segments[1]}} {
			if err := os.Rename(move[0], move[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	swap()
	refuses(t, "put the named objects back", "vault", "verify", "--data", in.dir)
	swap()

	// What a newer version wrote is not touched and not guessed at.
	undo := change(t, objects(t, vault, ".root")[0], func(b []byte) []byte { b[8] = 9; return b })
	refuses(t, "upgrade this program", "vault", "verify", "--data", in.dir)
	if err := in.server.stop(t); err != nil {
		t.Fatal(err)
	}
	refuses(t, "upgrade this program", "server", "--data", in.dir)
	refuses(t, "upgrade this program", "vault", "rotate-key", "--data", in.dir)
	undo()
	must(t, "vault", "verify", "--data", in.dir)
}

// A vault that turns read-only refuses epochs, still gives back what it holds, and takes
// epochs again by itself when it can be written; a server can even be started meanwhile.
func TestReadOnlyVaultGoesOnWhenItIsWritable(t *testing.T) {
	mount, _ := tmpfs(t, 256)
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("lifeboat-test", mount, "tmpfs", unix.MS_REMOUNT|flags, "size=256m"); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	in := &installation{dir: filepath.Join(dir, "data")}
	in.rig.Binary, in.rig.Dir = binary, dir
	t.Cleanup(func() {
		if err := in.rig.QuitMachines(); err != nil {
			t.Error(err)
		}
	})
	in.startServer(t, "--listen", "127.0.0.1:0", "--replication-listen", "127.0.0.1:0", "--vault", "file:"+filepath.Join(mount, "vault"))
	if _, err := in.drs.InitializeService(t.Context(), &drs.InitializeServiceInput{}); err != nil {
		t.Fatal(err)
	}
	image := randomImage(t, 16, 5)
	want := fileDigest(t, image)
	agent, server := in.startAgent(t, image)
	point := in.pointIDs(t, server)[0]

	remount(unix.MS_RDONLY)
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("changed after the vault was read-only"), 9<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the API tells of the read-only vault", func() (string, bool) {
		info := in.describe(t, server).DataReplicationInfo
		if info.DataReplicationError == nil {
			return string(info.DataReplicationState), false
		}
		raw := aws.ToString(info.DataReplicationError.RawError)
		return raw, strings.Contains(raw, "read-only")
	})
	if err := in.server.stop(t); err != nil {
		t.Fatal(err)
	}
	in.startServer(t)
	file := filepath.Join(t.TempDir(), "export.img")
	if _, errs, code := lifeboat(t, in.env, "export", server, "--point", point, "--output", file, "--force"); code != 0 || fileDigest(t, file) != want {
		t.Errorf("export from a read-only vault: exit %d: %s", code, errs)
	}
	must(t, "vault", "verify", "--data", in.dir)

	remount(0)
	changed := fileDigest(t, image)
	eventually(t, "the newest point holds the change", func() (string, bool) {
		if _, errs, code := lifeboat(t, in.env, "export", server, "--output", file, "--force"); code != 0 {
			return errs, false
		}
		return "it does not", fileDigest(t, file) == changed
	})
	in.waitContinuous(t, agent)
	in.recoversAndExports(t, server, point, want)
}
