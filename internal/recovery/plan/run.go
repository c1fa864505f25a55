package plan

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

const (
	// lookAgain bounds how late a run learns of a job whose end nobody told of.
	lookAgain = 5 * time.Second
	// afterFault keeps a broken database from being asked without pause.
	afterFault = time.Second
	idle       = time.Hour
)

// Run carries out executions until ctx ends, which is no error; those that are
// not over go on with the next Run.
func (s *Service) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-timer.C:
		}
		timer.Reset(s.pass(ctx))
	}
}

// pass takes every execution as far as it goes, and tells when to look again.
func (s *Service) pass(ctx context.Context) time.Duration {
	running, err := s.db.RunningPlanExecutions(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Error("executions of recovery plans were not looked at", "err", err)
		}
		return afterFault
	}
	pause := idle
	for _, e := range running {
		at, err := s.takeOn(ctx, e)
		switch {
		case ctx.Err() != nil:
			return idle
		case err != nil:
			s.log.Error("execution of a recovery plan could not go on and will be tried again", "execution", e.ID, "plan", e.Plan, "err", err)
			pause = min(pause, afterFault)
		case !at.IsZero():
			pause = min(pause, lookAgain, max(0, at.Sub(s.now())))
		}
	}
	return pause
}

// takeOn advances one execution until it has to wait for something.
func (s *Service) takeOn(ctx context.Context, e drs.PlanExecution) (at time.Time, err error) {
	for {
		var p progress
		err := s.db.InTx(ctx, func(ctx context.Context, tx db.Tx) (err error) {
			p, err = s.guarded(ctx, tx, e)
			return err
		})
		if err != nil || !p.again {
			return p.at, err
		}
	}
}

// guarded keeps a fault of ours in one execution from ending the process with all
// machines' disks.
func (s *Service) guarded(ctx context.Context, tx db.Tx, e drs.PlanExecution) (p progress, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			s.log.Error("fault in an execution", "execution", e.ID, "fault", fault, "stack", string(debug.Stack()))
			err = fmt.Errorf("an internal fault: %v", fault)
		}
	}()
	r, err := s.load(ctx, tx, e.Account, e.ID)
	if err != nil {
		return progress{}, err
	}
	before := r.e.Status
	if p, err = r.advance(ctx); err == nil && r.e.Status != before {
		s.log.Info("execution of a recovery plan moved on", "execution", e.ID, "plan", e.Plan, "status", r.e.Status, "reason", r.e.Error.Message)
	}
	return p, err
}
