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
	"golang.org/x/sys/unix"

	"lifeboat/internal/demo/rig"
)

const syncSize = 4 * gib

// syncRow measures the first sync of a disk into an empty vault, and the next one
// of the same disk unchanged. The image is in the page cache for all.
func syncRow(ctx context.Context, b *bench) (measures []measurement, err error) {
	dir, remove, err := b.place("sync")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	image := filepath.Join(dir, "disk.img")
	if err := makeThirds(ctx, image, syncSize); err != nil {
		return nil, err
	}
	var first, next, zstd []float64
	const runs = 3
	for i := range runs {
		unix.Sync() // what the one before left in the page cache is not the next one's to write
		took, err := timed(func() error {
			return command(ctx, "zstd", "-q", "-f", "-1", "-T0", image, "-o", filepath.Join(dir, "peer.zst"))
		})
		if err != nil {
			return nil, err
		}
		zstd = append(zstd, took)
		unix.Sync()
		f, n, err := syncOnce(ctx, b, filepath.Join(dir, fmt.Sprintf("site-%d", i)), image)
		if err != nil {
			return nil, err
		}
		first, next = append(first, f), append(next, n)
	}
	restic, resticNext, err := resticTwice(ctx, dir, image)
	if err != nil {
		return nil, err
	}
	borg, err := borgOnce(ctx, dir, image)
	if err != nil {
		return nil, err
	}
	ours, oursNext := median(first), median(next)
	name := "initial sync, 4 GiB: a third zeros, text and noise each"
	return []measurement{
		{Name: name, Unit: "s", Ours: ours, Runs: runs, Peer: "restic", PeerValue: restic, Reach: 1.0 / 3},
		{Name: name, Unit: "s", Ours: ours, Runs: runs, Peer: "borg", PeerValue: borg, Reach: 1.0 / 3},
		{Name: name, Unit: "s", Ours: ours, Runs: runs, Peer: "zstd -1 -T0", PeerValue: median(zstd), Reach: 1.3},
		{Name: "next point of the unchanged disk, with scan", Unit: "s", Ours: oursNext, Runs: runs, Peer: "restic, file touched", PeerValue: resticNext, Reach: 1.0 / 3},
	}, nil
}

var pointStored = regexp.MustCompile(`time=(\S+) .*msg="recovery point" wing=ingest`)

// syncOnce protects the image from scratch, and then has a new point taken of it.
func syncOnce(ctx context.Context, b *bench, dir, image string) (first, next float64, err error) {
	s, err := b.newSite(ctx, dir)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.close(ctx), os.RemoveAll(dir)) }()
	began := time.Now()
	agent, err := s.StartAgent(s.server.Client, "agent", image, "--hostname", "bench", "--epoch", "1s")
	if err != nil {
		return 0, 0, err
	}
	defer agent.Kill()
	id, err := synced(ctx, s.server, agent)
	if err != nil {
		return 0, 0, err
	}
	first = time.Since(began).Seconds()

	// A launch without a point asks the agent for one of this moment: it reads the
	// whole disk again to know that nothing changed. The launch itself is not counted.
	began = time.Now()
	if _, err := launch(ctx, s.server, id); err != nil {
		return 0, 0, err
	}
	log, err := os.ReadFile(s.server.Log)
	if err != nil {
		return 0, 0, err
	}
	found := pointStored.FindAllSubmatch(log, -1)
	if len(found) == 0 {
		return 0, 0, errors.New("the server's log tells of no recovery point")
	}
	stored, err := time.Parse(time.RFC3339Nano, string(found[len(found)-1][1]))
	if err != nil {
		return 0, 0, err
	}
	if stored.Before(began) {
		return 0, 0, errors.New("no new point was taken of the unchanged disk")
	}
	return first, stored.Sub(began).Seconds(), nil
}

// resticTwice backs the image up, and again after it was touched: restic would not
// look into a file whose times are the same, and a disk has none.
func resticTwice(ctx context.Context, dir, image string) (first, next float64, err error) {
	repo := filepath.Join(dir, "restic")
	env := []string{"RESTIC_PASSWORD=bench", "RESTIC_REPOSITORY=" + repo, "RESTIC_CACHE_DIR=" + filepath.Join(dir, "restic-cache")}
	if err := commandIn(ctx, env, "restic", "init", "-q"); err != nil {
		return 0, 0, err
	}
	unix.Sync()
	backup := func() error { return commandIn(ctx, env, "restic", "backup", "-q", image) }
	if first, err = timed(backup); err != nil {
		return 0, 0, err
	}
	now := time.Now()
	if err := os.Chtimes(image, now, now); err != nil {
		return 0, 0, err
	}
	if next, err = timed(backup); err != nil {
		return 0, 0, err
	}
	return first, next, os.RemoveAll(repo)
}

func borgOnce(ctx context.Context, dir, image string) (float64, error) {
	repo := filepath.Join(dir, "borg")
	env := []string{"BORG_PASSPHRASE=bench", "BORG_BASE_DIR=" + filepath.Join(dir, "borg-base"), "BORG_RELOCATED_REPO_ACCESS_IS_OK=yes"}
	if err := commandIn(ctx, env, "borg", "init", "--encryption", "repokey-blake2", repo); err != nil {
		return 0, err
	}
	unix.Sync()
	took, err := timed(func() error { return commandIn(ctx, env, "borg", "create", repo+"::first", image) })
	return took, errors.Join(err, os.RemoveAll(repo))
}

// synced waits until the initial sync is over and returns the source server's ID.
func synced(ctx context.Context, server *rig.Server, agent *rig.Process) (string, error) {
	for {
		out, err := server.DescribeSourceServers(ctx, &awsdrs.DescribeSourceServersInput{})
		if err != nil {
			return "", err
		}
		for _, item := range out.Items {
			known := item.DataReplicationInfo
			if known != nil && known.DataReplicationState == types.DataReplicationStateContinuous && len(out.Items) == 1 {
				return aws.ToString(item.SourceServerID), nil
			}
		}
		if err := errors.Join(server.Ended(), agent.Ended()); err != nil {
			return "", err
		}
		if err := rig.Pause(ctx, 20*time.Millisecond); err != nil {
			return "", err
		}
	}
}
