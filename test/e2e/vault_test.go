package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"
)

// randomImage makes a disk image of which a quarter is data.
func randomImage(t *testing.T, mib int, seed uint64) string {
	t.Helper()
	content := make([]byte, mib<<20)
	random := rand.New(rand.NewPCG(seed, 9))
	for i := range len(content) / 4 {
		content[i] = byte(random.Uint32())
	}
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(image, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return image
}

// must runs a verb that has to succeed and returns its stdout.
func must(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, code := lifeboat(t, nil, args...)
	if code != 0 {
		t.Fatalf("lifeboat %s: exit %d: %s", strings.Join(args, " "), code, errs)
	}
	return out
}

// refuses runs a verb that has to fail with a message.
func refuses(t *testing.T, message string, args ...string) {
	t.Helper()
	_, errs, code := lifeboat(t, nil, args...)
	if code == 0 || !strings.Contains(errs, message) {
		t.Errorf("lifeboat %s: exit %d, want a refusal with %q: %s", strings.Join(args, " "), code, message, errs)
	}
}

func (in *installation) pointIDs(t *testing.T, server string) []string {
	t.Helper()
	var ids []string
	for _, p := range in.points(t, server) {
		ids = append(ids, aws.ToString(p.SnapshotID))
	}
	slices.Sort(ids)
	return ids
}

// recoversAndExports launches the server and compares an export of a point.
func (in *installation) recoversAndExports(t *testing.T, server, point, want string) {
	t.Helper()
	job := in.recover(t, server, true)
	instance := in.launched(t, job)
	file := filepath.Join(t.TempDir(), "export.img")
	if _, errs, code := lifeboat(t, in.env, "export", server, "--point", point, "--output", file); code != 0 {
		t.Fatalf("export: exit %d: %s", code, errs)
	}
	if got := fileDigest(t, file); got != want {
		t.Errorf("the export differs from the source")
	}
	if _, errs, code := lifeboat(t, in.env, "terminate", "--yes", instance); code != 0 {
		t.Fatalf("terminate: exit %d: %s", code, errs)
	}
}

// A lost database comes back from the vault: the same servers with the same tags and
// points, which can be recovered; and the agent just goes on.
func TestRebuildAfterTheDatabaseIsLost(t *testing.T) {
	in := install(t)
	image := randomImage(t, 16, 1)
	want := fileDigest(t, image)
	agent, server := in.startAgent(t, image, "--hostname", "payroll")
	arn := in.describe(t, server).Arn
	if _, err := in.drs.TagResource(t.Context(), &drs.TagResourceInput{ResourceArn: arn, Tags: map[string]string{"team": "hr"}}); err != nil {
		t.Fatal(err)
	}
	refuses(t, "stop that one first", "vault", "rebuild", "--data", in.dir)
	instance := in.launched(t, in.recover(t, server, true))
	machine := in.machines(t)[instance]
	if err := in.server.stop(t); err != nil { // which keeps the tag
		t.Fatal(err)
	}
	must(t, "vault", "gc", "--data", in.dir)
	must(t, "vault", "lock", "payroll", "--point", "latest", "--until", "90d", "--data", in.dir)
	points := must(t, "vault", "ls", "payroll", "--data", in.dir, "--json")
	if !strings.Contains(points, "lockedUntil") {
		t.Errorf("the lock is not shown: %s", points)
	}
	refuses(t, "--replace-database", "vault", "rebuild", "--data", in.dir)

	for what, lose := range map[string]func(path string) error{
		"deleted":     os.Remove,
		"overwritten": func(path string) error { return os.WriteFile(path, []byte("no database"), 0o600) },
	} {
		for _, suffix := range []string{"-wal", "-shm"} {
			os.Remove(filepath.Join(in.dir, "lifeboat.db"+suffix))
		}
		if err := lose(filepath.Join(in.dir, "lifeboat.db")); err != nil {
			t.Fatal(err)
		}
		refuses(t, "vault rebuild --data", "server", "--data", in.dir)
		out := must(t, "vault", "rebuild", "--data", in.dir)
		if !strings.Contains(out, "payroll") {
			t.Errorf("%s: %s", what, out)
		}
	}
	if after := must(t, "vault", "ls", "payroll", "--data", in.dir, "--json"); after != points {
		t.Errorf("points before:\n%s\nand after:\n%s", points, after)
	}
	in.startServer(t)
	back := in.describe(t, server)
	if aws.ToString(back.SourceProperties.IdentificationHints.Hostname) != "payroll" || back.Tags["team"] != "hr" || aws.ToString(back.Arn) != aws.ToString(arn) {
		t.Errorf("came back as %+v", back)
	}
	ids := in.pointIDs(t, server)
	if len(ids) == 0 || !strings.Contains(points, ids[0]) {
		t.Fatalf("points %v, before: %s", ids, points)
	}
	in.waitContinuous(t, agent) // it reconnects with its certificate
	if in.machines(t)[instance] != machine || machine == 0 {
		t.Errorf("the machine of %s is process %d, was %d", instance, in.machines(t)[instance], machine)
	}
	eventually(t, "the machine is known, and runs", func() (string, bool) {
		out, errs, _ := lifeboat(t, in.env, "instances", "--json")
		return out + errs, strings.Contains(out, instance) && strings.Contains(out, "RUNNING")
	})
	in.recoversAndExports(t, server, ids[0], want)
}

func (in *installation) describe(t *testing.T, server string) types.SourceServer {
	t.Helper()
	out, err := in.drs.DescribeSourceServers(t.Context(), &drs.DescribeSourceServersInput{Filters: &types.DescribeSourceServersRequestFilters{SourceServerIDs: []string{server}}})
	if err != nil || len(out.Items) != 1 {
		t.Fatalf("source server %s: %v, %d items", server, err, len(out.Items))
	}
	return out.Items[0]
}

// treeSize adds up the files below dir.
func treeSize(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// With nothing but the vault and the master key, a new data directory takes over. The
// server before, should it still run, stops. An agent that registers again is the
// server that it was, and sends next to nothing.
func TestRebuildAfterTheDataDirectoryIsLost(t *testing.T) {
	dir := t.TempDir()
	in := &installation{dir: filepath.Join(dir, "first")}
	in.rig.Binary, in.rig.Dir = binary, dir
	vault := filepath.Join(dir, "vault")
	in.startServer(t, "--listen", "127.0.0.1:0", "--replication-listen", "127.0.0.1:0", "--vault", "file:"+vault)
	if _, err := in.drs.InitializeService(t.Context(), &drs.InitializeServiceInput{}); err != nil {
		t.Fatal(err)
	}
	image := randomImage(t, 16, 2)
	want := fileDigest(t, image)
	agent, server := in.startAgent(t, image, "--hostname", "web")
	account := strings.Split(aws.ToString(in.describe(t, server).Arn), ":")[4]
	agent.kill()
	points := in.pointIDs(t, server)
	key := filepath.Join(t.TempDir(), "copy-of-master.key")
	raw, err := os.ReadFile(filepath.Join(in.dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, raw, 0o600); err != nil {
		t.Fatal(err)
	}

	second := &installation{dir: filepath.Join(dir, "second"), rig: in.rig}
	t.Cleanup(func() {
		second.rig.Dir = filepath.Dir(second.dir)
		if err := second.rig.QuitMachines(); err != nil {
			t.Error(err)
		}
	})
	refuses(t, "belongs to another data directory", "server", "--data", second.dir, "--vault", "file:"+vault)
	if err := os.RemoveAll(second.dir); err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "wrong.key")
	if err := os.WriteFile(wrong, make([]byte, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	refuses(t, "wrong master key", "vault", "rebuild", "--data", second.dir, "--master-key", wrong, "--vault", "file:"+vault)
	var rebuilt struct {
		NewDataDir bool
		Servers    []struct{ ID, Hostname string }
		Before     struct{ Host string }
	}
	out := must(t, "vault", "rebuild", "--data", second.dir, "--master-key", key, "--vault", "file:"+vault, "--json")
	if err := json.Unmarshal([]byte(out), &rebuilt); err != nil || !rebuilt.NewDataDir || len(rebuilt.Servers) != 1 || rebuilt.Servers[0].Hostname != "web" || rebuilt.Before.Host == "" {
		t.Errorf("%v: %s", err, out)
	}
	// The first server sees that it has lost the vault.
	<-in.server.done
	if in.server.err == nil || !strings.Contains(fmt.Sprint(in.server.log.Tail(5)), "took over") {
		t.Errorf("the server before ended with %v:\n%s", in.server.err, in.server.log.Tail(5))
	}
	refuses(t, "belongs to another data directory", "server", "--data", in.dir)
	refuses(t, "belongs to another data directory", "vault", "rotate-key", "--data", in.dir)

	second.startServer(t, "--listen", "127.0.0.1:0", "--replication-listen", "127.0.0.1:0")
	if got := second.pointIDs(t, server); !slices.Equal(got, points) {
		t.Errorf("points %v, want %v", got, points)
	}
	if got := strings.Split(aws.ToString(second.describe(t, server).Arn), ":")[4]; got != account {
		t.Errorf("account %s, want %s", got, account)
	}
	second.recoversAndExports(t, server, points[0], want)

	before := treeSize(t, vault)
	_, again := second.startAgent(t, image, "--hostname", "web")
	if again != server {
		t.Errorf("the agent became %s, want %s", again, server)
	}
	eventually(t, "the agent is seen", func() (string, bool) {
		s := second.describe(t, server)
		state := s.DataReplicationInfo.DataReplicationState
		return string(state), state == types.DataReplicationStateContinuous
	})
	if grown := treeSize(t, vault) - before; grown > 1<<20 {
		t.Errorf("the vault grew by %d bytes although the disk did not change", grown)
	}
}

// The master key can be changed; wrong, missing and old ones are told apart.
func TestRotateKey(t *testing.T) {
	in := install(t)
	image := randomImage(t, 8, 3)
	want := fileDigest(t, image)
	agent, server := in.startAgent(t, image)
	point := in.pointIDs(t, server)[0]
	refuses(t, "stop that one first", "vault", "rotate-key", "--data", in.dir)
	if err := in.server.stop(t); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(in.dir, "master.key")
	old, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		must(t, "vault", "rotate-key", "--data", in.dir)
	}
	file := filepath.Join(t.TempDir(), "offline.img")
	must(t, "vault", "export", server, "--data", in.dir, "--output", file)
	if fileDigest(t, file) != want {
		t.Error("the export differs from the source")
	}
	in.startServer(t)
	in.waitContinuous(t, agent)
	in.recoversAndExports(t, server, point, want)
	if err := in.server.stop(t); err != nil {
		t.Fatal(err)
	}

	now, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		do   func() error
		says string
	}{
		{"an old key", func() error { return os.WriteFile(key, old, 0o600) }, "master.key is not its master key"},
		{"another key", func() error { return os.WriteFile(key, make([]byte, 32), 0o600) }, "master.key is not its master key"},
		{"half a key", func() error { return os.WriteFile(key, now[:16], 0o600) }, "holds 16 bytes"},
		{"no key", func() error { return os.Remove(key) }, "put the file back"},
	} {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		refuses(t, c.says, "server", "--data", in.dir)
		refuses(t, c.says, "vault", "verify", "--data", in.dir)
	}
	// Looking into the vault itself with the old key tells what has happened.
	retired, err := filepath.Glob(filepath.Join(in.dir, "retired-*.key"))
	if err != nil || len(retired) != 2 {
		t.Fatalf("retired keys: %v, %v", retired, err)
	}
	for _, path := range retired {
		refuses(t, "wrong master key", "vault", "ls", "--vault", "file:"+filepath.Join(in.dir, "vault"), "--master-key", path)
	}
	if err := os.WriteFile(key, now, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, "vault", "verify", "--data", in.dir)
}
