// Package qemu runs recovery machines in QEMU processes on this host.
//
// A machine is a process of its own that survives this one: kill the server in
// any way and the guests go on; the next server finds them by the locks they
// hold. What a machine needs lies in one directory, Config.Dir/<instance ID>.
// Nothing here writes a disk: disks are network block devices of somebody else,
// and a machine waits machine.ReconnectDelay for one that went away.
//
// A service manager must therefore end the server's main process alone (systemd:
// KillMode=process), or its machines end with it.
package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/machine"
)

// Config of a Driver.
type Config struct {
	// Dir holds a directory for each machine. It is made when missing.
	Dir string
	// Program is the emulator; empty means qemu-system-x86_64 from the PATH.
	Program string
	// Emulate forgoes hardware virtualization without trying it.
	Emulate bool
	// StartTimeout bounds the time QEMU may take until it answers, disks attached.
	// Zero means 30 s.
	StartTimeout time.Duration
	// ResumeEvery is how often a guest that was halted because its disk had no
	// space is let go to try again. Zero means 5 s.
	ResumeEvery time.Duration
	// OnChange is told of every state a machine enters, one call at a time for one
	// machine. It must return soon and must not call Stop, Start or Destroy itself.
	OnChange func(machine.Change)
	Log      *slog.Logger
}

// Driver implements machine.Driver.
type Driver struct {
	cfg  Config
	stop context.CancelFunc
	ctx  context.Context //nolint:containedctx // the driver's own life, from New to Close
	work sync.WaitGroup  // the probe and the watchers

	probed chan struct{} // closed when accel is set for the first time
	accel  atomic.Pointer[accelerator]

	mu        sync.Mutex
	instances map[drs.RecoveryInstanceID]*instance // one for each ID ever asked about
}

var _ machine.Driver = (*Driver)(nil)

// instance is what this process knows of one machine.
type instance struct {
	id  drs.RecoveryInstanceID
	dir machineDir
	op  chan struct{} // holds a token while somebody changes the machine

	mu     sync.Mutex
	live   *live          // set while a process is attached
	status machine.Status // zero State: not looked yet
}

// New returns a driver and begins to find out what can execute guests. Machines
// of an earlier process are found by Attach or by the first call for their ID.
func New(cfg Config) (*Driver, error) {
	cfg.Program = cmp.Or(cfg.Program, "qemu-system-x86_64")
	cfg.StartTimeout = cmp.Or(cfg.StartTimeout, 30*time.Second)
	cfg.ResumeEvery = cmp.Or(cfg.ResumeEvery, 5*time.Second)
	if cfg.OnChange == nil {
		cfg.OnChange = func(machine.Change) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("machine directory: %w", err)
	}
	cfg.Dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("machine directory: %w", err)
	}
	d := &Driver{cfg: cfg, probed: make(chan struct{}), instances: map[drs.RecoveryInstanceID]*instance{}}
	d.ctx, d.stop = context.WithCancel(context.Background())
	d.work.Go(d.findAccelerator)
	return d, nil
}

// Close lets go of all machines, which run on, and waits for the driver's own
// work to end. No other method may run then or be called afterwards.
func (d *Driver) Close() error {
	d.stop()
	d.work.Wait()
	return nil
}

// Attach looks at every machine that has a directory here, takes up watching
// those that run, and returns how each stands. Errors of single machines are
// joined; the others are still returned.
func (d *Driver) Attach(ctx context.Context) ([]machine.Status, error) {
	entries, err := os.ReadDir(d.cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("list machines: %w", err)
	}
	var all []machine.Status
	var failed []error
	for _, e := range entries {
		id, ok := idOf(e.Name())
		if !ok || !e.IsDir() {
			continue
		}
		s, err := d.State(ctx, id)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if s.State != machine.Absent {
			all = append(all, s)
		}
	}
	return all, errors.Join(failed...)
}

// State tells how a machine stands, without asking QEMU once it is attached.
func (d *Driver) State(ctx context.Context, id drs.RecoveryInstanceID) (machine.Status, error) {
	in, err := d.instance(id)
	if err != nil {
		return machine.Status{}, err
	}
	if s := in.current(); s.State != "" {
		return s, nil
	}
	if err := in.lock(ctx); err != nil {
		return machine.Status{}, fmt.Errorf("state of %s: %w", id, err)
	}
	defer in.unlock()
	if _, err := d.attach(ctx, in); err != nil {
		return machine.Status{}, fmt.Errorf("state of %s: %w", id, err)
	}
	return in.current(), nil
}

// ConsolePath names the file with the serial console's output.
func (d *Driver) ConsolePath(id drs.RecoveryInstanceID) string {
	return d.dir(id).path(consoleFile)
}

// Accelerator names what executes guests, kvm or tcg, with a sentence when it is
// not the fast one. It waits for the probe, a few seconds at most.
func (d *Driver) Accelerator(ctx context.Context) (name, note string, err error) {
	a, err := d.accelerator(ctx)
	return a.name, a.note, err
}

func (d *Driver) accelerator(ctx context.Context) (accelerator, error) {
	select {
	case <-d.probed:
		return *d.accel.Load(), nil
	case <-ctx.Done():
		return accelerator{}, ctx.Err()
	}
}

func (d *Driver) dir(id drs.RecoveryInstanceID) machineDir {
	return machineDir(filepath.Join(d.cfg.Dir, string(id)))
}

func (d *Driver) instance(id drs.RecoveryInstanceID) (*instance, error) {
	if _, err := drs.ParseRecoveryInstanceID(string(id)); err != nil {
		return nil, err // the ID becomes a file name: nothing else may pass
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	in, ok := d.instances[id]
	if !ok {
		in = &instance{id: id, dir: d.dir(id), op: make(chan struct{}, 1)}
		in.status.ID = id
		d.instances[id] = in
	}
	return in, nil
}

// lock waits for the right to change the machine.
func (in *instance) lock(ctx context.Context) error {
	select {
	case in.op <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (in *instance) unlock() { <-in.op }

func (in *instance) current() machine.Status {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.status
}

func (in *instance) attached() *live {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.live
}

// enter sets the machine's state and reports it if it is news.
func (d *Driver) enter(in *instance, state machine.State, reason string) {
	in.mu.Lock()
	before := in.status
	in.status.State, in.status.Reason = state, reason
	now := in.status
	in.mu.Unlock()
	if before == now {
		return
	}
	d.cfg.Log.Info("machine state", "instance", in.id, "state", state, "reason", reason)
	d.cfg.OnChange(machine.Change{Status: now, At: time.Now()})
}

// atRest works out the state of a machine without a process. QEMU removes its pid
// file when it ends in order, so one left behind tells of a sudden end.
func (d machineDir) atRest() (machine.State, string, error) {
	if _, err := os.Lstat(string(d)); errors.Is(err, fs.ErrNotExist) {
		return machine.Absent, "", nil
	} else if err != nil {
		return "", "", err
	}
	switch {
	case d.has(pidFile):
		return machine.Failed, "the machine's process ended without a power-off: it was killed, or the host went down", nil
	case d.has(recordFile):
		return machine.Stopped, "the machine is powered off", nil
	case d.has(lockFile):
		return machine.Stopped, "the machine was not started to the end", nil
	}
	return machine.Absent, "", nil
}
