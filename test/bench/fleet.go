package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	awsdrs "github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"
	"golang.org/x/sync/errgroup"

	"lifeboat/internal/demo/rig"
	"lifeboat/internal/source/agent"
	"lifeboat/internal/source/inventory"
)

var fleetTook = regexp.MustCompile(`answered after (\S+), all launched after (\S+)`)

// fleetRow takes the figures of the test that launches 200 servers whose machines
// do nothing, which no program from outside could ask for.
func fleetRow(ctx context.Context, _ *bench) ([]measurement, error) {
	const runs = 3
	out, err := exec.CommandContext(ctx, "scripts/go", "test", "-count", fmt.Sprint(runs), "-v", "-run", "^TestTwoHundredServersInOneJob$", "./internal/recovery").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("the test of 200 servers: %w: %s", err, out[max(0, len(out)-500):])
	}
	var answered, launched []float64
	for _, m := range fleetTook.FindAllSubmatch(out, -1) {
		a, aErr := time.ParseDuration(string(m[1]))
		l, lErr := time.ParseDuration(string(m[2]))
		if err := errors.Join(aErr, lErr); err != nil {
			return nil, err
		}
		answered, launched = append(answered, 1000*a.Seconds()), append(launched, l.Seconds())
	}
	if len(answered) != runs {
		return nil, fmt.Errorf("the test of 200 servers told %d figures, not %d", len(answered), runs)
	}
	return []measurement{
		{Name: "200 servers in one job, machines faked: answered", Unit: "ms", Ours: median(answered), Runs: runs, Reach: 100},
		{Name: "200 servers in one job, machines faked: all launched", Unit: "s", Ours: median(launched), Runs: runs, Reach: 10},
	}, nil
}

// idleRow connects 300 agents, all in this process, whose disks do not change, and
// weighs the server.
func idleRow(ctx context.Context, b *bench) (measures []measurement, err error) {
	dir, remove, err := b.place("idle")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	s, err := b.newSite(ctx, filepath.Join(dir, "site"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	fresh := residentMiB(s.server.PID())

	const count = 300
	image := make([]byte, mib)
	for i := range image {
		image[i] = byte(i * i >> 8)
	}
	running, stop := context.WithCancel(ctx)
	var agents errgroup.Group
	defer func() {
		stop()
		err = errors.Join(err, agents.Wait())
	}()
	var once sync.Once
	var broken error
	for i := range count {
		place := filepath.Join(dir, fmt.Sprintf("agent-%d", i))
		disk := place + ".img"
		if err := os.WriteFile(disk, image, 0o600); err != nil {
			return nil, err
		}
		agents.Go(func() error {
			err := agent.Run(running, agent.Config{
				Server: s.server.Endpoint, CAFile: s.server.CAFile, Token: s.server.Token, State: place, Disks: []string{disk},
				Tracker: "scan", Overrides: inventory.Overrides{Hostname: fmt.Sprintf("idle-%d", i)}, Workers: 1, Version: "bench",
			})
			if err != nil && running.Err() == nil {
				once.Do(func() { broken = err })
				stop()
			}
			return nil
		})
	}
	if err := allContinuous(running, s.server, count); err != nil {
		return nil, errors.Join(broken, err)
	}
	if err := rig.Pause(running, 45*time.Second); err != nil {
		return nil, errors.Join(broken, err)
	}
	return []measurement{
		{Name: "memory of the server with 300 idle source servers", Unit: "MiB", Ours: residentMiB(s.server.PID()), Reach: 500},
		{Name: "memory of a fresh server", Unit: "MiB", Ours: fresh, Reach: 100},
	}, nil
}

func allContinuous(ctx context.Context, server *rig.Server, count int) error {
	for {
		ready := 0
		pages := awsdrs.NewDescribeSourceServersPaginator(server, &awsdrs.DescribeSourceServersInput{})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return err
			}
			for _, item := range page.Items {
				if r := item.DataReplicationInfo; r != nil && r.DataReplicationState == types.DataReplicationStateContinuous {
					ready++
				}
			}
		}
		if ready == count {
			return nil
		}
		if err := errors.Join(server.Ended(), rig.Pause(ctx, time.Second)); err != nil {
			return fmt.Errorf("%d of %d servers are ready: %w", ready, count, err)
		}
	}
}

// residentMiB is the memory of a process as the kernel counts it, 0 when it does
// not tell.
func residentMiB(pid int) float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	var kib float64
	if m := residentLine.FindSubmatch(data); m != nil {
		_, _ = fmt.Sscanf(string(m[1]), "%g", &kib) // the expression matches digits only
	}
	return kib / 1024
}

var residentLine = regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB`)

// processorTime is what a process has taken of processors, in user and kernel; 0
// when the kernel does not tell.
func processorTime(pid int) time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The second field is a name in brackets, which may hold anything.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, userErr := strconv.ParseInt(fields[11], 10, 64)
	kernel, kernelErr := strconv.ParseInt(fields[12], 10, 64)
	if errors.Join(userErr, kernelErr) != nil {
		return 0
	}
	return time.Duration(user+kernel) * 10 * time.Millisecond // Linux counts hundredths
}
