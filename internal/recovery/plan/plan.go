// Package plan runs recovery plans: servers brought back in ordered steps, by the
// same jobs as a StartRecovery of each step's servers would.
//
// An execution is nothing but its rows. Whatever happens in it is one transition
// of the tables in package drs, made in one transaction with what it causes: a
// step that recovers servers names its job in the transaction that creates the
// job. So a process that is killed anywhere leaves an execution that the next
// one goes on with, nothing is started twice, and a queue of its own would only
// be a second opinion.
package plan

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// Jobs starts the jobs of steps.
type Jobs interface {
	// CheckRecoveryIn tells with a *drs.Error why StartRecoveryIn would refuse.
	CheckRecoveryIn(ctx context.Context, tx db.Tx, account drs.Account, r drs.StartRecovery) error
	// StartRecoveryIn makes a job that is durable, and runs, once tx commits; or it
	// refuses with a *drs.Error and has written nothing.
	StartRecoveryIn(ctx context.Context, tx db.Tx, account drs.Account, r drs.StartRecovery) (drs.Job, error)
}

// Service edits plans and carries out their executions. Its methods are safe for
// concurrent use; refusals are *drs.Error.
type Service struct {
	db   *db.DB
	jobs Jobs
	log  *slog.Logger
	now  func() time.Time
	wake chan struct{} // holds one when there may be something to do
}

// New makes a service; executions go on only while Run runs. A nil clock is the
// system's.
func New(d *db.DB, jobs Jobs, log *slog.Logger, clock func() time.Time) *Service {
	if clock == nil {
		clock = time.Now
	}
	return &Service{
		db: d, jobs: jobs, log: log, wake: make(chan struct{}, 1),
		// As precise as the tables keep it.
		now: func() time.Time { return clock().UTC().Truncate(time.Microsecond) },
	}
}

// Wake makes Run look at all executions soon: a job has ended, or somebody has
// ordered something. It does not block.
func (s *Service) Wake() {
	select {
	case s.wake <- struct{}{}:
	default: // it is going to look anyway
	}
}

// change makes one change that an order asks for, and wakes Run.
func (s *Service) change(ctx context.Context, f func(context.Context, db.Tx) error) error {
	if err := s.db.InTx(ctx, f); err != nil {
		return err
	}
	s.Wake()
	return nil
}

// orNotFound turns an absent row into the refusal.
func orNotFound(err error, t drs.ResourceType, id string) error {
	if errors.Is(err, db.ErrAbsent) {
		return drs.NotFound(t, id)
	}
	return err
}

func findPlan(ctx context.Context, tx db.Tx, account drs.Account, id drs.RecoveryPlanID) (drs.RecoveryPlan, error) {
	plan, err := tx.Plan(ctx, account, id)
	return plan, orNotFound(err, drs.TypeRecoveryPlan, string(id))
}

func conflict(id drs.RecoveryPlanID, format string, args ...any) error {
	return drs.Conflict(drs.TypeRecoveryPlan, string(id), format, args...)
}
