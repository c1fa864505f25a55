package export

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/nbd"
)

// BlockName is the name of a disk of a recovery point as a block device.
func BlockName(server drs.SourceServerID, point drs.RecoverySnapshotID, disk int) string {
	return fmt.Sprintf("%s/%s/%d", server, point, disk)
}

// Blocks finds the disks of recovery points for an NBD server, read-only, under
// their BlockName. reader tells from the context of a connection whose account it
// belongs to: of all others, nothing is said to exist. Connections to one name
// share one opened point.
func Blocks(open OpenDisk, servers Servers, reader func(context.Context) (drs.Account, error), log *slog.Logger) func(context.Context, string) (*nbd.Export, error) {
	b := &blocks{handler: handler{open: open, servers: servers, log: log}, reader: reader, shared: map[string]*sharedDisk{}}
	return b.find
}

type blocks struct {
	handler handler
	reader  func(context.Context) (drs.Account, error)

	mu     sync.Mutex
	shared map[string]*sharedDisk // by account and name; guarded by mu
}

// sharedDisk is a disk that connections use.
type sharedDisk struct {
	ready chan struct{} // closed when disk or err is there
	disk  Disk
	err   error
	users int // guarded by blocks.mu
}

func (b *blocks) find(ctx context.Context, name string) (*nbd.Export, error) {
	account, err := b.reader(ctx)
	if err != nil {
		return nil, err
	}
	want, ok := parseBlockName(name)
	if !ok {
		return nil, nbd.ErrUnknownExport
	}
	// The account may have lost the server since another connection opened it.
	if _, err := b.handler.servers.SourceServer(ctx, account, want.server); err != nil {
		return nil, unknown(err)
	}
	key := account.ID + "/" + name
	d := b.use(ctx, key, account, want)
	select {
	case <-d.ready:
	case <-ctx.Done():
		b.leave(key, d)
		return nil, ctx.Err()
	}
	if d.err != nil {
		b.leave(key, d)
		return nil, unknown(d.err)
	}
	again := func() error { _, err := b.reader(ctx); return err }
	return &nbd.Export{
		Name: name, Description: "disk " + strconv.Itoa(want.disk) + " of " + string(want.server) + " as of " + string(want.point),
		Device: &watched{blockDevice: blockDevice{d.disk}, may: again, asked: time.Now()}, ReadOnly: true, Shared: true, Release: func() { b.leave(key, d) },
	}, nil
}

// unknown tells what does not exist from what cannot be opened now.
func unknown(err error) error {
	var refusal *drs.Error
	if errors.As(err, &refusal) && refusal.Kind == drs.KindNotFound || errors.Is(err, db.ErrAbsent) {
		return fmt.Errorf("%w: %w", nbd.ErrUnknownExport, err)
	}
	return err
}

// use returns the opened disk with one more user, who must leave it. Whoever
// comes first opens it, for all: its context does not end with the first one's.
func (b *blocks) use(ctx context.Context, key string, account drs.Account, want target) *sharedDisk {
	b.mu.Lock()
	d := b.shared[key]
	if d != nil {
		d.users++
		b.mu.Unlock()
		return d
	}
	d = &sharedDisk{ready: make(chan struct{}), users: 1}
	b.shared[key] = d
	b.mu.Unlock()
	d.disk, d.err = b.handler.find(context.WithoutCancel(ctx), account, want)
	close(d.ready)
	return d
}

// leave gives a disk back, and closes it with its last user.
func (b *blocks) leave(key string, d *sharedDisk) {
	b.mu.Lock()
	d.users--
	last := d.users == 0
	if last || d.err != nil {
		if b.shared[key] == d {
			delete(b.shared, key)
		}
	}
	b.mu.Unlock()
	if last && d.disk != nil {
		if err := d.disk.Close(); err != nil {
			b.handler.log.Warn("served disk was not closed", "name", key, "err", err)
		}
	}
}

func parseBlockName(name string) (t target, ok bool) {
	parts := strings.Split(name, "/")
	if len(parts) != 3 {
		return t, false
	}
	var errs [3]error
	t.server, errs[0] = drs.ParseSourceServerID(parts[0])
	t.point, errs[1] = drs.ParseRecoverySnapshotID(parts[1])
	t.disk, errs[2] = strconv.Atoi(parts[2])
	return t, errors.Join(errs[:]...) == nil && t.disk >= 0 && parts[2] == strconv.Itoa(t.disk)
}

// recheckEvery is for how long a connection is not asked again whether it may read.
const recheckEvery = 5 * time.Second

// watched is a disk whose reader must go on being allowed to read. Once it is not,
// nothing is read any more.
type watched struct {
	blockDevice
	may func() error

	mu    sync.Mutex
	asked time.Time
	err   error // guarded by mu, as is asked
}

func (d *watched) still() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); d.err == nil && now.Sub(d.asked) >= recheckEvery {
		if err := d.may(); err != nil {
			d.err = fmt.Errorf("%w: %w", syscall.EPERM, err)
		}
		d.asked = now
	}
	return d.err
}

// ReadAt implements io.ReaderAt.
func (d *watched) ReadAt(p []byte, off int64) (int, error) {
	if err := d.still(); err != nil {
		return 0, err
	}
	return d.blockDevice.ReadAt(p, off)
}

// blockDevice is a disk that tells where it has no data.
type blockDevice struct{ Disk }

// Extents implements nbd.Mapper.
func (d blockDevice) Extents(ctx context.Context, off, n int64, yield func(length int64, hole bool) bool) error {
	spans, err := d.Disk.Extents(ctx, off, n)
	if err != nil {
		return err
	}
	for _, s := range spans {
		if !yield(s.Length, s.Hole) {
			return nil
		}
	}
	return nil
}

var (
	_ nbd.Device = blockDevice{}
	_ nbd.Mapper = &watched{}
)
