package e2e

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/drs"

	"lifeboat/internal/demo/guest"
	"lifeboat/internal/vault/blob/s3/s3test"
)

// scribble changes some blocks of an image in place.
func scribble(t *testing.T, image string, seed uint64) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	block := make([]byte, 4096)
	for range 50 {
		for i := range block {
			block[i] = byte(rnd.Uint32())
		}
		if _, err := f.WriteAt(block, rnd.Int64N(info.Size()/4096)*4096); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// exported is the digest of a disk as the newest point, or a given one, has it.
func (in *installation) exported(t *testing.T, server string, args ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "export.img")
	args = append([]string{"export", server, "--disk", "0", "--output", file}, args...)
	if _, errs, code := lifeboat(t, in.env, args...); code != 0 {
		t.Fatalf("lifeboat %s: exit %d: %s", strings.Join(args, " "), code, errs)
	}
	return fileDigest(t, file)
}

// waitError waits until the API tells of a replication error with these words.
func (in *installation) waitError(t *testing.T, words string) {
	t.Helper()
	eventually(t, "the API tells of "+words, func() (string, bool) {
		out, err := in.drs.DescribeSourceServers(t.Context(), &drs.DescribeSourceServersInput{})
		if err != nil {
			return err.Error(), false
		}
		info := out.Items[0].DataReplicationInfo
		if info.DataReplicationError == nil {
			return string(info.DataReplicationState), false
		}
		raw := aws.ToString(info.DataReplicationError.RawError)
		return string(info.DataReplicationState) + ": " + raw, strings.Contains(raw, words)
	})
}

// waitEqual waits until the newest point holds the image as it is now.
func (in *installation) waitEqual(t *testing.T, server, image string) {
	t.Helper()
	want := fileDigest(t, image)
	eventually(t, "the newest point holds what the image holds", func() (string, bool) {
		got := in.exported(t, server)
		return got, got == want
	})
}

// A vault in a bucket does all that one in a directory does, bears what befalls a
// bucket, and goes on by itself.
func TestVaultInABucket(t *testing.T) {
	store := s3test.Start(t)
	bucket := store.Location().String()
	dir := filepath.Join(t.TempDir(), "data")
	in := installAt(t, dir, "--vault", bucket, "--cache-size", "64MiB")
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 48<<20); err != nil {
		t.Fatal(err)
	}
	scribble(t, image, 1)
	agent, server := in.startAgent(t, image, "--hostname", "far")
	in.waitEqual(t, server, image)
	first := aws.ToString(in.points(t, server)[0].SnapshotID)
	was := in.exported(t, server, "--point", first)

	// The store goes away and comes back.
	store.Stop()
	scribble(t, image, 2)
	in.waitError(t, "cannot be reached")
	store.Run()
	in.waitEqual(t, server, image)

	// It may be read only, and then again written.
	store.Stop()
	store.Run("--readonly")
	scribble(t, image, 3)
	in.waitError(t, "read-only")
	if got := in.exported(t, server, "--point", first); got != was {
		t.Errorf("the first point reads as %s from a read-only bucket, it was %s", got, was)
	}
	store.Stop()
	store.Run()
	in.waitEqual(t, server, image)

	// The cache goes at any time.
	if err := os.RemoveAll(filepath.Join(dir, "cache")); err != nil {
		t.Fatal(err)
	}
	if got := in.exported(t, server, "--point", first); got != was {
		t.Errorf("the first point reads as %s without the cache, it was %s", got, was)
	}
	if out, errs, code := lifeboat(t, nil, "vault", "verify", "--data", dir); code != 0 {
		t.Errorf("verify: exit %d: %s%s", code, out, errs)
	}

	// A restart finds it again; with other keys, or another place, it refuses.
	agent.kill()
	if err := in.server.stop(t); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, env, value string
		args             []string
		want             string
	}{
		{"wrong secret", "AWS_SECRET_ACCESS_KEY", "wrong", nil, "check AWS_ACCESS_KEY_ID"},
		{"no keys", "AWS_ACCESS_KEY_ID", "", nil, "~/.aws/credentials"},
		{"another bucket", "", "", []string{"--vault", store.Location().String()}, "was made with s3://"},
		{"a secret in the location", "", "", []string{"--vault", "s3://bucket?secret-access-key=hush"}, "do not belong into a location"},
		{"a vault that is taken", "", "", []string{"--data", filepath.Join(t.TempDir(), "new"), "--vault", bucket}, "belongs to another data directory"},
		{"no such bucket", "", "", []string{"--data", filepath.Join(t.TempDir(), "new"), "--vault", store.At("no-bucket").String()}, "create it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := map[string]string{}
			if c.env != "" {
				env[c.env] = c.value
			}
			args := append([]string{"server", "--data", dir, "--listen", "127.0.0.1:0", "--replication-listen", "127.0.0.1:0"}, c.args...)
			_, errs, code := lifeboat(t, env, args...)
			if code == 0 || !strings.Contains(errs, c.want) || strings.Contains(errs, "hush") {
				t.Errorf("exit %d: %s; want a refusal that says %q", code, errs, c.want)
			}
		})
	}
	in.startServer(t, "--vault", bucket)
	if got := in.exported(t, server, "--point", first); got != was {
		t.Errorf("the first point reads as %s after a restart, it was %s", got, was)
	}
	settings, err := os.ReadFile(filepath.Join(dir, "lifeboat.json"))
	if err != nil || strings.Contains(string(settings), s3test.SecretKey) || !strings.Contains(string(settings), bucketName(bucket)) {
		t.Errorf("settings: %s, %v", settings, err)
	}
}

func bucketName(location string) string {
	return regexp.MustCompile(`^s3://[^?]*`).FindString(location)
}

// A machine boots from a bucket.
func TestRecoveryFromABucket(t *testing.T) {
	store := s3test.Start(t)
	in := installAt(t, filepath.Join(t.TempDir(), "data"), "--vault", store.Location().String())
	image := filepath.Join(t.TempDir(), "shop.img")
	if err := guest.Build(t.Context(), guest.Spec{Hostname: "shop", Orders: &guest.Orders{PerSecond: 20}}, image); err != nil {
		t.Fatal(err)
	}
	agent, server := in.startAgent(t, image, "--hostname", "shop")
	agent.kill()
	console := in.console(t, in.launched(t, in.recover(t, server, true)))
	from := see(t, console, 0, guest.WorkloadRunning).Next
	see(t, console, from, guest.OrderDurable)
}
