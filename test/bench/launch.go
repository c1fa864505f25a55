package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsdrs "github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"

	"lifeboat/internal/demo/rig"
)

// launchRow measures from the request to the moment when the machine's processors
// are let run, of servers whose agents are gone.
func launchRow(ctx context.Context, b *bench) (measures []measurement, err error) {
	for _, size := range []struct {
		name  string
		bytes int64
	}{{"1 GiB", gib}, {"1 TiB", 1 << 40}} {
		m, err := launchOf(ctx, b, size.name, size.bytes)
		if err != nil {
			m = []measurement{{Name: "StartRecovery to first instruction, disk of " + size.name, Why: firstLine(err)}}
		}
		measures = append(measures, m...)
	}
	return measures, nil
}

func launchOf(ctx context.Context, b *bench, name string, size int64) (measures []measurement, err error) {
	dir, remove, err := b.place("launch")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	image := filepath.Join(dir, "disk.img")
	if err := makeMachine(ctx, image, size, 512*mib); err != nil {
		return nil, err
	}
	s, err := b.newSite(ctx, filepath.Join(dir, "site"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	id, err := s.protect(ctx, image)
	if err != nil {
		return nil, err
	}
	// The first launches of a server's life wait until the accelerator is known.
	if err := s.accelerator(ctx); err != nil {
		return nil, err
	}
	const runs = 5
	var ours, convert []float64
	for range runs {
		job, err := launch(ctx, s.server, id)
		if err != nil {
			return nil, err
		}
		took, err := firstInstruction(s.server, job)
		if err != nil {
			return nil, err
		}
		ours = append(ours, took.Seconds())
	}
	for range 3 {
		took, err := timed(func() error {
			return command(ctx, "qemu-img", "convert", "-O", "qcow2", image, filepath.Join(dir, "peer.qcow2"))
		})
		if err != nil {
			return nil, err
		}
		convert = append(convert, took)
	}
	return []measurement{
		{Name: "StartRecovery to first instruction, disk of " + name, Unit: "s", Ours: median(ours), Runs: runs, Reach: 1},
		{
			Name: "the same, beside a copy of the disk", Unit: "s", Ours: median(ours), Runs: runs,
			Peer: "qemu-img convert", PeerValue: median(convert), Note: "the disk holds 640 MiB; a full one takes in proportion",
		},
	}, nil
}

// protect replicates an image until it is recoverable, and ends the agent.
func (s *site) protect(ctx context.Context, image string) (string, error) {
	agent, err := s.StartAgent(s.server.Client, "agent", image, "--hostname", "bench", "--epoch", "1s")
	if err != nil {
		return "", err
	}
	defer agent.Kill()
	return synced(ctx, s.server, agent)
}

// accelerator waits until the server has probed how machines can run here.
func (s *site) accelerator(ctx context.Context) error {
	known := filepath.Join(s.Data(), "instances", "accelerator.json")
	for {
		if _, err := os.Stat(known); err == nil {
			return nil
		}
		if err := rig.Pause(ctx, 100*time.Millisecond); err != nil {
			return fmt.Errorf("wait for the accelerator to be probed: %w", err)
		}
	}
}

// launch drills a server and returns the finished job.
func launch(ctx context.Context, server *rig.Server, id string) (job string, err error) {
	started, err := server.StartRecovery(ctx, &awsdrs.StartRecoveryInput{
		IsDrill:       aws.Bool(true),
		SourceServers: []types.StartRecoveryRequestSourceServer{{SourceServerID: &id}},
	})
	if err != nil {
		return "", err
	}
	job = aws.ToString(started.Job.JobID)
	return job, completed(ctx, server, job)
}

var machineStarted = regexp.MustCompile(`msg="machine started".* job=(\S+).* sinceRequest=(\S+)`)

// firstInstruction reads from the server's log how long a launch took until the
// machine's processors were let run.
func firstInstruction(server *rig.Server, job string) (time.Duration, error) {
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
		if err := errors.Join(server.Ended(), rig.Pause(ctx, 20*time.Millisecond)); err != nil {
			return fmt.Errorf("wait for job %s: %w", job, err)
		}
	}
}
