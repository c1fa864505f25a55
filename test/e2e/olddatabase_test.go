package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/drs"

	"lifeboat/internal/vault/blob"
)

// copyDatabase copies the files of a stopped server's database.
func copyDatabase(t *testing.T, from, to string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		text, err := os.ReadFile(filepath.Join(from, "lifeboat.db"+suffix))
		if os.IsNotExist(err) {
			err = os.RemoveAll(filepath.Join(to, "lifeboat.db"+suffix))
		} else if err == nil {
			err = os.WriteFile(filepath.Join(to, "lifeboat.db"+suffix), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A database that was put back from an old copy replaces nothing newer in the vault: the
// server says so and what to do, and both ways lead on.
func TestDatabasePutBackFromAnOldCopy(t *testing.T) {
	in := install(t)
	agent, server := in.startAgent(t, randomImage(t, 8, 66))
	stop := func() {
		t.Helper()
		if err := in.server.stop(t); err != nil {
			t.Fatal(err)
		}
	}
	old := t.TempDir()
	stop()
	copyDatabase(t, in.dir, old)
	in.startServer(t)
	in.waitContinuous(t, agent)
	in.configure(t, server)
	if _, err := in.drs.TagResource(t.Context(), &drs.TagResourceInput{ResourceArn: in.describe(t, server).Arn, Tags: map[string]string{"since": "the copy"}}); err != nil {
		t.Fatal(err)
	}
	stop()
	store, err := blob.OpenDir(filepath.Join(in.dir, "vault"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	newest, now := in.kept(t, store), t.TempDir()
	copyDatabase(t, in.dir, now)

	copyDatabase(t, old, in.dir)
	refuses(t, "older than the vault, as if it was put back from a copy: the configuration (templates, plans, users, certificates) and source server "+server, "server", "--data", in.dir)
	refuses(t, "lifeboat vault rebuild --replace-database --data "+in.dir, "server", "--data", in.dir)
	refuses(t, "lifeboat vault keep-database --data "+in.dir, "vault", "gc", "--data", in.dir)
	must(t, "vault", "rotate-key", "--data", in.dir) // it writes the record, and must neither lose nor hide anything
	refuses(t, "older than the vault", "server", "--data", in.dir)
	if got := in.kept(t, store); got != newest {
		t.Errorf("the vault keeps\n%s\nwant\n%s", got, newest)
	}
	must(t, "vault", "rebuild", "--replace-database", "--data", in.dir)
	in.startServer(t)
	in.waitContinuous(t, agent)
	if tags := in.describe(t, server).Tags; tags["since"] != "the copy" {
		t.Errorf("the tags of since the copy are lost: %v", tags)
	}
	if _, err := in.drs.TagResource(t.Context(), &drs.TagResourceInput{ResourceArn: in.describe(t, server).Arn, Tags: map[string]string{"later": "still"}}); err != nil {
		t.Fatal(err)
	}
	stop()
	in.startServer(t) // the rebuilt database is as new as the vault
	stop()

	// On purpose: the state of the copy.
	copyDatabase(t, old, in.dir)
	refuses(t, "older than the vault", "server", "--data", in.dir)
	if out := must(t, "vault", "keep-database", "--data", in.dir); !strings.Contains(out, "newer configuration") || !strings.Contains(out, server) {
		t.Errorf("keep-database tells: %s", out)
	}
	if out := must(t, "vault", "keep-database", "--data", in.dir); !strings.Contains(out, "nothing was done") {
		t.Errorf("keep-database for the second time tells: %s", out)
	}
	in.startServer(t)
	in.waitContinuous(t, agent)
	if tags := in.describe(t, server).Tags; len(tags) != 0 {
		t.Errorf("tags %v, want those of the copy: none", tags)
	}
	plans, err := in.drs.DescribeLaunchConfigurationTemplates(t.Context(), &drs.DescribeLaunchConfigurationTemplatesInput{})
	if err != nil || len(plans.Items) != 0 {
		t.Errorf("launch templates %v, %v, want those of the copy: none", len(plans.Items), err)
	}
	stop()

	// What was the newest database before is now the old one.
	copyDatabase(t, now, in.dir)
	refuses(t, "older than the vault", "server", "--data", in.dir)
}
