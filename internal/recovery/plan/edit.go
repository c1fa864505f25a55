package plan

import (
	"context"
	"errors"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// CreatePlan makes a plan without steps.
func (s *Service) CreatePlan(ctx context.Context, account drs.Account, draft drs.PlanDraft) (plan drs.RecoveryPlan, err error) {
	err = s.change(ctx, func(ctx context.Context, tx db.Tx) error {
		once := newOnce("CreateRecoveryPlan", account, draft.Token, draft)
		if made, err := once.made(ctx, tx); err != nil {
			return err
		} else if made != "" {
			if plan, err = tx.Plan(ctx, account, drs.RecoveryPlanID(made)); !errors.Is(err, db.ErrAbsent) {
				return err
			}
		}
		if err := nameIsFree(ctx, tx, account, draft.Name); err != nil {
			return err
		}
		n, err := tx.CountPlans(ctx, account)
		if err != nil {
			return err
		}
		if n >= drs.MaxPlans {
			return drs.QuotaExceeded("", drs.TypeRecoveryPlan, "",
				"The account has %d recovery plans, the most it may have. Delete one that is no longer needed.", n)
		}
		now := s.now()
		plan = drs.RecoveryPlan{
			ID: drs.NewRecoveryPlanID(), Account: account, Name: draft.Name, Description: draft.Description,
			Status: drs.PlanInvalid, Created: now, Updated: now, Tags: draft.Tags,
		}
		return errors.Join(tx.InsertPlan(ctx, plan), once.remember(ctx, tx, string(plan.ID), now))
	})
	return plan, err
}

func nameIsFree(ctx context.Context, tx db.Tx, account drs.Account, name string) error {
	other, err := tx.PlanNamed(ctx, account, name)
	switch {
	case errors.Is(err, db.ErrAbsent):
		return nil
	case err != nil:
		return err
	}
	return conflict(other.ID, "Recovery plan %s is already named %q. Choose another name.", other.ID, name)
}

// UpdatePlan changes name or description.
func (s *Service) UpdatePlan(ctx context.Context, account drs.Account, id drs.RecoveryPlanID, change drs.PlanChange) (plan drs.RecoveryPlan, err error) {
	err = s.change(ctx, func(ctx context.Context, tx db.Tx) error {
		if plan, err = findPlan(ctx, tx, account, id); err != nil {
			return err
		}
		before := plan
		if change.Name != nil && *change.Name != plan.Name {
			if err := nameIsFree(ctx, tx, account, *change.Name); err != nil {
				return err
			}
			plan.Name = *change.Name
		}
		if change.Description != nil {
			plan.Description = *change.Description
		}
		if plan.Name == before.Name && plan.Description == before.Description {
			return nil
		}
		plan.Updated = s.now()
		return tx.UpdatePlan(ctx, plan)
	})
	return plan, err
}

// DeletePlan removes a plan that is not running. What it has launched stays, and
// so do its executions.
func (s *Service) DeletePlan(ctx context.Context, account drs.Account, id drs.RecoveryPlanID) error {
	return s.change(ctx, func(ctx context.Context, tx db.Tx) error {
		if _, err := findPlan(ctx, tx, account, id); err != nil {
			return err
		}
		running, err := tx.RunningPlanExecutions(ctx, id)
		if err != nil {
			return err
		}
		if len(running) > 0 {
			return conflict(id, "Recovery plan %s has execution %s, which is %s. Wait until it is over, or cancel it with CancelRecoveryPlanExecution.",
				id, running[0].ID, running[0].Status)
		}
		return tx.DeletePlan(ctx, id)
	})
}
