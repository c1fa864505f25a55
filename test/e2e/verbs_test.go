package e2e

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"

	"lifeboat/internal/source/blocktrack/tracktest"
)

// protected is a block device whose agent obeys the API.
type protected struct {
	*testing.T
	*installation
	device, server, socket string
	agent                  *process
	random                 *rand.ChaCha8
}

const deviceSize = 64 << 20

// write changes n bytes of the device, incompressibly.
func (p *protected) write(n int, at int64) {
	p.Helper()
	b := make([]byte, n)
	_, _ = p.random.Read(b) // never fails
	f, err := os.OpenFile(p.device, os.O_WRONLY|os.O_SYNC, 0)
	if err == nil {
		_, err = f.WriteAt(b, at)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		p.Fatal(err)
	}
}

// await polls DescribeSourceServers until what it says of the replication will do.
func (p *protected) await(what string, is func(*types.DataReplicationInfo) bool) *types.DataReplicationInfo {
	p.Helper()
	var info *types.DataReplicationInfo
	eventually(p.T, what, func() (string, bool) {
		out, err := p.drs.DescribeSourceServers(p.Context(), &drs.DescribeSourceServersInput{
			Filters: &types.DescribeSourceServersRequestFilters{SourceServerIDs: []string{p.server}},
		})
		if err != nil || len(out.Items) != 1 {
			p.Fatalf("the source server: %v, %v", out, err)
		}
		info = out.Items[0].DataReplicationInfo
		told := string(info.DataReplicationState)
		if e := info.DataReplicationError; e != nil {
			told += ": " + string(e.Error) + ": " + aws.ToString(e.RawError)
		}
		return told, is(info)
	})
	return info
}

func (p *protected) awaitState(state types.DataReplicationState) *types.DataReplicationInfo {
	p.Helper()
	return p.await(string(state), func(i *types.DataReplicationInfo) bool { return i.DataReplicationState == state })
}

// throttle changes the bandwidth that the server may use, in Mbps, and waits until its
// agent has heard, if it is there to.
func (p *protected) throttle(mbps int64) {
	p.Helper()
	if _, err := p.drs.UpdateReplicationConfiguration(p.Context(), &drs.UpdateReplicationConfigurationInput{
		SourceServerID: aws.String(p.server), BandwidthThrottling: mbps,
	}); err != nil {
		p.Fatal(err)
	}
	eventually(p.T, "the agent has the new throttle", func() (string, bool) {
		now := counters(p.T, p.socket)
		return "it has not", now["throttle_mbps"] == float64(mbps) || now["connected"] == 0
	})
}

// steps tells how far an initiation is.
func steps(info *types.DataReplicationInfo) string {
	var all []string
	if info.DataReplicationInitiation != nil {
		for _, s := range info.DataReplicationInitiation.Steps {
			all = append(all, string(s.Name)+" "+string(s.Status))
		}
	}
	return strings.Join(all, ", ")
}

const allDone = "WAIT SUCCEEDED, AUTHENTICATE_WITH_SERVICE SUCCEEDED, CREATE_STAGING_DISKS SUCCEEDED, " +
	"PAIR_REPLICATION_SERVER_WITH_AGENT SUCCEEDED, CONNECT_AGENT_TO_REPLICATION_SERVER SUCCEEDED, START_DATA_TRANSFER SUCCEEDED"

// The operations of the API that are about replication reach a running agent, and what
// the API tells of it meanwhile is what DRS tells: states, steps, counters, the time that
// is left, errors with their next step.
func TestOrdersReachTheAgent(t *testing.T) {
	t.Parallel() // it waits, mostly
	p := &protected{T: t, installation: install(t), device: tracktest.Loop(t, deviceSize), random: rand.NewChaCha8([32]byte{5})}
	p.socket = filepath.Join(t.TempDir(), "metrics")
	p.write(deviceSize, 0)
	p.agent = start(t, "agent", "--server", p.env["AWS_ENDPOINT_URL"], "--ca-cert", p.env["AWS_CA_BUNDLE"], "--token", p.env["LIFEBOAT_TOKEN"],
		"--state", filepath.Join(t.TempDir(), "agent"), "--disk", p.device, "--hostname", "obedient", "--metrics", "unix:"+p.socket)
	p.server = p.waitContinuous(t, p.agent)
	id := aws.String(p.server)

	// A backlog, under a throttle that is changed while it is sent.
	p.throttle(1)
	p.write(24<<20, 8<<20)
	var first int64
	info := p.await("BACKLOG with its counters", func(i *types.DataReplicationInfo) bool {
		first = i.ReplicatedDisks[0].BackloggedStorageBytes
		return i.DataReplicationState == types.DataReplicationStateBacklog && first > 16<<20 && aws.ToString(i.LagDuration) != "P0D"
	})
	if d := info.ReplicatedDisks[0]; d.TotalStorageBytes != deviceSize || aws.ToString(d.DeviceName) != p.device || first > 32<<20 || steps(info) != allDone {
		t.Errorf("in the backlog: %+v, steps %s", d, steps(info))
	}
	info = p.await("a backlog that shrinks, and its end", func(i *types.DataReplicationInfo) bool {
		return i.ReplicatedDisks[0].BackloggedStorageBytes < first && i.EtaDateTime != nil
	})
	if ends, err := time.Parse(time.RFC3339Nano, aws.ToString(info.EtaDateTime)); err != nil || ends.Before(time.Now()) || info.DataReplicationState != types.DataReplicationStateBacklog {
		t.Errorf("%s ends at %s, %v", info.DataReplicationState, aws.ToString(info.EtaDateTime), err)
	}
	p.throttle(1000)
	info = p.awaitState(types.DataReplicationStateContinuous)
	if d := info.ReplicatedDisks[0]; aws.ToString(info.LagDuration) != "P0D" || d.BackloggedStorageBytes != 0 || d.ReplicatedStorageBytes != deviceSize || info.EtaDateTime != nil {
		t.Errorf("after the backlog: lag %s, %+v", aws.ToString(info.LagDuration), d)
	}
	p.wantDisk(t, p.server, p.device)

	// Stopped, and started under a throttle, so that the initial sync can be looked at.
	if _, err := p.drs.StopReplication(t.Context(), &drs.StopReplicationInput{SourceServerID: id}); err != nil {
		t.Fatal(err)
	}
	info = p.awaitState(types.DataReplicationStateStopped)
	p.agent.waitFor(t, "replication is stopped by the server")
	if info.LagDuration != nil || info.EtaDateTime != nil || info.DataReplicationError != nil {
		t.Errorf("stopped: %+v", info)
	}
	p.throttle(8)
	if _, err := p.drs.StartReplication(t.Context(), &drs.StartReplicationInput{SourceServerID: id}); err != nil {
		t.Fatal(err)
	}
	info = p.await("INITIAL_SYNC on its way", func(i *types.DataReplicationInfo) bool {
		return i.DataReplicationState == types.DataReplicationStateInitialSync && i.EtaDateTime != nil && i.ReplicatedDisks[0].ReplicatedStorageBytes > 0
	})
	if d := info.ReplicatedDisks[0]; d.ReplicatedStorageBytes >= deviceSize || steps(info) != allDone {
		t.Errorf("in the initial sync: %+v, steps %s", d, steps(info))
	}
	p.throttle(1000)
	p.awaitState(types.DataReplicationStateContinuous)
	p.wantDisk(t, p.server, p.device)

	// A disk that is not what it was: told with the next step, and gone on with when it is.
	back, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(p.device), "loop/backing_file"))
	if err != nil {
		t.Fatal(err)
	}
	resize := func(size int64) {
		t.Helper()
		if err := os.Truncate(strings.TrimSpace(string(back)), size); err != nil {
			t.Fatal(err)
		}
		tracktest.Command(t, "losetup", "--set-capacity", p.device)
		tracktest.Command(t, "blockdev", "--flushbufs", p.device) // the cache still has what was beyond the end
	}
	resize(deviceSize / 2)
	p.write(4096, 0)
	info = p.awaitState(types.DataReplicationStateStalled)
	if e := info.DataReplicationError; e == nil || e.Error != types.DataReplicationErrorStringFailedToStartDataTransfer || !strings.Contains(aws.ToString(e.RawError), "give the disk its size back") {
		t.Errorf("stalled: %+v", e)
	}
	resize(deviceSize)
	sessions := counters(t, p.socket)["sessions_total"]
	if _, err := p.drs.RetryDataReplication(t.Context(), &drs.RetryDataReplicationInput{SourceServerID: id}); err != nil {
		t.Fatal(err)
	}
	info = p.awaitState(types.DataReplicationStateContinuous)
	p.wantDisk(t, p.server, p.device)
	if now := counters(t, p.socket); info.DataReplicationError != nil || now["sessions_total"] <= sessions {
		t.Errorf("after the retry: %+v, %v sessions of %v", info.DataReplicationError, now["sessions_total"], sessions)
	}

	if _, err := p.drs.DisconnectSourceServer(t.Context(), &drs.DisconnectSourceServerInput{SourceServerID: id}); err != nil {
		t.Fatal(err)
	}
	p.agent.waitFor(t, "was disconnected")
	<-p.agent.done
	info = p.awaitState(types.DataReplicationStateDisconnected)
	if info.LagDuration != nil || info.DataReplicationError != nil {
		t.Errorf("disconnected: %+v", info)
	}
	if _, err := p.drs.DeleteSourceServer(t.Context(), &drs.DeleteSourceServerInput{SourceServerID: id}); err != nil {
		t.Fatal(err)
	}
}
