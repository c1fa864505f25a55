package inventory

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What the tools of the trade write on a disk tells it from others, and is what they say
// themselves that they wrote; a copy of a disk is no other by that.
func TestIdentitiesThatToolsWrite(t *testing.T) {
	const uuid = "3c9a41f2-5be0-4f6d-9d0e-6a1b2c3d4e5f"
	bare := strings.ReplaceAll(uuid, "-", "")
	table := func(label string) func(path string) *exec.Cmd {
		return func(path string) *exec.Cmd {
			cmd := exec.Command("/sbin/sfdisk", "-q", path)
			cmd.Stdin = strings.NewReader(label + "\nstart=2048\n")
			return cmd
		}
	}
	for _, c := range []struct {
		name  string
		write func(path string) *exec.Cmd
		want  string
	}{
		{"ext2", func(path string) *exec.Cmd { return exec.Command("/sbin/mke2fs", "-q", "-t", "ext2", "-U", uuid, path) }, "ext:" + bare},
		{"ext4", func(path string) *exec.Cmd { return exec.Command("/sbin/mke2fs", "-q", "-t", "ext4", "-U", uuid, path) }, "ext:" + bare},
		{"xfs", func(path string) *exec.Cmd { return exec.Command("/sbin/mkfs.xfs", "-q", "-m", "uuid="+uuid, path) }, "xfs:" + bare},
		{"MBR", table("label: dos\nlabel-id: 0xc0ffee01"), "mbr:c0ffee01"},
		// The first three fields of a GUID lie on the disk with their last byte first.
		{"GPT", table("label: gpt\nlabel-id: " + uuid), "gpt:f2419a3ce05b6d4f9d0e6a1b2c3d4e5f"},
		{"nothing", func(string) *exec.Cmd { return exec.Command("true") }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			disk, other := filepath.Join(dir, "disk"), filepath.Join(dir, "copy")
			if err := os.WriteFile(disk, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(disk, 320<<20); err != nil {
				t.Fatal(err)
			}
			cmd := c.write(disk)
			if cmd.Err != nil || strings.HasPrefix(cmd.Path, "/sbin/") && !there(cmd.Path) {
				t.Skipf("%s is not installed", cmd.Path)
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", cmd, err, out)
			}
			if got := DiskIdentities([]string{disk}); got[0] != c.want {
				t.Errorf("identity %q, want %q", got[0], c.want)
			}
			if out, err := exec.Command("cp", "--sparse=always", disk, other).CombinedOutput(); err != nil {
				t.Fatalf("cp: %v: %s", err, out)
			}
			if got := DiskIdentities([]string{disk, other}); !slices.Equal(got, []string{"", ""}) {
				t.Errorf("two copies are told apart, by %q", got)
			}
		})
	}
}

func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
