package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"lifeboat/internal/drs"
	"lifeboat/internal/durable"
	"lifeboat/internal/recovery/nbd"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/branchlog"
)

// exports are the disks of all instances, as block devices on one unix socket.
// A disk's name is INSTANCE/VOLUME, which no later order of disks changes.
type exports struct {
	service *Service
	server  *nbd.Server
	// prefetches holds a token for each machine whose first reads are fetched ahead.
	prefetches chan struct{}

	mu   sync.Mutex
	live map[drs.RecoveryInstanceID]*exported // guarded by mu
}

// exported is one instance's disks: the recovery point below, a log of its own
// writes above.
type exported struct {
	image *vault.Image
	disks []exportedDisk
	users sync.WaitGroup // connections; added to under exports.mu, while live
	end   chan struct{}  // closed to hang up on them
	// stopShipping ends the shipping of what is written there, and waits; nil for drills.
	stopShipping func()
	// stopTracing ends the noting of what it reads, and waits; nil unless it is launched.
	stopTracing func()
}

type exportedDisk struct {
	volume vault.Volume
	log    *branchlog.Log
}

func newExports(s *Service) *exports {
	e := &exports{service: s, prefetches: make(chan struct{}, prefetches), live: map[drs.RecoveryInstanceID]*exported{}}
	e.server = nbd.New(nbd.Config{Open: e.find, Log: s.Log, MaxConns: 1 << 14})
	return e
}

// diskName is the export name of an instance's disk.
func diskName(id drs.RecoveryInstanceID, volume vault.VolumeID) string {
	return fmt.Sprintf("%s/%d", id, volume)
}

func (e *exports) find(_ context.Context, name string) (*nbd.Export, error) {
	id, _, _ := strings.Cut(name, "/")
	instance := drs.RecoveryInstanceID(id)
	e.mu.Lock()
	defer e.mu.Unlock()
	of, ok := e.live[instance]
	if !ok {
		return nil, nbd.ErrUnknownExport
	}
	for _, d := range of.disks {
		if diskName(instance, d.volume.ID) != name {
			continue
		}
		of.users.Add(1)
		return &nbd.Export{
			Name: name, Description: d.volume.Device, Device: d.log,
			Shared: true, End: of.end, Release: of.users.Done,
		}, nil
	}
	return nil, nbd.ErrUnknownExport
}

// open makes the instance's disks ready to be served; they may be open already.
func (e *exports) open(ctx context.Context, instance drs.RecoveryInstance) ([]exportedDisk, error) {
	e.mu.Lock()
	of, ok := e.live[instance.ID]
	e.mu.Unlock()
	if ok {
		return of.disks, nil
	}
	of, err := e.openDisks(ctx, instance)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.live[instance.ID] = of
	return of.disks, nil
}

func (e *exports) openDisks(ctx context.Context, instance drs.RecoveryInstance) (_ *exported, err error) {
	s := e.service
	key, err := s.LogKey(instance.ID)
	if err != nil {
		return nil, err
	}
	image, err := s.Vault.OpenPoint(ctx, instance.VaultServer, instance.Point)
	if err != nil {
		return nil, err
	}
	of := &exported{image: image, end: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, of.close())
		}
	}()
	// Logs are made while the instance is launched, and never again: one that is
	// missing later held what the machine wrote.
	launching := instance.State == drs.InstancePending
	if launching {
		if err := e.makeDir(instance.ID); err != nil {
			return nil, err
		}
	}
	for _, volume := range image.Volumes() {
		base, err := image.Volume(volume.ID)
		if err != nil {
			return nil, err
		}
		dir := s.diskDir(instance.ID, volume.ID)
		if launching {
			if err := branchlog.Create(dir, volume.Size, key); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
		}
		log, err := branchlog.Open(dir, key, below{base})
		if isLost(err) {
			err = &lostError{instance, volume.ID, dir, err}
		}
		if err != nil {
			return nil, err
		}
		of.disks = append(of.disks, exportedDisk{volume, log})
	}
	if launching {
		of.stopTracing = e.startTracing(image, instance)
	}
	if !instance.Drill {
		if of.stopShipping, err = s.startShipping(instance, of.disks); err != nil {
			return nil, err
		}
	}
	return of, nil
}

// diskDir is the directory of the log of an instance's disk.
func (s *Service) diskDir(id drs.RecoveryInstanceID, volume vault.VolumeID) string {
	return filepath.Join(s.dir(id), fmt.Sprintf("disk-%d", volume))
}

// makeDir makes an instance's directory, durably.
func (e *exports) makeDir(id drs.RecoveryInstanceID) error {
	dir := e.service.dir(id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of %s: %w", id, err)
	}
	if err := (durable.Files{}).SyncDir("instance directory", filepath.Dir(dir)); err != nil {
		return fmt.Errorf("make the directory of %s: %w", id, err)
	}
	return nil
}

// below is a volume of a recovery point as the base of a log: it tells where there
// is no data, so that nobody reads holes.
type below struct{ *vault.VolumeReader }

// Extents implements branchlog.Mapper.
func (b below) Extents(ctx context.Context, off, n int64, yield func(length int64, hole bool) bool) error {
	spans, err := b.VolumeReader.Extents(ctx, off, n)
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

// cacheMost bounds what one hint loads, in bytes: the cache holds little more.
const cacheMost = 16 << 20

// Cache implements branchlog.Cacher: it reads what holds data, which leaves the
// frames in the vault's cache.
func (b below) Cache(ctx context.Context, off, n int64) error {
	scratch := make([]byte, min(n, 256<<10))
	n = min(n, cacheMost)
	return b.Extents(ctx, off, n, func(length int64, hole bool) bool {
		for end := off + length; off < end && !hole && ctx.Err() == nil; {
			k, err := b.ReadAt(scratch[:min(end-off, int64(len(scratch)))], off)
			if err != nil || k == 0 {
				return false // the read itself will meet it and say so
			}
			off += int64(k)
		}
		if hole {
			off += length
		}
		return ctx.Err() == nil
	})
}

var (
	_ branchlog.Mapper = below{}
	_ branchlog.Cacher = below{}
)

// reopen opens the disks of every instance that lives, after a restart. One that
// cannot be opened is told of and does not keep the others from theirs.
func (e *exports) reopen(ctx context.Context) error {
	instances, err := e.service.DB.AllInstances(ctx)
	if err != nil {
		return err
	}
	for _, i := range instances {
		if i.State == drs.InstanceShuttingDown || i.State == drs.InstancePending {
			continue // its job opens them
		}
		if _, err := e.open(ctx, i); err != nil {
			e.service.Log.Error("disks of an instance cannot be served; its machine waits for them", "instance", i.ID, "err", err)
		}
	}
	return nil
}

// close ends the service of one instance's disks. Its machine is gone by then;
// whoever else is connected is hung up on.
func (e *exports) close(id drs.RecoveryInstanceID) error {
	e.mu.Lock()
	of, ok := e.live[id]
	delete(e.live, id)
	e.mu.Unlock()
	if !ok {
		return nil
	}
	return of.close()
}

func (of *exported) close() error {
	close(of.end)
	of.users.Wait()
	if of.stopShipping != nil {
		of.stopShipping()
	}
	if of.stopTracing != nil {
		of.stopTracing()
	}
	var errs []error
	for _, d := range of.disks {
		errs = append(errs, d.log.Close())
	}
	return errors.Join(append(errs, of.image.Close())...)
}

// serve answers on the socket until ctx ends, then writes everything out and
// closes all disks. Machines that still run wait for the next serve.
func (e *exports) serve(ctx context.Context, listener net.Listener) error {
	err := e.server.Serve(ctx, listener)
	e.mu.Lock()
	defer e.mu.Unlock()
	errs := []error{err}
	for _, of := range e.live {
		errs = append(errs, of.close())
	}
	clear(e.live)
	return errors.Join(errs...)
}
