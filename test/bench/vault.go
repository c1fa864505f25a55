package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/klauspost/compress/s2"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
)

// ledger is a vault in a directory, without a server around it.
type ledger struct {
	dir    string
	store  *blob.Dir
	keys   *vault.KeyFile
	vault  *vault.Vault
	server drs.SourceServerID
}

func newLedger(ctx context.Context, dir string) (l *ledger, err error) {
	l = &ledger{dir: dir, server: drs.NewSourceServerID()}
	if l.keys, err = vault.CreateKeyFile(filepath.Join(dir, "master.key")); err != nil {
		return nil, err
	}
	if l.store, err = blob.CreateDir(filepath.Join(dir, "vault")); err != nil {
		return nil, err
	}
	if l.vault, err = vault.Create(ctx, l.store, l.keys, vault.Options{}); err != nil {
		return nil, errors.Join(err, l.store.Close())
	}
	if err := l.vault.CreateServer(ctx, l.server); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

// reopen forgets everything that the process knew of the vault.
func (l *ledger) reopen(ctx context.Context) (err error) {
	if err := l.close(); err != nil {
		return err
	}
	if l.store, err = blob.OpenDir(filepath.Join(l.dir, "vault")); err != nil {
		return err
	}
	l.vault, err = vault.Open(ctx, l.store, l.keys, vault.Options{})
	return err
}

func (l *ledger) close() error { return errors.Join(l.vault.Close(), l.store.Close()) }

func (l *ledger) commit(ctx context.Context, e *vault.Epoch) (drs.RecoverySnapshotID, error) {
	now := time.Now()
	p := drs.RecoveryPoint{ID: drs.NewRecoverySnapshotID(), SourceServer: l.server, Taken: now, Expected: now, Consistency: drs.CrashConsistent}
	_, err := e.Commit(ctx, &p)
	return p.ID, err
}

// fill writes all of the volume, sequentially: 64 KiB that compress to almost
// nothing over and over, so that a disk of any size fits here.
func (l *ledger) fill(ctx context.Context, w *vault.Writer, volume vault.Volume) error {
	e, err := w.Begin(ctx, []vault.Volume{volume})
	if err != nil {
		return err
	}
	raw := make([]byte, vault.ChunkSize)
	raw[0] = 1
	f := vault.Frame{Volume: volume.ID, Codec: vault.CodecS2, RawLen: len(raw), Payload: s2.Encode(nil, raw), Extents: make([]vault.Extent, 1)}
	for i := range volume.Chunks() {
		if i%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		f.Extents[0] = vault.Extent{Block: i * vault.FrameBlocks, Count: vault.FrameBlocks}
		if err := e.Append(f); err != nil {
			return err
		}
	}
	_, err = l.commit(ctx, e)
	return err
}

// vaultRow measures what the vault does by itself: commits of small epochs on
// disks of two sizes, the opening of a point in the end, and branches of it.
func vaultRow(ctx context.Context, b *bench) (measures []measurement, err error) {
	dir, remove, err := b.place("vault")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	for _, size := range []struct {
		name  string
		bytes int64
	}{{"1 GiB", gib}, {"1 TiB", 1 << 40}} {
		place := filepath.Join(dir, size.name)
		if err := os.Mkdir(place, 0o700); err != nil {
			return nil, err
		}
		l, err := newLedger(ctx, place)
		if err != nil {
			return nil, err
		}
		m, point, err := l.commits(ctx, size.name, size.bytes)
		if err == nil && size.bytes == 1<<40 {
			var more []measurement
			more, err = l.opening(ctx, point)
			m = append(m, more...)
			if err == nil {
				more, err = l.branches(ctx, point)
				m = append(m, more...)
			}
		}
		if err = errors.Join(err, l.close()); err != nil {
			return measures, err
		}
		measures = append(measures, m...)
	}
	return measures, nil
}

const epochs = 10_000

// commits makes 10,000 recovery points of four changed blocks each and returns
// the last of them.
func (l *ledger) commits(ctx context.Context, name string, size int64) (m []measurement, last drs.RecoverySnapshotID, err error) {
	w, err := l.vault.Writer(ctx, l.server, vault.MainBranch)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	volume := vault.Volume{ID: 0, Device: "/dev/vda", Size: size}
	if err := l.fill(ctx, w, volume); err != nil {
		return nil, "", err
	}
	rnd := rand.New(rand.NewChaCha8([32]byte{'e', 'p', 'o', 'c', 'h'})) //nolint:gosec // the same changes every time
	block := make([]byte, vault.BlockSize)
	took := make([]float64, 0, epochs)
	for range epochs {
		for i := range block {
			block[i] = byte(rnd.Uint32())
		}
		began := time.Now()
		e, err := w.Begin(ctx, []vault.Volume{volume})
		if err != nil {
			return nil, "", err
		}
		for range 4 {
			f := vault.Frame{
				Volume: volume.ID, Codec: vault.CodecRaw, RawLen: len(block), Payload: block,
				Extents: []vault.Extent{{Block: rnd.Uint64N(volume.Blocks()), Count: 1}},
			}
			if err := e.Append(f); err != nil {
				return nil, "", err
			}
		}
		if last, err = l.commit(ctx, e); err != nil {
			return nil, "", err
		}
		took = append(took, 1000*time.Since(began).Seconds())
	}
	const window = 1000
	for _, part := range []struct {
		name string
		took []float64
	}{{"from 10 points on", took[10 : 10+window]}, {"up to 10,000 points", took[epochs-window:]}} {
		m = append(m, measurement{
			Name: "commit of a small epoch, p99, disk of " + name + ", " + part.name, Unit: "ms", Ours: percentile(part.took, 99), Reach: 20,
			Note: fmt.Sprintf("median %.2f ms, of %d", median(part.took), window),
		})
	}
	return m, last, nil
}

// opening opens the last of the points with nothing in memory, and weighs it.
func (l *ledger) opening(ctx context.Context, point drs.RecoverySnapshotID) ([]measurement, error) {
	const runs = 3
	var took, weight []float64
	for range runs {
		if err := errors.Join(l.reopen(ctx), cold(l.dir)); err != nil {
			return nil, err
		}
		before := heap()
		began := time.Now()
		image, err := l.vault.OpenPoint(ctx, l.server, point)
		if err != nil {
			return nil, err
		}
		took = append(took, 1000*time.Since(began).Seconds())
		weight = append(weight, heap()-before)
		if err := image.Close(); err != nil {
			return nil, err
		}
	}
	note := "10,000 epochs above a sequential fill in segments of 256 MiB"
	return []measurement{
		{Name: "opening a point of 1 TiB with 10,000 epochs, cold", Unit: "ms", Ours: median(took), Runs: runs, Reach: 300, Note: note},
		{Name: "memory of that open point", Unit: "MiB", Ours: median(weight), Runs: runs, Reach: 64, Note: note},
	}, nil
}

// branches forks the point a thousand times.
func (l *ledger) branches(ctx context.Context, point drs.RecoverySnapshotID) ([]measurement, error) {
	const count = 1000
	before, err := stored(l.dir)
	if err != nil {
		return nil, err
	}
	took, err := timed(func() error {
		for range count {
			if err := l.vault.Fork(ctx, l.server, point, string(drs.NewRecoveryInstanceID())); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	after, err := stored(l.dir)
	if err != nil {
		return nil, err
	}
	return []measurement{
		{Name: "1,000 branches of one point, each", Unit: "ms", Ours: 1000 * took / count},
		{Name: "1,000 branches of one point of 1 TiB, stored for each", Unit: "KiB", Ours: float64(after-before) / count / 1024, Reach: 16},
	}, nil
}

func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / mib
}

// stored is how many bytes the files below a directory have.
func stored(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	return n, err
}
