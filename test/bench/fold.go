package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/retention"
)

// counted is a store that counts the bytes that are put into it.
type counted struct {
	blob.Store
	bytes atomic.Int64
}

func (c *counted) PutIfAbsent(ctx context.Context, name string, parts ...[]byte) error {
	err := c.Store.PutIfAbsent(ctx, name, parts...)
	if err == nil {
		for _, p := range parts {
			c.bytes.Add(int64(len(p)))
		}
	}
	return err
}

// A steady day: an epoch every 5 s, each changing 16 blocks of 4 KiB that do not
// compress, four of five in a tenth of the disk. The first hours, while the journal
// window fills, are not counted.
const (
	dayDisk   = 16 * gib
	daySpace  = 5 * time.Second
	dayWarm   = 5 * time.Hour
	dayCount  = 24 * time.Hour
	dayBlocks = 16
)

// placeInMemory is place on a file system in memory where one has room: this row
// counts bytes, and a disk would only make 21,000 commits take longer.
func (b *bench) placeInMemory(name string) (dir string, remove func() error, err error) {
	const memory, room = "/dev/shm", 6 * gib
	var fs unix.Statfs_t
	if err := unix.Statfs(memory, &fs); err != nil || int64(fs.Bavail)*fs.Bsize < room {
		return b.place(name)
	}
	if dir, err = os.MkdirTemp(memory, "lifeboat-bench-"); err != nil {
		return b.place(name)
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}

// foldRow runs a day of epochs on a clock of its own, folds as a server does, and
// compares what was written into the store with what the source had written.
func foldRow(ctx context.Context, b *bench) (measures []measurement, err error) {
	dir, remove, err := b.placeInMemory("fold")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	keys, err := vault.CreateKeyFile(filepath.Join(dir, "master.key"))
	if err != nil {
		return nil, err
	}
	local, err := blob.CreateDir(filepath.Join(dir, "vault"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, local.Close()) }()
	store := &counted{Store: local}
	clock := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	v, err := vault.Create(ctx, store, keys, vault.Options{Now: func() time.Time { return clock }})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	server := drs.NewSourceServerID()
	if err := v.CreateServer(ctx, server); err != nil {
		return nil, err
	}
	w, err := v.Writer(ctx, server, vault.MainBranch)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()

	noise := rand.NewChaCha8([32]byte{'d', 'a', 'y'})
	rnd := rand.New(noise) //nolint:gosec // the same day every time
	volume := vault.Volume{ID: 0, Device: "/dev/vda", Size: dayDisk}
	raw := make([]byte, dayBlocks*vault.BlockSize)
	var payload, before int64
	for at := time.Duration(0); at < dayWarm+dayCount; at += daySpace {
		if at == dayWarm {
			payload, before = 0, store.bytes.Load()
		}
		clock = clock.Add(daySpace)
		e, err := w.Begin(ctx, []vault.Volume{volume})
		if err != nil {
			return nil, err
		}
		_, _ = noise.Read(raw) // never fails
		f := vault.Frame{Volume: volume.ID, Codec: vault.CodecRaw, RawLen: len(raw), Payload: raw, Extents: changes(rnd, volume.Blocks())}
		if err := e.Append(f); err != nil {
			return nil, err
		}
		p := drs.RecoveryPoint{ID: drs.NewRecoverySnapshotID(), SourceServer: server, Taken: clock, Expected: clock, Consistency: drs.CrashConsistent}
		if _, err := e.Commit(ctx, &p); err != nil {
			return nil, err
		}
		payload += int64(len(raw))
		for more := at%time.Minute == 0; more; {
			report, err := v.Maintain(ctx, server, retention.Default(), clock)
			if err != nil {
				return nil, err
			}
			more = report.More
		}
	}
	points, err := v.Points(ctx, server)
	if err != nil {
		return nil, err
	}
	return []measurement{{
		Name: "write amplification of a steady day, folded to the default policy", Unit: "x",
		Ours: float64(store.bytes.Load()-before) / float64(payload), Reach: 3,
		Note: fmt.Sprintf("%d MiB of changes; %d points are left of %d", payload/mib, len(points), int((dayWarm+dayCount)/daySpace)),
	}}, nil
}

// changes picks blocks without repetition.
func changes(rnd *rand.Rand, blocks uint64) []vault.Extent {
	picked := map[uint64]bool{}
	out := make([]vault.Extent, 0, dayBlocks)
	for len(out) < dayBlocks {
		block := rnd.Uint64N(blocks)
		if rnd.IntN(5) > 0 {
			block /= 10
		}
		if !picked[block] {
			picked[block] = true
			out = append(out, vault.Extent{Block: block, Count: 1})
		}
	}
	return out
}
