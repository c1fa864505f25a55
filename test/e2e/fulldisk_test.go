package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/drs"
	"golang.org/x/sys/unix"

	"lifeboat/internal/demo/guest"
)

// tmpfs mounts a file system of a fixed size and returns how to change it.
func tmpfs(t *testing.T, mib int) (dir string, resize func(mib int)) {
	t.Helper()
	dir = t.TempDir()
	options := func(mib int) string { return fmt.Sprintf("size=%dm", mib) }
	err := unix.Mount("lifeboat-test", dir, "tmpfs", 0, options(mib))
	if errors.Is(err, unix.EPERM) {
		t.Skip("only root may mount a small file system to fill")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir, func(mib int) {
		t.Helper()
		if err := unix.Mount("lifeboat-test", dir, "tmpfs", unix.MS_REMOUNT, options(mib)); err != nil {
			t.Fatal(err)
		}
	}
}

// A vault without space refuses epochs and says so; replication goes on by
// itself once there is space, and nothing is lost.
func TestFullVaultGoesOnWhenThereIsSpace(t *testing.T) {
	dir, resize := tmpfs(t, 24)
	in := installAt(t, filepath.Join(dir, "data"))
	image := filepath.Join(t.TempDir(), "disk.img")
	content := make([]byte, 64<<20)
	random := rand.New(rand.NewPCG(3, 4))
	for i := range content {
		content[i] = byte(random.Uint32())
	}
	if err := os.WriteFile(image, content, 0o600); err != nil {
		t.Fatal(err)
	}
	agent := start(t, "agent", "--server", in.env["AWS_ENDPOINT_URL"], "--ca-cert", in.env["AWS_CA_BUNDLE"], "--token", in.env["LIFEBOAT_TOKEN"],
		"--state", filepath.Join(t.TempDir(), "state"), "--disk", image, "--hostname", "full")
	agent.waitFor(t, `no space|space left|full`)

	// It is told, and the server lives.
	eventually(t, "the API tells of the full vault", func() (string, bool) {
		out, err := in.drs.DescribeSourceServers(t.Context(), &drs.DescribeSourceServersInput{})
		if err != nil {
			return err.Error(), false
		}
		info := out.Items[0].DataReplicationInfo
		if info.DataReplicationError == nil {
			return string(info.DataReplicationState), false
		}
		raw := aws.ToString(info.DataReplicationError.RawError)
		return raw, strings.Contains(raw, "space")
	})

	resize(512)
	server := in.waitContinuous(t, agent)
	file := filepath.Join(t.TempDir(), "export.img")
	if _, errs, code := lifeboat(t, in.env, "export", server, "--disk", "0", "--output", file); code != 0 {
		t.Fatalf("export: exit %d: %s", code, errs)
	}
	if got, want := fileDigest(t, file), fileDigest(t, image); got != want {
		t.Errorf("exported %s, want %s", got, want)
	}
}

// A machine whose own disk log finds no space is halted, not broken: it goes on
// when there is space, with every order it ever confirmed.
func TestMachineWaitsForSpace(t *testing.T) {
	dir, resize := tmpfs(t, 512)
	in := installAt(t, filepath.Join(dir, "data"))
	image := filepath.Join(t.TempDir(), "shop.img")
	if err := guest.Build(t.Context(), guest.Spec{Hostname: "shop", Orders: &guest.Orders{PerSecond: 20}}, image); err != nil {
		t.Fatal(err)
	}
	agent, server := in.startAgent(t, image, "--hostname", "shop")
	agent.kill()
	instance := in.launched(t, in.recover(t, server, false))
	console := in.console(t, instance)
	from := see(t, console, 0, guest.WorkloadRunning).Next
	from = see(t, console, from, guest.OrderDurable).Next

	logged := len(in.server.log.Lines(0))
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		t.Fatal(err)
	}
	resize(int((stat.Blocks-stat.Bfree)*uint64(stat.Bsize)>>20) + 1) // next to nothing is left
	halted := see(t, in.server.log, logged, regexp.MustCompile(`state=paused`))
	resize(512)
	see(t, in.server.log, halted.Next, regexp.MustCompile(`state=running`))
	for range 5 {
		from = see(t, console, from, guest.OrderDurable).Next
	}
}
