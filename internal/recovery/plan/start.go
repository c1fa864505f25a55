package plan

import (
	"context"
	"errors"
	"strings"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// StartExecution begins a run of a plan on a copy of its steps. It answers as
// soon as the run is durable; the servers are looked at when Run takes it up.
func (s *Service) StartExecution(ctx context.Context, account drs.Account, r drs.StartPlanExecution) (e drs.PlanExecution, err error) {
	err = s.change(ctx, func(ctx context.Context, tx db.Tx) error {
		once := newOnce("StartRecoveryPlanExecution", account, r.Token, r)
		if made, err := once.made(ctx, tx); err != nil {
			return err
		} else if made != "" {
			if e, err = tx.PlanExecution(ctx, account, drs.PlanExecutionID(made)); !errors.Is(err, db.ErrAbsent) {
				return err
			}
		}
		plan, err := findPlan(ctx, tx, account, r.Plan)
		if err != nil {
			return err
		}
		steps, err := tx.PlanSteps(ctx, account, plan.ID)
		if err != nil {
			return err
		}
		if err := mayRun(ctx, tx, plan, steps, r.Pinned); err != nil {
			return err
		}
		now := s.now()
		e = drs.PlanExecution{
			ID: drs.NewPlanExecutionID(), Account: account, Plan: plan.ID, Drill: r.Drill,
			Status: drs.ExecutionCreated, Started: now, Tags: r.Tags,
		}
		return errors.Join(
			tx.InsertPlanExecution(ctx, e, copySteps(e, steps, r.Pinned)),
			once.remember(ctx, tx, string(e.ID), now))
	})
	return e, err
}

// mayRun holds what must be so for a run to begin.
func mayRun(ctx context.Context, tx db.Tx, plan drs.RecoveryPlan, steps []drs.PlanStep, pinned []drs.StartRecoveryServer) error {
	if err := noOtherRun(ctx, tx, plan.ID); err != nil {
		return err
	}
	if len(steps) == 0 {
		return drs.Invalid("recoveryPlanArn", "Recovery plan %s has no steps. Add one with CreateRecoveryPlanStep.", plan.ID)
	}
	if plan.Status != drs.PlanActive {
		return conflict(plan.ID, "Recovery plan %s is %s: no step of it has servers. Add one with CreateRecoveryPlanStep.", plan.ID, plan.Status)
	}
	servers := map[drs.SourceServerID]bool{} // pinned or not
	var all []drs.SourceServerID
	for _, step := range steps {
		for _, server := range step.Servers {
			servers[server.SourceServer] = false
			all = append(all, server.SourceServer)
		}
	}
	var foreign, twice []string
	for _, p := range pinned {
		switch already, ok := servers[p.SourceServer]; {
		case !ok:
			foreign = append(foreign, string(p.SourceServer))
		case already:
			twice = append(twice, string(p.SourceServer))
		default:
			servers[p.SourceServer] = true
		}
	}
	if len(foreign) > 0 {
		return drs.Invalid("sourceServers", "Not in recovery plan %s: %s. Name servers of the plan only.", plan.ID, strings.Join(foreign, ", "))
	}
	if len(twice) > 0 {
		return drs.Invalid("sourceServers", "Named more than once: %s. Name one recovery snapshot for each server.", strings.Join(twice, ", "))
	}
	return notHeld(ctx, tx, plan.ID, all)
}

// noOtherRun refuses while the plan has a run that is not over.
func noOtherRun(ctx context.Context, tx db.Tx, plan drs.RecoveryPlanID) error {
	running, err := tx.RunningPlanExecutions(ctx, plan)
	if err != nil || len(running) == 0 {
		return err
	}
	return conflict(plan, "Recovery plan %s already has execution %s, which is %s. Wait until it is over, or cancel it with CancelRecoveryPlanExecution.",
		plan, running[0].ID, running[0].Status)
}

// notHeld refuses servers that a run of another plan holds.
func notHeld(ctx context.Context, tx db.Tx, plan drs.RecoveryPlanID, servers []drs.SourceServerID) error {
	held, err := tx.HeldServers(ctx, plan, servers)
	if err != nil || len(held) == 0 {
		return err
	}
	return conflict(held[0].Plan, "Source server %s is held by execution %s of recovery plan %s. Wait until that is over.",
		held[0].Server, held[0].Execution, held[0].Plan)
}

func copySteps(e drs.PlanExecution, steps []drs.PlanStep, pinned []drs.StartRecoveryServer) []drs.ExecutionStep {
	points := map[drs.SourceServerID]drs.RecoverySnapshotID{}
	for _, p := range pinned {
		points[p.SourceServer] = p.Snapshot
	}
	copies := make([]drs.ExecutionStep, 0, len(steps))
	for i, step := range steps {
		c := drs.ExecutionStep{
			ID: drs.NewExecutionStepID(), Execution: e.ID, Account: e.Account, Index: i + 1, Name: step.Name,
			Status: drs.PlanStepNotStarted, Attempt: 1, WaitMinutes: step.WaitMinutes, Created: e.Started, Updated: e.Started,
		}
		for _, server := range step.Servers {
			c.Servers = append(c.Servers, drs.ExecutionServer{PlanServer: server, Snapshot: points[server.SourceServer]})
		}
		copies = append(copies, c)
	}
	return copies
}
