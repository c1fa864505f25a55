package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsdrs "github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"

	"lifeboat/internal/demo/rig"
)

const stepLimit = 10 * time.Minute

// measure runs everything, and tells on standard error what it is at.
func measure(ctx context.Context, binary, dir string, r *results) (measures []measurement, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 4*stepLimit, errors.New("the benchmark takes too long"))
	defer cancel()
	lab, err := rig.New(binary, dir)
	if err != nil {
		return nil, err
	}
	version, err := lab.Output(ctx, "--version")
	if err != nil {
		return nil, err
	}
	r.Version = strings.TrimSpace(version)

	tell("making an image of 2 GiB with 1 GiB of data")
	image := lab.Path("disk.img")
	if err := makeImage(ctx, image); err != nil {
		return nil, err
	}
	server, err := lab.StartServer(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, server.Stop(stop))
	}()
	if err := server.Initialize(ctx); err != nil {
		return nil, err
	}
	measures = append(measures, measurement{Name: "server at rest, fresh: resident memory", Unit: "MiB", Ours: residentMiB(server.PID()), Reach: 100})

	// The file is read once first, so that neither side pays for a cold cache.
	tell("zstd -1 -T0")
	if _, err := compress(ctx, image, lab.Path("warm.zst")); err != nil {
		return nil, err
	}
	peer, err := compress(ctx, image, lab.Path("peer.zst"))
	if err != nil {
		return nil, err
	}
	tell("initial sync")
	began := time.Now()
	agent, err := lab.StartAgent(server.Client, "agent", image, "--hostname", "bench", "--epoch", "1s")
	if err != nil {
		return nil, err
	}
	defer agent.Kill()
	id, err := synced(ctx, server, agent)
	if err != nil {
		return nil, err
	}
	sync := time.Since(began)
	measures = append(measures, measurement{
		Name: "initial sync, 2 GiB with 1 GiB of data", Unit: "s", Ours: sync.Seconds(),
		Peer: "zstd -1 -T0", PeerValue: peer.Seconds(), Ratio: sync.Seconds() / peer.Seconds(), Reach: 1.5,
	})

	tell("StartRecovery")
	asked, err := firstInstruction(ctx, server, id)
	if err != nil {
		return nil, err
	}
	agent.Kill()
	best, err := firstInstruction(ctx, server, id)
	if err != nil {
		return nil, err
	}
	measures = append(measures,
		measurement{Name: "StartRecovery to first instruction, new point cut", Unit: "s", Ours: asked.Seconds(), Reach: 2},
		measurement{Name: "StartRecovery to first instruction, agent dead", Unit: "s", Ours: best.Seconds(), Reach: 2})
	tell("convert the whole disk, as without a vault")
	began = time.Now()
	if err := command(ctx, "qemu-img", "convert", "-O", "qcow2", image, lab.Path("peer.qcow2")); err != nil {
		return nil, err
	}
	convert := time.Since(began)
	measures = append(measures, measurement{
		Name: "the same, beside a conversion of the disk", Unit: "s", Ours: best.Seconds(),
		Peer: "qemu-img convert", PeerValue: convert.Seconds(), Ratio: best.Seconds() / convert.Seconds(),
	})

	if err := terminateAll(ctx, server); err != nil {
		return nil, err
	}
	tell("server at rest, a minute after all that")
	if err := rig.Pause(ctx, time.Minute); err != nil {
		return nil, err
	}
	measures = append(measures, measurement{Name: "server at rest, a minute after all that: memory", Unit: "MiB", Ours: residentMiB(server.PID()), Reach: 100})
	return measures, nil
}

func tell(what string) { fmt.Fprintf(os.Stderr, "bench: %s\n", what) }

// compress times zstd on the file.
func compress(ctx context.Context, from, to string) (time.Duration, error) {
	began := time.Now()
	err := command(ctx, "zstd", "-q", "-f", "-1", "-T0", from, "-o", to)
	took := time.Since(began)
	return took, errors.Join(err, os.Remove(to))
}

func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// synced waits until the initial sync is over and returns the source server's ID.
func synced(ctx context.Context, server *rig.Server, agent *rig.Process) (string, error) {
	for {
		out, err := server.DescribeSourceServers(ctx, &awsdrs.DescribeSourceServersInput{})
		if err != nil {
			return "", err
		}
		if len(out.Items) == 1 && out.Items[0].DataReplicationInfo != nil &&
			out.Items[0].DataReplicationInfo.DataReplicationState == types.DataReplicationStateContinuous {
			return aws.ToString(out.Items[0].SourceServerID), nil
		}
		if err := errors.Join(server.Ended(), agent.Ended()); err != nil {
			return "", err
		}
		if err := rig.Pause(ctx, 20*time.Millisecond); err != nil {
			return "", err
		}
	}
}

var machineStarted = regexp.MustCompile(`msg="machine started".* job=(\S+).* sinceRequest=(\S+)`)

// firstInstruction launches a drill and reads from the server's log how long it
// took until the machine's processors were let run.
func firstInstruction(ctx context.Context, server *rig.Server, id string) (time.Duration, error) {
	started, err := server.StartRecovery(ctx, &awsdrs.StartRecoveryInput{
		IsDrill:       aws.Bool(true),
		SourceServers: []types.StartRecoveryRequestSourceServer{{SourceServerID: &id}},
	})
	if err != nil {
		return 0, err
	}
	job := aws.ToString(started.Job.JobID)
	if err := completed(ctx, server, job); err != nil {
		return 0, err
	}
	log, err := os.ReadFile(server.Log)
	if err != nil {
		return 0, err
	}
	for _, groups := range machineStarted.FindAllSubmatch(log, -1) {
		if string(groups[1]) == job {
			return time.ParseDuration(string(groups[2]))
		}
	}
	return 0, fmt.Errorf("job %s launched nothing; see %s", job, filepath.Base(server.Log))
}

func completed(ctx context.Context, server *rig.Server, job string) error {
	for {
		out, err := server.DescribeJobs(ctx, &awsdrs.DescribeJobsInput{Filters: &types.DescribeJobsRequestFilters{JobIDs: []string{job}}})
		if err != nil {
			return err
		}
		if len(out.Items) == 1 && out.Items[0].Status == types.JobStatusCompleted {
			return nil
		}
		if err := rig.Pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("wait for job %s: %w", job, err)
		}
	}
}

func terminateAll(ctx context.Context, server *rig.Server) error {
	out, err := server.DescribeRecoveryInstances(ctx, &awsdrs.DescribeRecoveryInstancesInput{})
	if err != nil {
		return err
	}
	var ids []string
	for _, instance := range out.Items {
		ids = append(ids, aws.ToString(instance.RecoveryInstanceID))
	}
	if len(ids) == 0 {
		return nil
	}
	ended, err := server.TerminateRecoveryInstances(ctx, &awsdrs.TerminateRecoveryInstancesInput{RecoveryInstanceIDs: ids})
	if err != nil {
		return err
	}
	return completed(ctx, server, aws.ToString(ended.Job.JobID))
}

// residentMiB is the memory of a process as the kernel counts it, 0 when it does
// not tell.
func residentMiB(pid int) float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kib); err == nil {
			return kib / 1024
		}
	}
	return 0
}
