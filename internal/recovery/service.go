// Package recovery brings machines back: it takes the orders of the API
// (StartRecovery, TerminateRecoveryInstances), carries them out as durable jobs,
// and serves the disks of the machines that it launched for as long as they
// live.
//
// A job is a list of steps per server. Each step is recorded before it starts
// and is safe to repeat, so a server that is killed anywhere goes on where it
// was: the queue hands the job out again, what was done is found done, and a
// machine that runs is adopted as it is.
//
// A recovery instance is a branch of the vault: its disks read through to a
// recovery point, its writes go to a local log. Launching therefore costs the
// same for a disk of any size, and terminating drops the log. What the machine of a
// recovery writes is shipped to the vault behind its back, a few seconds later.
package recovery

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/riverqueue/river"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/convert"
	"lifeboat/internal/recovery/machine"
	"lifeboat/internal/vault"
)

// Config names what a Service works with. All fields but those that say
// otherwise are required.
type Config struct {
	DB       *db.DB
	Vault    *vault.Vault
	Points   PointTaker
	Machines Machines
	// Host is what the place where machines run can give to one.
	Host convert.Host
	// Dir holds a directory for each recovery instance.
	Dir string
	// Socket is where the disks of all instances are served.
	Socket string
	// LogKey is the key that an instance's own writes are encrypted with.
	LogKey func(drs.RecoveryInstanceID) ([]byte, error)

	DrillNetwork    machine.Network // of drills
	RecoveryNetwork machine.Network // of recoveries

	// MayExtend refuses to recover what a staging account does not let the account
	// recover (any more); nil: nothing is refused.
	MayExtend func(ctx context.Context, staging, account drs.Account) error

	Quotas drs.QuotasOf
	// MayLead tells whether an account may send its recoveries to a network that leads
	// off this host and is not RecoveryNetwork, to which all may; nil: none may.
	MayLead func(drs.Account, machine.Network) bool
	// PointWait is how long an on-demand point may take; 0 means 10 minutes, as
	// the service documents.
	PointWait time.Duration
	// JobEnded, if set, is called when a job of any account has completed. It must
	// not block.
	JobEnded func(drs.JobID)
	// ShipEvery is how often what the machines of recoveries wrote is shipped to
	// the vault; 0 means 5 s. Drills are not shipped.
	ShipEvery time.Duration
	// TraceFor is how long after its launch it is noted what a machine reads, for its
	// next boot; 0 means 2 minutes.
	TraceFor time.Duration
	// RemoveEvery is how often a removal that failed is tried again; 0 means 30 s.
	RemoveEvery time.Duration
	// Launches bounds the machines being started at once; 0 means 8.
	Launches int
	Log      *slog.Logger
}

// PointTaker asks the agent of a server for a recovery point of this moment.
type PointTaker interface {
	// TakePoint returns when the point is durable. It fails at once when no agent
	// of the server is connected.
	TakePoint(ctx context.Context, server drs.SourceServerID) (drs.RecoveryPoint, error)
}

// Machines run the instances.
type Machines interface {
	machine.Driver
	// Accelerator names what executes guests, with a sentence for the job's log
	// when it is not the fast one.
	Accelerator(ctx context.Context) (name, note string, err error)
}

// Service carries out recoveries. Its methods are safe for concurrent use.
type Service struct {
	Config
	exports  *exports
	queue    *river.Client[queueTx]
	launches chan struct{} // one slot per machine being started
	holds    holds

	life  context.Context //nolint:containedctx // the life of tasks, which no call owns; ends with Run
	end   context.CancelFunc
	tasks sync.WaitGroup // machines being stopped or looked at
}

// New prepares the job queue's tables; Run makes the service work.
func New(ctx context.Context, c Config) (*Service, error) {
	if c.PointWait == 0 {
		c.PointWait = 10 * time.Minute
	}
	if c.TraceFor == 0 {
		c.TraceFor = traceFor
	}
	if c.ShipEvery == 0 {
		c.ShipEvery = 5 * time.Second
	}
	if c.RemoveEvery == 0 {
		c.RemoveEvery = 30 * time.Second
	}
	if c.Launches == 0 {
		c.Launches = 8
	}
	s := &Service{Config: c, launches: make(chan struct{}, c.Launches)}
	s.holds.held = map[drs.RecoveryInstanceID]chan struct{}{}
	s.life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.exports = newExports(s)
	var err error
	if s.queue, err = s.openQueue(ctx); err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

// dir is where everything of one instance lies.
func (s *Service) dir(id drs.RecoveryInstanceID) string { return filepath.Join(s.Dir, string(id)) }
