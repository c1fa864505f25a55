package plan

import (
	"context"
	"fmt"
	"slices"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// CancelExecution ends a run after the step that it is at. Jobs go on to their
// end, a wait is cut short, and steps that have not begun are skipped.
func (s *Service) CancelExecution(ctx context.Context, account drs.Account, id drs.PlanExecutionID) (e drs.PlanExecution, err error) {
	err = s.act(ctx, account, id, func(_ context.Context, r *run) error {
		if r.e.Status != drs.ExecutionCreated && r.e.Status != drs.ExecutionInProgress {
			return executionConflict(id, "Execution %s is %s. Only one that is CREATED or IN_PROGRESS can be cancelled.", id, r.e.Status)
		}
		if err := r.move(ctx, drs.ExecutionCancelling, drs.ErrorDetail{}); err != nil {
			return err
		}
		e = r.e
		for i, step := range r.steps {
			if step.Status == drs.PlanStepNotStarted {
				if err := r.moveStep(ctx, i, drs.PlanStepSkipped, drs.ErrorDetail{}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return e, err
}

// DeleteExecution removes the record of a run that is over.
func (s *Service) DeleteExecution(ctx context.Context, account drs.Account, id drs.PlanExecutionID) error {
	return s.act(ctx, account, id, func(ctx context.Context, r *run) error {
		if r.e.Status.Running() {
			return executionConflict(id, "Execution %s is %s. Wait until it is over, or cancel it with CancelRecoveryPlanExecution.", id, r.e.Status)
		}
		return r.tx.DeletePlanExecution(ctx, id)
	})
}

// RetryStep recovers again the servers of a failed step that were not recovered.
// When that goes well, the run goes on with the steps after it.
func (s *Service) RetryStep(ctx context.Context, account drs.Account, id drs.PlanExecutionID, of drs.ExecutionStepID) (step drs.ExecutionStep, err error) {
	err = s.act(ctx, account, id, func(ctx context.Context, r *run) error {
		at, err := r.find(of)
		if err != nil {
			return err
		}
		if was := r.steps[at]; was.Status != drs.PlanStepFailed || was.Waits() {
			return executionConflict(id, "Step %q of execution %s is %s. Only a step with servers that has FAILED can be tried again.", was.Name, id, was.Status)
		}
		if err := r.resume(ctx); err != nil {
			return err
		}
		for n, server := range r.steps[at].Servers {
			recovered, _, err := r.outcome(ctx, server)
			if err != nil {
				return err
			}
			if !recovered {
				r.steps[at].Servers[n].Job = ""
			}
		}
		r.steps[at].Attempt++
		err = r.moveStep(ctx, at, drs.PlanStepExecuting, drs.ErrorDetail{})
		step = r.steps[at]
		return err
	})
	return step, err
}

// UpdateExecutionStep skips a step, or changes what one that has not begun is
// going to do.
func (s *Service) UpdateExecutionStep(ctx context.Context, account drs.Account, id drs.PlanExecutionID, of drs.ExecutionStepID, change drs.ExecutionStepChange) (step drs.ExecutionStep, err error) {
	err = s.act(ctx, account, id, func(ctx context.Context, r *run) error {
		at, err := r.find(of)
		if err != nil {
			return err
		}
		if change.Skip {
			err = r.skip(ctx, at)
		} else {
			err = r.edit(ctx, at, change)
		}
		step = r.steps[at]
		return err
	})
	return step, err
}

// act does one thing to a run that an order asks for.
func (s *Service) act(ctx context.Context, account drs.Account, id drs.PlanExecutionID, f func(context.Context, *run) error) error {
	return s.change(ctx, func(ctx context.Context, tx db.Tx) error {
		r, err := s.load(ctx, tx, account, id)
		if err != nil {
			return orNotFound(err, drs.TypePlanExecution, string(id))
		}
		return f(ctx, r)
	})
}

// skip leaves a step out: one that has not begun, or one that has failed, whose
// run then goes on with the next.
func (r *run) skip(ctx context.Context, at int) error {
	switch step := r.steps[at]; step.Status {
	case drs.PlanStepNotStarted:
		if err := r.mayChange(); err != nil {
			return err
		}
	case drs.PlanStepFailed:
		if err := r.resume(ctx); err != nil {
			return err
		}
	default:
		return executionConflict(r.e.ID, "Step %q of execution %s is %s. Only a step that is NOT_STARTED or FAILED can be skipped.", step.Name, r.e.ID, step.Status)
	}
	return r.moveStep(ctx, at, drs.PlanStepSkipped, r.steps[at].Error)
}

// edit changes what a step that has not begun will do.
func (r *run) edit(ctx context.Context, at int, change drs.ExecutionStepChange) error {
	step := &r.steps[at]
	if step.Status != drs.PlanStepNotStarted {
		return executionConflict(r.e.ID, "Step %q of execution %s is %s. Only a step that is NOT_STARTED can be changed.", step.Name, r.e.ID, step.Status)
	}
	if err := r.mayChange(); err != nil {
		return err
	}
	if change.WaitMinutes > 0 != step.Waits() {
		return drs.Invalid("recoveryPlanExecutionStepArn", "A step keeps its kind: one that waits takes no servers, and one with servers does not wait.")
	}
	if change.WaitMinutes > 0 {
		step.WaitMinutes = change.WaitMinutes
	} else if err := r.replaceServers(ctx, at, withDefaults(change.Servers)); err != nil {
		return err
	}
	return r.moveStep(ctx, at, step.Status, step.Error)
}

func (r *run) replaceServers(ctx context.Context, at int, servers []drs.PlanServer) error {
	pinned := map[drs.SourceServerID]drs.RecoverySnapshotID{}
	for _, old := range r.steps[at].Servers {
		pinned[old.SourceServer] = old.Snapshot
	}
	taken, count := map[drs.SourceServerID]bool{}, len(servers)
	for i, step := range r.steps {
		if i == at {
			continue
		}
		for _, other := range step.Servers {
			taken[other.SourceServer] = true
			count++
		}
	}
	if count > drs.MaxPlanServers {
		return drs.Invalid("servers", "The execution would have %d servers, and may have %d.", count, drs.MaxPlanServers)
	}
	next := make([]drs.ExecutionServer, 0, len(servers))
	for _, server := range servers {
		if taken[server.SourceServer] {
			return drs.Invalid("servers", "Source server %s would be in the execution twice. A server is in one step only.", server.SourceServer)
		}
		taken[server.SourceServer] = true
		next = append(next, drs.ExecutionServer{PlanServer: server, Snapshot: pinned[server.SourceServer]})
	}
	if err := serversExist(ctx, r.tx, r.e.Account, servers); err != nil {
		return err
	}
	if err := notHeld(ctx, r.tx, r.e.Plan, idsOf(servers)); err != nil {
		return err
	}
	r.steps[at].Servers = next
	return nil
}

// mayChange refuses where the run can get no further.
func (r *run) mayChange() error {
	switch {
	case r.e.Status == drs.ExecutionCreated, r.e.Status == drs.ExecutionInProgress:
		return nil
	case r.e.Status == drs.ExecutionFailed && r.e.Error.Code == drs.PlanErrorStep && r.now.Before(r.e.Deadline()):
		return nil
	case r.e.Status == drs.ExecutionFailed:
		return executionConflict(r.e.ID, "Execution %s cannot go on (%s). Start another one of recovery plan %s.", r.e.ID, r.e.Error.Message, r.e.Plan)
	}
	return executionConflict(r.e.ID, "Execution %s is %s: its steps are settled.", r.e.ID, r.e.Status)
}

// resume makes a run that failed at a step go on.
func (r *run) resume(ctx context.Context) error {
	if err := r.mayChange(); err != nil {
		return err
	}
	if r.e.Status != drs.ExecutionFailed {
		return executionConflict(r.e.ID, "Execution %s is %s, not FAILED.", r.e.ID, r.e.Status)
	}
	if err := noOtherRun(ctx, r.tx, r.e.Plan); err != nil {
		return err
	}
	var servers []drs.SourceServerID
	for _, step := range r.steps {
		for _, server := range step.Servers {
			servers = append(servers, server.SourceServer)
		}
	}
	if err := notHeld(ctx, r.tx, r.e.Plan, servers); err != nil {
		return err
	}
	return r.move(ctx, drs.ExecutionInProgress, drs.ErrorDetail{})
}

func (r *run) find(id drs.ExecutionStepID) (int, error) {
	at := slices.IndexFunc(r.steps, func(s drs.ExecutionStep) bool { return s.ID == id })
	if at < 0 {
		return 0, &drs.Error{Kind: drs.KindNotFound, ResourceType: drs.TypePlanExecution, ResourceID: string(r.e.ID),
			Message: fmt.Sprintf("Execution %s has no step %s. ListRecoveryPlanExecutionSteps lists those it has.", r.e.ID, id)}
	}
	return at, nil
}

func executionConflict(id drs.PlanExecutionID, format string, args ...any) error {
	return drs.Conflict(drs.TypePlanExecution, string(id), format, args...)
}
