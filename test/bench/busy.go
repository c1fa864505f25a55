package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsdrs "github.com/aws/aws-sdk-go-v2/service/drs"

	"lifeboat/test/guest"
)

// busyGuest is a machine with a writer of random 4 KiB blocks and, when it is started,
// an agent inside with the eBPF tracker and a point per second.
type busyGuest struct {
	*site
	machine *guest.Machine
	ahead   time.Duration // of our clock before the machine's
}

const (
	busyDisk  = 192 // MiB
	busyFile  = 96  // MiB that are written to
	busyPath  = "/mnt/data/file"
	busyPairs = 3
	busySecs  = 8
	lagSecs   = 30
	// lagRate is 1 MiB/s of random blocks.
	lagRate = 256
)

// withBusyGuest runs f with a machine whose agent is not started.
func (b *bench) withBusyGuest(ctx context.Context, f func(g *busyGuest) ([]measurement, error)) (m []measurement, err error) {
	dir, remove, err := b.place("busy")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	s, err := b.newSite(ctx, filepath.Join(dir, "site"), "--epoch", "1s")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	var disks []guest.Disk
	for i, mib := range []int64{busyDisk, 256} {
		path := filepath.Join(dir, fmt.Sprintf("disk-%d", i))
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, mib<<20)); err != nil {
			return nil, err
		}
		disks = append(disks, guest.Disk{Path: path, Bus: guest.Virtio})
	}
	short, err := os.MkdirTemp("", "guest-") // a socket's path must be short
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(short)) }()
	machine, err := guest.Launch(ctx, short, guest.Config{
		Disks: disks, Logs: []string{"agent", "load"},
		Files: map[string]string{"lifeboat": b.binary, "ca.pem": s.server.CAFile},
	})
	if err != nil {
		return nil, err
	}
	defer machine.Kill()
	g := &busyGuest{site: s, machine: machine}
	if _, err := g.run("sh", "-ec", `
		for d in data state; do mkdir -p /mnt/$d; done
		/bin/mke2fs -q -t ext4 /dev/vda && mount -t ext4 /dev/vda /mnt/data
		/bin/mke2fs -q -t ext4 /dev/vdb && mount -t ext4 /dev/vdb /mnt/state`); err != nil {
		return nil, err
	}
	if err := g.clock(); err != nil {
		return nil, err
	}
	if _, err := g.load(1, 0); err != nil { // makes the file
		return nil, err
	}
	return f(g)
}

func (g *busyGuest) run(args ...string) (string, error) {
	return g.machine.Do(guest.Command{Args: args})
}

// clock finds how far the machine's clock is behind ours: it began with whole seconds.
func (g *busyGuest) clock() error {
	before := time.Now()
	out, err := g.run("/inside", "clock")
	if err != nil {
		return err
	}
	there, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	g.ahead = before.Add(time.Since(before) / 2).Sub(time.Unix(0, there))
	return err
}

func (g *busyGuest) load(seconds, rate int) (l guest.Load, err error) {
	out, err := g.run("/inside", "load", busyPath, strconv.Itoa(busyFile), strconv.Itoa(seconds), strconv.Itoa(rate))
	if err != nil {
		return l, err
	}
	return l, json.Unmarshal([]byte(out), &l)
}

// protect starts the agent and waits for a point of after that.
func (g *busyGuest) protect(ctx context.Context) error {
	at, err := url.Parse(g.server.Endpoint)
	if err != nil {
		return err
	}
	began := time.Now()
	if _, err := g.machine.Do(guest.Command{Name: "agent", Args: []string{
		"/lifeboat", "agent", "--server", "https://10.0.2.2:" + at.Port(), "--ca-cert", "/ca.pem", "--token", g.server.Token,
		"--state", "/mnt/state/agent", "--tracker", "ebpf", "--epoch", "1s", "--disk", "/dev/vda",
	}}); err != nil {
		return err
	}
	for {
		taken, err := g.newest(ctx)
		if err != nil {
			return err
		}
		if taken.After(began) {
			return nil
		}
		if err := pauseBriefly(ctx); err != nil {
			return err
		}
	}
}

// leave ends the agent.
func (g *busyGuest) leave() error {
	_, err := g.machine.Do(guest.Command{Name: "agent", Signal: int(syscall.SIGTERM)})
	return err
}

// newest is when the newest point that can be recovered was taken, by our clock; zero:
// there is none.
func (g *busyGuest) newest(ctx context.Context) (time.Time, error) {
	servers, err := g.server.DescribeSourceServers(ctx, &awsdrs.DescribeSourceServersInput{})
	if err != nil || len(servers.Items) == 0 {
		return time.Time{}, err
	}
	return g.newestOf(ctx, aws.ToString(servers.Items[0].SourceServerID))
}

func (g *busyGuest) newestOf(ctx context.Context, server string) (time.Time, error) {
	out, err := g.server.DescribeRecoverySnapshots(ctx, &awsdrs.DescribeRecoverySnapshotsInput{
		SourceServerID: &server, Order: "DESC", MaxResults: aws.Int32(1),
	})
	if err != nil || len(out.Items) == 0 {
		return time.Time{}, err
	}
	taken, err := time.Parse(time.RFC3339Nano, aws.ToString(out.Items[0].Timestamp))
	return taken.Add(g.ahead), err
}

func pauseBriefly(ctx context.Context) error {
	select {
	case <-time.After(20 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var frozenFor = regexp.MustCompile(`msg="frozen cut".* freeze=(\S+)`)

// freezes are how long the agent held the filesystems, by its log from a place on.
func (g *busyGuest) freezes(from int64) (took []float64, err error) {
	raw, err := os.ReadFile(g.machine.Log("agent"))
	if err != nil {
		return nil, err
	}
	for _, m := range frozenFor.FindAllSubmatch(raw[from:], -1) {
		d, err := time.ParseDuration(string(m[1]))
		if err != nil {
			return nil, err
		}
		took = append(took, d.Seconds()*1e3)
	}
	return took, nil
}

// guestLagRow measures how old the newest recoverable state of a machine is that is written
// to steadily, sampled all the time, and for how long its filesystems are held.
func guestLagRow(ctx context.Context, b *bench) ([]measurement, error) {
	return b.withBusyGuest(ctx, func(g *busyGuest) ([]measurement, error) {
		background := guest.Command{Name: "load", Args: []string{"/inside", "load", busyPath, strconv.Itoa(busyFile), "3600", strconv.Itoa(lagRate)}}
		if _, err := g.machine.Do(background); err != nil {
			return nil, err
		}
		out, err := g.run("/inside", "syncs", busyPath, "20")
		if err != nil {
			return nil, err
		}
		var syncs []time.Duration
		if err := json.Unmarshal([]byte(out), &syncs); err != nil {
			return nil, err
		}
		var peer []float64
		for _, d := range syncs {
			peer = append(peer, d.Seconds()*1e3)
		}
		if err := g.protect(ctx); err != nil {
			return nil, err
		}
		info, err := os.Stat(g.machine.Log("agent"))
		if err != nil {
			return nil, err
		}
		var lags []float64
		for end := time.Now().Add(lagSecs * time.Second); time.Now().Before(end); {
			taken, err := g.newest(ctx)
			if err == nil {
				lags = append(lags, time.Since(taken).Seconds())
				err = pauseBriefly(ctx)
			}
			if err != nil {
				return nil, err
			}
		}
		ours, err := g.freezes(info.Size())
		if err != nil {
			return nil, err
		}
		if len(ours) == 0 {
			return nil, errors.New("no frozen cut was made under load")
		}
		note := fmt.Sprintf("emulated machine, %d random writes of 4 KiB per second, a point per second: %d points in %d s", lagRate, len(ours), lagSecs)
		return []measurement{
			{Name: "age of the newest point of a busy machine, p99", Unit: "s", Ours: percentile(lags, 99), Reach: 2, Note: note},
			{Name: "age of the newest point of a busy machine, p50", Unit: "s", Ours: percentile(lags, 50), Note: note},
			{Name: "filesystems frozen for a point, p99", Unit: "ms", Ours: percentile(ours, 99), Peer: "the same machine's sync, p99", PeerValue: percentile(peer, 99), Reach: 3, Note: note},
		}, nil
	})
}

// guestOverheadRow measures random writes as fast as they go, without and with the agent in
// turn.
func guestOverheadRow(ctx context.Context, b *bench) ([]measurement, error) {
	return b.withBusyGuest(ctx, func(g *busyGuest) ([]measurement, error) {
		var rates, p99s [2][]float64 // without, with
		for range busyPairs {
			for with := range 2 {
				if with == 1 {
					if err := g.protect(ctx); err != nil {
						return nil, err
					}
				}
				l, err := g.load(busySecs, 0)
				if err != nil {
					return nil, err
				}
				rates[with] = append(rates[with], l.Rate())
				p99s[with] = append(p99s[with], l.P99.Seconds()*1e3)
			}
			if err := g.leave(); err != nil {
				return nil, err
			}
		}
		const peer = "without it"
		note := fmt.Sprintf("emulated machine, %d writers around the page cache, as fast as they can; %d pairs of %d s", 4, busyPairs, busySecs)
		return []measurement{
			{Name: "random 4 KiB writes per second beside the agent", Unit: "/s", Ours: median(rates[1]), Runs: busyPairs, Peer: peer, PeerValue: median(rates[0]), Reach: 0.95, AtLeast: true, Note: note},
			{Name: "the same, p99 of a write", Unit: "ms", Ours: median(p99s[1]), Runs: busyPairs, Peer: peer, PeerValue: median(p99s[0]), Note: note},
		}, nil
	})
}
