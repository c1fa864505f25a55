package ingest_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/ingest"
	"lifeboat/internal/vault"
)

// faultVault stands between the server and the real vault.
type faultVault struct {
	ingest.Vault
	frames atomic.Int64 // appended
	packed atomic.Int64 // bytes of those, packed
	blocks atomic.Int64 // and before
	zeros  atomic.Int64
	asked  atomic.Int64 // digests
	// The hooks, when set, decide what an operation returns; do performs it.
	mu     sync.Mutex
	append func(do func() error) error
	commit func(do func() error) error
}

func (f *faultVault) set(append, commit func(do func() error) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.append, f.commit = append, commit
}

func through(hook func(do func() error) error, do func() error) error {
	if hook == nil {
		return do()
	}
	return hook(do)
}

func (f *faultVault) OpenBranch(ctx context.Context, server drs.SourceServerID) (ingest.Branch, error) {
	b, err := f.Vault.OpenBranch(ctx, server)
	if err != nil {
		return nil, err
	}
	return &faultBranch{b, f}, nil
}

type faultBranch struct {
	ingest.Branch
	f *faultVault
}

func (b *faultBranch) Begin(ctx context.Context, v []vault.Volume) (ingest.Epoch, error) {
	e, err := b.Branch.Begin(ctx, v)
	if err != nil {
		return nil, err
	}
	return &faultEpoch{e, b.f}, nil
}

func (b *faultBranch) Digests(ctx context.Context, v vault.VolumeID, first uint64, n int) ([][16]byte, error) {
	b.f.asked.Add(int64(n))
	return b.Branch.Digests(ctx, v, first, n)
}

type faultEpoch struct {
	ingest.Epoch
	f *faultVault
}

func (e *faultEpoch) Append(frame vault.Frame) error {
	e.f.mu.Lock()
	hook := e.f.append
	e.f.mu.Unlock()
	e.f.frames.Add(1)
	e.f.packed.Add(int64(len(frame.Payload)))
	e.f.blocks.Add(int64(frame.RawLen) / vault.BlockSize)
	return through(hook, func() error { return e.Epoch.Append(frame) })
}

func (e *faultEpoch) Zero(v vault.VolumeID, block uint64, count uint32) error {
	e.f.zeros.Add(1)
	return e.Epoch.Zero(v, block, count)
}

func (e *faultEpoch) Commit(ctx context.Context, p *drs.RecoveryPoint) (head vault.Head, err error) {
	e.f.mu.Lock()
	hook := e.f.commit
	e.f.mu.Unlock()
	err = through(hook, func() error { head, err = e.Epoch.Commit(ctx, p); return err })
	return head, err
}

func faulty(f *faultVault) func(ingest.Vault) ingest.Vault {
	return func(v ingest.Vault) ingest.Vault { f.Vault = v; return f }
}

var errFull error = &os.PathError{Op: "write", Path: "segment", Err: syscall.ENOSPC}

func refuseAll(func() error) error { return errFull }

// A full vault refuses epochs; when there is room again, replication goes on by
// itself, and nothing that was acknowledged is lost.
func TestFullVault(t *testing.T) {
	t.Parallel()
	rng := seed(t)
	f := &faultVault{}
	r := newRig(t, faulty(f))
	disk := image(t, 16<<20, rng)
	a := runAgent(r.config(t.TempDir(), disk))
	defer a.stop(t)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()

	for name, at := range map[string]int{"append": 0, "commit": 1} {
		t.Run(name, func(t *testing.T) {
			if at == 0 {
				f.set(refuseAll, nil)
			} else {
				f.set(nil, refuseAll)
			}
			write(t, disk, []byte("while full at "+name), 1<<20)
			r.catalog.await(t, "BACKLOG with its cause", func() bool {
				info := r.catalog.info[server]
				return info.State == drs.ReplicationBacklog && info.Error != nil && info.Error.Code == drs.SnapshotsFailure
			})
			if !r.server.Connected(server) {
				t.Error("the session ended for a trouble that passes")
			}
			f.set(nil, nil)
			r.catalog.await(t, "CONTINUOUS without error", func() bool {
				info := r.catalog.info[server]
				return info.State == drs.ReplicationContinuous && info.Error == nil
			})
			wantContent(t, r.vault, r.takePoint(server), disk)
		})
	}
}

// A vault that is full from the start: the initial sync begins again and again,
// and ends well.
func TestFullVaultAtInitialSync(t *testing.T) {
	t.Parallel()
	f := &faultVault{}
	var refusals atomic.Int64
	f.set(func(do func() error) error {
		if f.frames.Load()%7 == 6 && refusals.Add(1) < 4 {
			return errFull
		}
		return do()
	}, nil)
	r := newRig(t, faulty(f))
	disk := image(t, 16<<20, seed(t))
	a := runAgent(r.config(t.TempDir(), disk))
	defer a.stop(t)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	wantContent(t, r.vault, r.catalog.points[r.only()][0], disk)
	if refusals.Load() < 3 {
		t.Errorf("only %d refusals met", refusals.Load())
	}
}

// The commit is stored, but the server thinks it failed: agent and server find
// out, and agree.
func TestCommitStoredButErrored(t *testing.T) {
	t.Parallel()
	f := &faultVault{}
	r := newRig(t, faulty(f))
	disk := image(t, 16<<20, seed(t))
	a := runAgent(r.config(t.TempDir(), disk))
	defer a.stop(t)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	var once atomic.Bool
	f.set(nil, func(do func() error) error {
		err := do()
		if err == nil && once.CompareAndSwap(false, true) {
			return errors.New("connection to the store broke after the write")
		}
		return err
	})
	write(t, disk, []byte("stored but errored"), 5<<20)
	r.catalog.await(t, "another point", func() bool { return len(r.catalog.points[server]) >= 2 })
	wantContent(t, r.vault, r.takePoint(server), disk)
	if !once.Load() {
		t.Error("the fault was not met")
	}
}

// A vault that does not keep up holds back the agent: no more waits in memory
// than the credit allows, and the session stays alive.
func TestSlowVaultHoldsBackTheAgent(t *testing.T) {
	f := &faultVault{}
	r := newRig(t, faulty(f))
	blocked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	f.set(func(do func() error) error {
		once.Do(func() { close(blocked) })
		<-release
		return do()
	}, nil)
	disk := image(t, 16<<20, seed(t))
	big := make([]byte, 14<<20) // incompressible, and more than the credit of 8 MiB
	seeded(t, 3).Read(big)
	write(t, disk, big, 0)
	a := runAgent(r.config(t.TempDir(), disk))
	defer a.stop(t)
	<-blocked
	// All of the credit comes, and then nothing more however long one waits.
	credit := int64(8 << 20)
	sent := r.proxy.awaitStill(t)
	if sent > credit+credit/4 {
		t.Errorf("%d bytes came for a credit of %d", sent, credit)
	}
	if sent < credit/2 {
		t.Errorf("only %d bytes came for a credit of %d", sent, credit)
	}
	close(release)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	wantContent(t, r.vault, r.catalog.points[r.only()][0], disk)
}

// A restarted agent sends what differs from the vault, and nothing else.
func TestResumeSendsOnlyWhatDiffers(t *testing.T) {
	t.Parallel()
	f := &faultVault{}
	r := newRig(t, faulty(f))
	disk := image(t, 32<<20, seed(t))
	cfg := r.config(t.TempDir(), disk)
	a := runAgent(cfg)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	a.stop(t)

	f.frames.Store(0)
	write(t, disk, []byte("one chunk"), 3<<20)
	write(t, disk, []byte("another"), 31<<20)
	write(t, disk, make([]byte, 128<<10), 32<<20/3/65536*65536+65536) // zeros over data
	a = runAgent(cfg)
	defer a.stop(t)
	wantContent(t, r.vault, r.takePoint(server), disk)
	if n := f.frames.Load(); n != 2 {
		t.Errorf("%d frames for 2 changed chunks", n)
	}
	if n := f.zeros.Load(); n == 0 {
		t.Error("zeros over data were not sent as zeros")
	}

	// A restarted server, and an agent that lives on: nothing at all.
	f.frames.Store(0)
	r.stop()
	r.start()
	wantContent(t, r.vault, r.takePoint(server), disk)
	if n := f.frames.Load(); n != 0 {
		t.Errorf("%d frames for nothing changed", n)
	}
}

// Progress of an initial sync that breaks is kept.
func TestBrokenInitialSyncGoesOn(t *testing.T) {
	t.Parallel()
	f := &faultVault{}
	r := newRig(t, faulty(f))
	disk := image(t, 400<<20, seed(t))
	part := make([]byte, 300<<20)
	for i := 0; i < len(part); i += 512 {
		part[i], part[i+1], part[i+2] = byte(i>>9), byte(i>>17), 1
	}
	write(t, disk, part, 0)
	progressed := make(chan struct{})
	var once sync.Once
	var kept int64
	f.set(nil, func(do func() error) error {
		err := do()
		once.Do(func() { kept = f.frames.Load(); close(progressed) })
		return err
	})
	a := runAgent(r.config(t.TempDir(), disk))
	defer a.stop(t)
	<-progressed // 256 MiB, or what was sent in 5 s, are durable
	r.proxy.cut()
	before := f.frames.Load()
	r.proxy.mend()
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	wantContent(t, r.vault, r.catalog.points[r.only()][0], disk)
	// What was queued at the break still counts as sent after it.
	all, queue := int64(400<<20/65536), int64(512)
	if resent := f.frames.Load() - before; kept == 0 || resent > all-kept+queue {
		t.Errorf("%d of %d chunks were sent after the break, though %d were durable", resent, all, kept)
	}
}

// The same with a file system that is really full.
func TestFullFileSystem(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=32m"); err != nil {
		t.Skipf("no mount here: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	r := newRigIn(t, dir, nil)
	disk := image(t, 64<<20, seed(t))
	a := runAgent(r.config(t.TempDir(), disk))
	defer a.stop(t)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	before := content(t, r.vault, server, r.catalog.points[server][0].ID, 0)

	ballast, err := os.Create(dir + "/ballast")
	if err != nil {
		t.Fatal(err)
	}
	defer ballast.Close()
	for _, err = ballast.Write(make([]byte, 1<<20)); err == nil; _, err = ballast.Write(make([]byte, 1<<20)) {
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	random := make([]byte, 3<<20)
	seeded(t, 5).Read(random)
	write(t, disk, random, 30<<20)
	r.catalog.await(t, "the vault is full", func() bool {
		info := r.catalog.info[server]
		return info.State == drs.ReplicationBacklog && info.Error != nil && strings.Contains(info.Error.Raw, "the vault is full. Next: ")
	})
	if err := ballast.Truncate(0); err != nil {
		t.Fatal(err)
	}
	r.catalog.await(t, "CONTINUOUS without error", func() bool {
		info := r.catalog.info[server]
		return info.State == drs.ReplicationContinuous && info.Error == nil
	})
	wantContent(t, r.vault, r.takePoint(server), disk)
	if got := content(t, r.vault, server, r.catalog.points[server][0].ID, 0); string(got) != string(before) {
		t.Error("the first point changed")
	}
}
