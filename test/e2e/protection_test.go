package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"
)

// vaultObjects counts the files in the vault whose names tell of the server.
func (in *installation) vaultObjects(t *testing.T, server string) (n int) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(in.dir, "vault"), func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.Contains(path, server) {
			n++
		}
		if os.IsNotExist(err) { // deleted meanwhile
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Replication stops and starts, a server is disconnected, comes back with its agent
// installed anew, and is deleted: the agent and the vault follow.
func TestProtectionComesAndGoes(t *testing.T) {
	in := install(t)
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(image, []byte(strings.Repeat("lifeboat", 1<<18)), 0o600); err != nil {
		t.Fatal(err)
	}
	agent, server := in.startAgent(t, image, "--hostname", "harbour")
	id, ctx := aws.String(server), t.Context()
	before := aws.ToString(in.points(t, server)[0].SnapshotID)

	if _, err := in.drs.StopReplication(ctx, &drs.StopReplicationInput{SourceServerID: id}); err != nil {
		t.Fatal(err)
	}
	if points := in.points(t, server); len(points) != 0 {
		t.Errorf("points of a stopped server: %v", points)
	}
	eventually(t, "the vault holds nothing of the server", func() (string, bool) {
		return "objects are there", in.vaultObjects(t, server) == 0
	})
	if _, err := in.drs.StartReplication(ctx, &drs.StartReplicationInput{SourceServerID: id}); err != nil {
		t.Fatal(err)
	}
	in.waitContinuous(t, agent) // the same process: it stayed
	points := in.points(t, server)
	if len(points) == 0 || aws.ToString(points[0].SnapshotID) == before {
		t.Errorf("points after the new start: %v", points)
	}

	if _, err := in.drs.DisconnectSourceServer(ctx, &drs.DisconnectSourceServerInput{SourceServerID: id}); err != nil {
		t.Fatal(err)
	}
	agent.waitFor(t, "was disconnected")
	eventually(t, "the vault holds nothing of the server", func() (string, bool) {
		return "objects are there", in.vaultObjects(t, server) == 0
	})
	again, same := in.startAgent(t, image, "--hostname", "harbour")
	if same != server {
		t.Errorf("the machine came back as %s, want %s", same, server)
	}

	if _, err := in.drs.DisconnectSourceServer(ctx, &drs.DisconnectSourceServerInput{SourceServerID: id}); err != nil {
		t.Fatal(err)
	}
	if _, err := in.drs.DeleteSourceServer(ctx, &drs.DeleteSourceServerInput{SourceServerID: id}); err != nil {
		t.Fatal(err)
	}
	again.waitFor(t, "does not exist any more|was disconnected")
	eventually(t, "the vault holds nothing of the server", func() (string, bool) {
		return "objects are there", in.vaultObjects(t, server) == 0
	})
	servers, err := in.drs.DescribeSourceServers(ctx, &drs.DescribeSourceServersInput{})
	if err != nil || len(servers.Items) != 0 {
		t.Errorf("servers at last: %v, %v", servers.Items, err)
	}
	_, fresh := in.startAgent(t, image, "--hostname", "harbour")
	if fresh == server {
		t.Error("a deleted server came back")
	}
	if out, err := in.drs.DescribeSourceServers(ctx, &drs.DescribeSourceServersInput{}); err != nil || len(out.Items) != 1 ||
		out.Items[0].DataReplicationInfo.DataReplicationState != types.DataReplicationStateContinuous {
		t.Errorf("the fresh server: %+v, %v", out, err)
	}
}
