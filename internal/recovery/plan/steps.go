package plan

import (
	"context"
	"slices"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// CreateStep adds a step to a plan, after all others unless the draft says where.
func (s *Service) CreateStep(ctx context.Context, account drs.Account, id drs.RecoveryPlanID, draft drs.PlanStepDraft) (step drs.PlanStep, err error) {
	once := newOnce("CreateRecoveryPlanStep", account, draft.Token, []any{id, draft})
	err = s.editSteps(ctx, account, id, func(ctx context.Context, tx db.Tx, steps []drs.PlanStep) ([]drs.PlanStep, error) {
		made, err := once.made(ctx, tx)
		if err != nil {
			return nil, err
		}
		if at := indexOf(steps, drs.PlanStepID(made)); at >= 0 {
			step = steps[at]
			return steps, nil
		}
		if len(steps) >= drs.MaxPlanSteps {
			return nil, drs.QuotaExceeded("", drs.TypeRecoveryPlan, string(id),
				"Recovery plan %s has %d steps, the most it may have. Delete one, or put its servers into another step.", id, len(steps))
		}
		if n := countServers(steps) + len(draft.Servers); n > drs.MaxPlanServers {
			return nil, drs.QuotaExceeded("", drs.TypeRecoveryPlan, string(id),
				"Recovery plan %s would have %d servers, and may have %d. Put the others into another plan.", id, n, drs.MaxPlanServers)
		}
		at := len(steps)
		if draft.Order > 0 {
			at = draft.Order - 1
		}
		if at > len(steps) {
			return nil, drs.Invalid("stepOrder", "Step order %d leaves a gap: recovery plan %s has %d steps, so it may be 1 to %d.",
				draft.Order, id, len(steps), len(steps)+1)
		}
		now := s.now()
		step = drs.PlanStep{
			ID: drs.NewPlanStepID(), Plan: id, Account: account, Order: at + 1, Name: draft.Name,
			Servers: withDefaults(draft.Servers), WaitMinutes: draft.WaitMinutes, Created: now, Updated: now,
		}
		if err := serversExist(ctx, tx, account, step.Servers); err != nil {
			return nil, err
		}
		if err := once.remember(ctx, tx, string(step.ID), now); err != nil {
			return nil, err
		}
		return slices.Insert(steps, at, step), nil
	})
	return step, err
}

// UpdateStep changes a step's name, its servers or its wait.
func (s *Service) UpdateStep(ctx context.Context, account drs.Account, id drs.RecoveryPlanID, of drs.PlanStepID, change drs.PlanStepChange) (step drs.PlanStep, err error) {
	err = s.editSteps(ctx, account, id, func(ctx context.Context, tx db.Tx, steps []drs.PlanStep) ([]drs.PlanStep, error) {
		at, err := findStep(steps, id, of)
		if err != nil {
			return nil, err
		}
		step = steps[at]
		if change.WaitMinutes > 0 != step.Waits() && (change.WaitMinutes > 0 || len(change.Servers) > 0) {
			return nil, drs.Invalid("configuration", "A step keeps its kind: one that waits takes no servers, and one with servers does not wait. "+
				"Delete step %s and create another.", of)
		}
		if change.Name != "" {
			step.Name = change.Name
		}
		if change.WaitMinutes > 0 {
			step.WaitMinutes = change.WaitMinutes
		}
		if len(change.Servers) > 0 {
			step.Servers = withDefaults(change.Servers)
			if err := serversExist(ctx, tx, account, step.Servers); err != nil {
				return nil, err
			}
		}
		step.Updated = s.now()
		steps[at] = step
		return steps, nil
	})
	return step, err
}

// DeleteStep takes a step out of its plan and closes the gap.
func (s *Service) DeleteStep(ctx context.Context, account drs.Account, id drs.RecoveryPlanID, of drs.PlanStepID) error {
	return s.editSteps(ctx, account, id, func(_ context.Context, _ db.Tx, steps []drs.PlanStep) ([]drs.PlanStep, error) {
		at, err := findStep(steps, id, of)
		if err != nil {
			return nil, err
		}
		steps = slices.Delete(steps, at, at+1)
		if len(steps) > 0 && steps[0].Waits() {
			return nil, conflict(id, "Without step %s, recovery plan %s would begin with a wait. Delete or move step %s first.", of, id, steps[0].ID)
		}
		return steps, nil
	})
}

// ReorderSteps puts the steps of a plan into another order; order names each once.
func (s *Service) ReorderSteps(ctx context.Context, account drs.Account, id drs.RecoveryPlanID, order []drs.PlanStepID) (ordered []drs.PlanStep, err error) {
	err = s.editSteps(ctx, account, id, func(_ context.Context, _ db.Tx, steps []drs.PlanStep) ([]drs.PlanStep, error) {
		ordered = nil
		for _, of := range order {
			at := indexOf(steps, of)
			if at < 0 {
				return nil, drs.Invalid("orderedStepArns", "Recovery plan %s has no step %s. ListRecoveryPlanSteps lists those it has.", id, of)
			}
			if indexOf(ordered, of) >= 0 {
				return nil, drs.Invalid("orderedStepArns", "Step %s is named twice. Name every step of the plan once.", of)
			}
			step := steps[at]
			step.Order = len(ordered) + 1
			ordered = append(ordered, step)
		}
		if len(ordered) != len(steps) {
			return nil, drs.Invalid("orderedStepArns", "%d of the %d steps of recovery plan %s are named. Name every one; ListRecoveryPlanSteps lists them.",
				len(ordered), len(steps), id)
		}
		return slices.Clone(ordered), nil
	})
	return ordered, err
}

// editSteps runs edit on the steps of a plan and keeps what it returns, unless
// that breaks a rule of plans.
func (s *Service) editSteps(ctx context.Context, account drs.Account, id drs.RecoveryPlanID,
	edit func(context.Context, db.Tx, []drs.PlanStep) ([]drs.PlanStep, error),
) error {
	return s.change(ctx, func(ctx context.Context, tx db.Tx) error {
		plan, err := findPlan(ctx, tx, account, id)
		if err != nil {
			return err
		}
		steps, err := tx.PlanSteps(ctx, account, id)
		if err != nil {
			return err
		}
		if steps, err = edit(ctx, tx, steps); err != nil {
			return err
		}
		if err := checkSteps(id, steps); err != nil {
			return err
		}
		plan.Updated, plan.Status = s.now(), drs.PlanInvalid
		if countServers(steps) > 0 {
			plan.Status = drs.PlanActive
		}
		if err := tx.ReplacePlanSteps(ctx, id, steps); err != nil {
			return err
		}
		return tx.UpdatePlan(ctx, plan)
	})
}

// checkSteps holds the rules that speak of all steps of a plan.
func checkSteps(id drs.RecoveryPlanID, steps []drs.PlanStep) error {
	if len(steps) > 0 && steps[0].Waits() {
		return drs.Invalid("configuration", "Recovery plan %s would begin with a wait. Its first step must have servers.", id)
	}
	if n := countServers(steps); n > drs.MaxPlanServers {
		return drs.Invalid("configuration", "Recovery plan %s would have %d servers, and may have %d.", id, n, drs.MaxPlanServers)
	}
	in := map[drs.SourceServerID]string{}
	for _, step := range steps {
		for _, server := range step.Servers {
			if other, twice := in[server.SourceServer]; twice {
				return drs.Invalid("configuration", "Source server %s would be in recovery plan %s twice, in steps %q and %q. A server is in one step only.",
					server.SourceServer, id, other, step.Name)
			}
			in[server.SourceServer] = step.Name
		}
	}
	return nil
}

func countServers(steps []drs.PlanStep) (n int) {
	for _, s := range steps {
		n += len(s.Servers)
	}
	return n
}

func indexOf(steps []drs.PlanStep, id drs.PlanStepID) int {
	return slices.IndexFunc(steps, func(s drs.PlanStep) bool { return s.ID == id })
}

func findStep(steps []drs.PlanStep, plan drs.RecoveryPlanID, id drs.PlanStepID) (int, error) {
	at := indexOf(steps, id)
	if at < 0 {
		return 0, &drs.Error{Kind: drs.KindNotFound, ResourceType: drs.TypeRecoveryPlan, ResourceID: string(plan),
			Message: "Recovery plan " + string(plan) + " has no step " + string(id) + ". ListRecoveryPlanSteps lists those it has."}
	}
	return at, nil
}

// withDefaults gives every server its impact level.
func withDefaults(servers []drs.PlanServer) []drs.PlanServer {
	servers = slices.Clone(servers)
	for i := range servers {
		if servers[i].Impact == "" {
			servers[i].Impact = drs.ImpactCritical
		}
	}
	return servers
}

// serversExist refuses servers that the account does not have.
func serversExist(ctx context.Context, tx db.Tx, account drs.Account, servers []drs.PlanServer) error {
	if len(servers) == 0 {
		return nil
	}
	found, err := tx.SourceServers(ctx, account, idsOf(servers))
	if err != nil {
		return err
	}
	for _, s := range servers {
		if _, ok := found[s.SourceServer]; !ok {
			return drs.NotFound(drs.TypeSourceServer, string(s.SourceServer))
		}
	}
	return nil
}

func idsOf(servers []drs.PlanServer) []drs.SourceServerID {
	ids := make([]drs.SourceServerID, 0, len(servers))
	for _, s := range servers {
		ids = append(ids, s.SourceServer)
	}
	return ids
}
