package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/replication"
	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/source/blocktrack/qemu"
	"lifeboat/internal/source/inventory"
)

// Config is what an agent is started with.
type Config struct {
	Server string // https URL of the API
	CAFile string // PEM of the authority that the server's certificate is signed by
	Token  string // install token; not needed once State holds an identity
	// TokenFile holds the install token where Token is empty. It is removed once the
	// agent is registered.
	TokenFile string
	State     string // directory of the agent's identity; made when absent
	// Disks are block devices and disk image files. None, or AllDisks: those of the
	// start before; else all of this machine, and new ones as they come. Of a Machine
	// they are its names for them.
	Disks []string
	// WholeDisks lists the disks of this machine, the one it boots from first; nil: as
	// the kernel tells.
	WholeDisks func() ([]string, error)

	// Tracker is ebpf, scan, qemu for a Machine, or auto for the first that works here;
	// empty: auto.
	Tracker string
	// Machine is protected from outside: the agent does not run on it. Without Disks
	// all that it can write to are replicated.
	Machine   Machine
	Overrides inventory.Overrides
	// BootMode reads the boot mode off the first disk of an image-file source.
	// nil, or BootUnknown from it, leaves the mode unknown.
	BootMode func(disk io.ReaderAt, size int64) drs.BootMode

	// AuditIn is the time in which all disks are read once while they are at rest, to
	// find out a tracker that missed a write; 0: 30 days, less: they are not.
	AuditIn time.Duration

	// Pins is a directory of a BPF filesystem, ebpf.Filesystem or below it. What is
	// pinned there lets the kernel go on tracking while no agent runs, until the next
	// reboot or RemovePins, so that a restart does not read all disks. Empty: tracking
	// ends with the agent.
	Pins string

	// FreezeBound is the longest that filesystems are frozen for a cut; 0: 2 s, less:
	// they never are. Guard is the command of the process that then thaws them (it
	// calls freeze.Watch); empty: nothing is frozen. Hooks is a directory with programs
	// to run before and after each freeze; empty: none.
	FreezeBound time.Duration
	Guard       []string
	Hooks       string

	// DiskGrace is how long a disk may be gone until points go on without it; 0: 10
	// minutes, less: for ever. DropMissing: disks that are gone at the start, or not named
	// any more, have left at once.
	DiskGrace   time.Duration
	DropMissing bool

	// Epoch is the wanted spacing of epochs; 0: the server's setting.
	Epoch time.Duration
	// FuzzyAfter is how long disks may go without a quiet pass before a fuzzy
	// point is sealed; 0: 30 s.
	FuzzyAfter time.Duration
	// AskStopped is how often an agent whose replication is stopped asks whether it
	// still is; 0: 10 s.
	AskStopped time.Duration
	Workers    int    // parallel readers and compressors; 0: one per CPU, at most 8
	Version    string // of the program, for the server's records

	// Status is told how the agent fares, in a line for people whose first word is
	// STARTING, CONNECTING, SCANNING, BACKLOG, CONTINUOUS, STALLED or STOPPED, by one
	// goroutine at a time. nil: nobody.
	Status func(line string)

	// Metrics is told what the agent does; nil: nobody.
	Metrics *Metrics

	// Now is the clock that certificates are judged by; nil: the system's.
	Now func() time.Time

	Logger *slog.Logger // nil: discard
}

// Machine is a machine that QEMU runs. Where its guest has an agent that can be asked,
// the filesystems are frozen for each cut, and for no longer than Config.FreezeBound.
type Machine struct {
	qemu.Address        // zero: no Machine
	Scratch      string // folder for copies of what is overwritten during a cut; empty: see qemu.Options
	// Guard is the command of the process that puts right what a killed agent leaves in
	// the machine (it calls qemu.Watch); empty: the next agent does, and nothing is frozen.
	Guard []string
}

func (m Machine) named() bool { return m.Socket != "" || m.Domain != "" }

// Defaults of Config and of the agent's pace.
const (
	defaultEpoch      = 5 * time.Second
	defaultFuzzyAfter = 30 * time.Second
	defaultAskStopped = 10 * time.Second

	// idleShare is the most of its time that an agent spends on passes while they
	// find nothing, and then with one worker; busyShare while they do.
	idleShare, busyShare = 0.1, 0.5
)

// ErrSuperseded: another agent with the same identity took over.
var ErrSuperseded = errors.New("another agent with this agent's identity replicates now: " +
	"stop one of the two; if this machine is a clone, start the agent with an empty state directory and a fresh install token")

// Run registers the agent where needed and replicates until ctx is done, which
// is success, or until it meets something that no retry will mend: a bad
// argument, a refused registration, a damaged state directory, an expired
// certificate, ErrSuperseded. Every error tells the next step.
//
// Whatever may pass is retried for ever: an unreachable or restarting server, a
// cut network, a full vault, a disk that is gone, shrunk or unreadable.
func Run(ctx context.Context, cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	lock, err := openState(cfg.State)
	if err != nil {
		return err
	}
	defer closeState(lock)

	a := &agent{cfg: cfg, log: cfg.Logger, hooks: hooks{dir: cfg.Hooks}}
	a.throttle = new(replication.Throttle)
	if err := a.openDisks(ctx); err != nil {
		return err
	}
	defer func() { a.disks.close() }() // those of then
	defer func() {
		if a.tracker != nil {
			_ = a.tracker.Close() // what it knows dies with the agent, or is pinned
		}
	}()
	cfg.Status("STARTING: taking inventory and registering")
	if err := a.identify(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // told to stop, it has no more to say
		}
		return err
	}
	if err := a.forgetToken(); err != nil {
		return err
	}
	if err := a.remember(); err != nil {
		return err
	}
	if cached := a.disks.cached(); cached != nil {
		a.log.Warn("disks refuse direct reads, and the page cache may not show what a mounted filesystem writes: all points will be fuzzy", "disks", cached)
	}
	if err := a.openTracker(); err != nil {
		return err
	}
	if err := a.openGuard(); err != nil {
		return err
	}
	defer a.closeGuard()
	defer a.sealTables()
	a.log.Info("agent ready", "server", a.id.SourceServerID, "replication", a.id.ReplicationAddress,
		"disks", a.disks.names(), "tracker", a.tracker.Name())
	err = a.replicate(ctx)
	a.leavePins(err)
	return err
}

func (a *agent) openDisks(ctx context.Context) error {
	if a.cfg.Tracker == trackerQEMU {
		return a.openOutside(ctx)
	}
	return a.arrange()
}

func (c Config) withDefaults() (Config, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics()
	}
	if c.WholeDisks == nil {
		c.WholeDisks = wholeMachine
	}
	if c.Status == nil {
		c.Status = func(string) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.AuditIn == 0 {
		c.AuditIn = defaultAuditIn
	}
	if c.FreezeBound == 0 {
		c.FreezeBound = defaultFreezeBound
	}
	if c.DiskGrace == 0 {
		c.DiskGrace = defaultDiskGrace
	}
	if c.FuzzyAfter == 0 {
		c.FuzzyAfter = defaultFuzzyAfter
	}
	if c.AskStopped == 0 {
		c.AskStopped = defaultAskStopped
	}
	if c.Workers <= 0 {
		c.Workers = min(runtime.GOMAXPROCS(0), 8)
	}
	switch {
	case c.State == "":
		return c, errors.New("no state directory: name one with --state; the agent keeps its identity there")
	case c.Tracker == trackerQEMU && !c.Machine.named():
		return c, errors.New("the tracker qemu needs a machine: name one of libvirt's with --domain; " +
			"or start it with -qmp unix:FILE,server=on,wait=off and name that file with --qmp")
	case c.Machine.Socket != "" && c.Machine.Domain != "":
		return c, errors.New("--qmp and --domain both name a machine: use --domain alone if libvirt runs it")
	case c.Machine.Agent != "" && c.Machine.Domain != "":
		return c, errors.New("--guest-agent is for --qmp: the agent in a guest of libvirt's is asked through libvirt")
	case c.Machine.Libvirt != "" && c.Machine.Domain == "":
		return c, errors.New("--libvirt names no machine: add --domain")
	case c.Machine.named() && c.Tracker != trackerQEMU && c.Tracker != trackerAuto && c.Tracker != "":
		return c, fmt.Errorf("--qmp and --domain name a machine under QEMU, and tracker %s finds no changes there: use --tracker qemu", c.Tracker)
	case c.Epoch < 0 || c.Epoch > 24*time.Hour:
		return c, fmt.Errorf("epoch spacing of %s: choose one between 100ms and 24h", c.Epoch)
	case c.Epoch > 0 && c.Epoch < 100*time.Millisecond:
		return c, fmt.Errorf("epoch spacing of %s: choose one of at least 100ms", c.Epoch)
	}
	switch c.Tracker {
	case "", trackerAuto:
		c.Tracker = trackerAuto
		if c.Machine.named() {
			c.Tracker = trackerQEMU
		}
	case trackerEBPF, trackerScan, trackerQEMU:
	default:
		return c, fmt.Errorf("tracker %q is not available in this version: use --tracker auto, ebpf, qemu or --tracker scan", c.Tracker)
	}
	return c, nil
}

// agent is what outlives a session. One goroutine at a time uses it; sessions
// follow each other.
type agent struct {
	cfg      Config
	log      *slog.Logger
	id       identity
	props    drs.SourceProperties
	disks    *diskSet
	whole    bool     // all disks of the machine are replicated, new ones as well
	fresh    []string // new disks, to be taken up before the next session
	mayLeave bool     // the server lets disks leave
	owed     bool     // a point is, though nothing was written: the newest one is of other disks
	tracker  blocktrack.Tracker
	live     blocktrack.Watcher   // the tracker, if it sees writes as they happen; else nil
	outside  outside              // the tracker, if the disks are of another machine; else nil
	todo     []blocktrack.Changes // by disk: to be read besides what the tracker names next
	throttle *replication.Throttle
	freezer  freezer
	audit    audit
	hooks    hooks
	renewal  renewal // covered by the session's mu

	ledger     ledger
	loaded     bool // the tables hold what the vault had at ledger's head
	tablesSeen bool // those of the run before were looked at
	// complete: since the tables were loaded every chunk was read at least once.
	complete bool

	pinned    pinned    // the tracker, if it outlives this process
	standing  *standing // nil: all has to be read
	adopted   bool      // the standing and the tracker are those of the agent before this one
	noted     bool      // the pinned tracker has a standing that this one followed
	unsettled bool      // there were changes since the standing was settled
}

// Reconnects begin after about a second and slow down to reconnectMost.
const (
	reconnectFirst = time.Second
	reconnectMost  = 30 * time.Second
)

func (a *agent) replicate(ctx context.Context) error {
	a.cfg.Status("CONNECTING: source server " + string(a.id.SourceServerID))
	if err := a.whereabouts(ctx); err != nil {
		return err
	}
	pause := reconnectFirst
	for {
		if err := a.id.checkExpiry(a.cfg.Now()); err != nil {
			return err
		}
		welcomed, err := a.session(ctx)
		a.cfg.Metrics.connected.Store(false)
		a.rollback()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // told to stop, it has no more to say
		}
		if errors.Is(err, errDisksChanged) {
			if err := a.rearrange(ctx); err == nil {
				pause = reconnectFirst
				continue
			} else { //nolint:revive // the error is this block's
				a.log.Warn("disks changed again", "err", err)
			}
		}
		if fatal := a.fatal(err); fatal != nil {
			return fatal
		}
		if stopped(err) {
			a.cfg.Status("STOPPED: source server " + string(a.id.SourceServerID) + ", by StopReplication; StartReplication starts it again")
			a.log.Info("replication is stopped by the server; asking again", "retry_in", a.cfg.AskStopped)
			if !sleep(ctx, jitter(a.cfg.AskStopped)) {
				return nil
			}
			pause = reconnectFirst
			continue
		}
		if welcomed {
			pause = reconnectFirst
		} else if err := a.whereabouts(ctx); err != nil {
			return err
		}
		a.cfg.Metrics.breaks.Add(1)
		wait := jitter(pause)
		a.cfg.Status(fmt.Sprintf("CONNECTING: source server %s: %v", a.id.SourceServerID, err))
		a.log.Warn("replication interrupted", "err", err, "retry_in", wait.Round(time.Millisecond))
		if !sleep(ctx, wait) {
			return nil
		}
		pause = min(2*pause, reconnectMost)
	}
}

// fatal returns what the agent must stop for, or nil when a retry may help.
func (a *agent) fatal(err error) error {
	var told *replication.Error
	if errors.As(err, &told) {
		switch told.Code {
		case replication.CodeSuperseded:
			return refusal{fmt.Errorf("%w (%s)", ErrSuperseded, told.Text)}
		case replication.CodeForbidden:
			return refusal{told}
		case replication.CodeVersion, replication.CodeDiskMissing:
			return told
		}
	}
	return nil
}

// refusal is an error that the server turned the agent away with: starting it again
// does not help.
type refusal struct{ error }

func (r refusal) Refused() bool { return true }
func (r refusal) Unwrap() error { return r.error }

func turnedAway(err error) error { return refusal{err} }

// stopped tells whether the server ended or refused the session because the user
// stopped replication.
func stopped(err error) bool {
	var told *replication.Error
	return errors.As(err, &told) && told.Code == replication.CodeStopped
}

// jitter spreads a pause over half to one and a half of itself, so that agents
// cut off together do not come back together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) } //nolint:gosec // nobody gains by guessing it

// sleep returns false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
