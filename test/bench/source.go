package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsdrs "github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"

	"lifeboat/internal/demo/rig"
)

// source is a machine to protect: a loop device on a file of this machine's disk,
// read and written around the page cache, with an agent that tracks it in the kernel.
type source struct {
	*site
	device string
	dir    string // where its filesystem is mounted; empty: it has none
	agent  *rig.Process
	id     string
}

// newSource makes the device, mounted when it is to have a filesystem. Server and
// agent share this machine's processors with the load.
func (b *bench) newSource(ctx context.Context, dir string, size int64, filesystem bool) (s *source, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("needs root, for a loop device and the kernel's tracepoints")
	}
	image := filepath.Join(dir, "source.img")
	if err := command(ctx, "fallocate", "-l", strconv.FormatInt(size, 10), image); err != nil {
		return nil, err
	}
	device, err := output(ctx, "losetup", "--find", "--show", "--direct-io=on", image)
	if err != nil {
		return nil, fmt.Errorf("make a loop device: %w", err)
	}
	s = &source{device: strings.TrimSpace(device)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.remove(ctx))
		}
	}()
	if filesystem {
		mount := filepath.Join(dir, "mounted")
		if err := errors.Join(os.Mkdir(mount, 0o700), command(ctx, "mkfs.ext4", "-q", s.device), command(ctx, "mount", s.device, mount)); err != nil {
			return s, err
		}
		s.dir = mount
	}
	s.site, err = b.newSite(ctx, filepath.Join(dir, "site"))
	return s, err
}

// protect starts the agent, again where it was ended, and waits for the first sync.
func (s *source) protect(ctx context.Context, epoch time.Duration) error {
	c := s.server.Client
	agent, err := s.Start("agent", "agent", "--server", c.Endpoint, "--ca-cert", c.CAFile, "--token", c.Token,
		"--state", s.Path("agent"), "--hostname", "bench", "--disk", s.device, "--tracker", "ebpf", "--epoch", epoch.String())
	if err != nil {
		return err
	}
	s.agent = agent
	s.id, err = synced(ctx, s.server, agent)
	return err
}

func (s *source) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
	defer cancel()
	if s.agent != nil {
		s.agent.Kill()
	}
	var errs []error
	if s.site != nil {
		errs = append(errs, s.close(ctx))
	}
	if s.dir != "" {
		errs = append(errs, command(ctx, "umount", s.dir))
	}
	return errors.Join(append(errs, command(ctx, "losetup", "--detach", s.device))...)
}

const sourceSize = 2 * gib

// randomWrites is what fio found of random 4 KiB writes.
type randomWrites struct {
	iops float64
	p99  float64 // milliseconds
}

// write lets fio write for some seconds; more says where and how fast.
func write(ctx context.Context, seconds int, more ...string) (w randomWrites, err error) {
	args := append([]string{
		"--name=source", "--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=libaio", "--output-format=json",
		"--time_based", fmt.Sprintf("--runtime=%d", seconds), fmt.Sprintf("--randseed=%d", time.Now().UnixNano()),
	}, more...)
	out, err := exec.CommandContext(ctx, "fio", args...).Output()
	if err != nil {
		return w, fmt.Errorf("fio: %w: %s", err, out)
	}
	var result struct {
		Jobs []struct {
			Write struct {
				IOPS    float64 `json:"iops"`
				Latency struct {
					Percentile map[string]float64 `json:"percentile"`
				} `json:"clat_ns"`
			} `json:"write"`
		} `json:"jobs"`
	}
	if err := json.Unmarshal(out, &result); err != nil || len(result.Jobs) != 1 {
		return w, fmt.Errorf("read what fio says: %w: %s", err, out[:min(len(out), 200)])
	}
	of := result.Jobs[0].Write
	return randomWrites{of.IOPS, of.Latency.Percentile["99.000000"] / 1e6}, nil
}

// overheadRow writes with the agent and without, in turn; and weighs the agent while
// nothing is written.
func overheadRow(ctx context.Context, b *bench) (measures []measurement, err error) {
	dir, remove, err := b.place("overhead")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	s, err := b.newSource(ctx, dir, sourceSize, false)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.remove(ctx)) }()
	load := []string{"--filename=" + s.device, "--iodepth=4"}
	const runs = 5
	var bare, tracked, replicated []randomWrites
	for range runs {
		w, err := write(ctx, 5, load...)
		if err != nil {
			return nil, err
		}
		bare = append(bare, w)
		for _, epoch := range []time.Duration{24 * time.Hour, 5 * time.Second} {
			if err := s.protect(ctx, epoch); err != nil {
				return nil, err
			}
			if w, err = write(ctx, 5, load...); err != nil {
				return nil, err
			}
			s.agent.Kill()
			if epoch > time.Hour {
				tracked = append(tracked, w)
			} else {
				replicated = append(replicated, w)
			}
		}
	}
	read, processor, err := s.rest(ctx)
	if err != nil {
		return nil, err
	}
	iops := func(w randomWrites) float64 { return w.iops / 1000 }
	p99 := func(w randomWrites) float64 { return w.p99 }
	const shared = "agent, server and load share two processors"
	return []measurement{
		{Name: "source: random 4 KiB writes while they are tracked", Unit: "kIOPS", Ours: middle(tracked, iops), Runs: runs, Peer: "without an agent", PeerValue: middle(bare, iops), Reach: 0.97, AtLeast: true},
		{Name: "source: p99 of such a write", Unit: "ms", Ours: middle(tracked, p99), Runs: runs, Peer: "without an agent", PeerValue: middle(bare, p99)},
		{Name: "source: the same while an epoch of 5 s is replicated", Unit: "kIOPS", Ours: middle(replicated, iops), Runs: runs, Peer: "without an agent", PeerValue: middle(bare, iops), Reach: 0.95, AtLeast: true, Note: shared},
		{Name: "agent with ebpf, nothing written: read from the disk in 20 s", Unit: "KiB", Ours: read},
		{Name: "agent with ebpf, nothing written: share of a processor", Unit: "%", Ours: processor, Reach: 0.5},
	}, nil
}

// rest weighs an agent whose disk rests: what it reads, in KiB, and the share of a
// processor that it takes, in per cent, over 20 s.
func (s *source) rest(ctx context.Context) (read, processor float64, err error) {
	if err := s.protect(ctx, 5*time.Second); err != nil {
		return 0, 0, err
	}
	// The first sync may be followed by a pass or two.
	if err := rig.Pause(ctx, 12*time.Second); err != nil {
		return 0, 0, err
	}
	const over = 20 * time.Second
	sectors, err := sectorsRead(s.device)
	if err != nil {
		return 0, 0, err
	}
	used := processorTime(s.agent.PID())
	if err := rig.Pause(ctx, over); err != nil {
		return 0, 0, err
	}
	used = processorTime(s.agent.PID()) - used
	after, err := sectorsRead(s.device)
	return float64(after-sectors) / 2, 100 * used.Seconds() / over.Seconds(), err
}

// sectorsRead is how many sectors of 512 bytes the kernel has read from a device.
func sectorsRead(device string) (int64, error) {
	raw, err := os.ReadFile(filepath.Join("/sys/class/block", filepath.Base(device), "stat"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(raw))
	if len(fields) < 3 {
		return 0, fmt.Errorf("%s has no count of sectors", device)
	}
	return strconv.ParseInt(fields[2], 10, 64)
}

func middle(of []randomWrites, what func(randomWrites) float64) float64 {
	var values []float64
	for _, w := range of {
		values = append(values, what(w))
	}
	return median(values)
}

// lagRow writes at a steady rate into a mounted filesystem and looks how old the
// newest point is: what a disaster at that moment would cost.
func lagRow(ctx context.Context, b *bench) (measures []measurement, err error) {
	dir, remove, err := b.place("lag")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	s, err := b.newSource(ctx, dir, sourceSize, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.remove(ctx)) }()
	file := filepath.Join(s.dir, "table")
	if err := command(ctx, "dd", "if=/dev/urandom", "of="+file, "bs=1M", "count=1024", "conv=fsync", "status=none"); err != nil {
		return nil, err
	}
	if err := s.protect(ctx, time.Second); err != nil {
		return nil, err
	}
	const seconds, rate = 60, 20 // MB/s
	load, stop := context.WithCancel(ctx)
	type end struct {
		randomWrites
		error
	}
	ended := make(chan end, 1)
	go func() {
		w, err := write(load, seconds, "--filename="+file, "--size=1G", "--iodepth=4", fmt.Sprintf("--rate_iops=%d", rate*1000*1000/4096))
		ended <- end{w, err}
	}()
	var ages []float64
	var written end
	// The first seconds belong to the load's own start.
	err = rig.Pause(ctx, 5*time.Second)
	for done := false; err == nil && !done; {
		select {
		case written = <-ended:
			done, err = true, written.error
			continue
		default:
		}
		var newest time.Time
		if newest, err = s.newestPoint(ctx); err == nil {
			ages = append(ages, time.Since(newest).Seconds())
			err = errors.Join(s.agent.Ended(), rig.Pause(ctx, 100*time.Millisecond))
		}
	}
	stop()
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("age of the newest point, random 4 KiB writes at %d MB/s, points every 1 s", rate)
	note := fmt.Sprintf("written: %.1f MB/s; agent, server and load share two processors", written.iops*4096/1e6)
	return []measurement{
		{Name: name + ": p50", Unit: "s", Ours: median(ages), Note: note},
		{Name: name + ": p99", Unit: "s", Ours: percentile(ages, 99), Reach: 2, Note: note},
	}, nil
}

// newestPoint is the time of the newest point that may be booted from.
func (s *source) newestPoint(ctx context.Context) (time.Time, error) {
	out, err := s.server.DescribeRecoverySnapshots(ctx, &awsdrs.DescribeRecoverySnapshotsInput{
		SourceServerID: &s.id, Order: types.RecoverySnapshotsOrderDesc, MaxResults: aws.Int32(1),
	})
	if err != nil {
		return time.Time{}, err
	}
	if len(out.Items) == 0 {
		return time.Time{}, errors.New("there is no recovery point")
	}
	return time.Parse(time.RFC3339, aws.ToString(out.Items[0].Timestamp))
}
