package db

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

type planStepRow struct {
	bun.BaseModel `bun:"table:recovery_plan_steps"`

	ID          string `bun:",pk"`
	Plan        string
	Ordinal     int64
	Name        string
	WaitMinutes int64
	Created     stamp
	Updated     stamp
}

type planServerRow struct {
	bun.BaseModel `bun:"table:recovery_plan_servers"`

	Step         string `bun:",pk"`
	Ordinal      int64  `bun:",pk"`
	Plan         string
	SourceServer string
	Impact       string
}

// PlanSteps lists the steps of a plan of the account in order.
func (d *DB) PlanSteps(ctx context.Context, account drs.Account, plan drs.RecoveryPlanID) ([]drs.PlanStep, error) {
	return planSteps(ctx, d.read, account, plan)
}

// PlanSteps is DB.PlanSteps within the transaction.
func (tx Tx) PlanSteps(ctx context.Context, account drs.Account, plan drs.RecoveryPlanID) ([]drs.PlanStep, error) {
	return planSteps(ctx, tx, account, plan)
}

func planSteps(ctx context.Context, db bun.IDB, account drs.Account, plan drs.RecoveryPlanID) ([]drs.PlanStep, error) {
	var rows []planStepRow
	if err := db.NewSelect().Model(&rows).Where("plan = ?", plan).Order("ordinal").Scan(ctx); err != nil {
		return nil, fmt.Errorf("list the steps of %s: %w", plan, err)
	}
	var servers []planServerRow
	if err := db.NewSelect().Model(&servers).Where("plan = ?", plan).Order("step", "ordinal").Scan(ctx); err != nil {
		return nil, fmt.Errorf("list the servers of %s: %w", plan, err)
	}
	of := map[string][]drs.PlanServer{}
	for _, s := range servers {
		of[s.Step] = append(of[s.Step], drs.PlanServer{SourceServer: drs.SourceServerID(s.SourceServer), Impact: drs.ImpactLevel(s.Impact)})
	}
	return convert(rows, func(r planStepRow) drs.PlanStep {
		return drs.PlanStep{
			ID: drs.PlanStepID(r.ID), Plan: plan, Account: account, Order: int(r.Ordinal), Name: r.Name,
			Servers: of[r.ID], WaitMinutes: int(r.WaitMinutes), Created: r.Created.Time(), Updated: r.Updated.Time(),
		}
	}), nil
}

// ReplacePlanSteps makes these the steps of a plan, in this order; there are few.
func (tx Tx) ReplacePlanSteps(ctx context.Context, plan drs.RecoveryPlanID, steps []drs.PlanStep) error {
	if _, err := tx.NewDelete().Model((*planStepRow)(nil)).Where("plan = ?", plan).Exec(ctx); err != nil {
		return fmt.Errorf("replace the steps of %s: %w", plan, err)
	}
	var rows []planStepRow
	var servers []planServerRow
	for i, s := range steps {
		rows = append(rows, planStepRow{
			ID: string(s.ID), Plan: string(plan), Ordinal: int64(i + 1), Name: s.Name, WaitMinutes: int64(s.WaitMinutes),
			Created: stampOf(s.Created), Updated: stampOf(s.Updated),
		})
		for n, server := range s.Servers {
			servers = append(servers, planServerRow{
				Step: string(s.ID), Ordinal: int64(n), Plan: string(plan),
				SourceServer: string(server.SourceServer), Impact: string(server.Impact),
			})
		}
	}
	if len(rows) > 0 {
		if _, err := tx.NewInsert().Model(&rows).Exec(ctx); err != nil {
			return fmt.Errorf("replace the steps of %s: %w", plan, err)
		}
	}
	if len(servers) > 0 {
		if _, err := tx.NewInsert().Model(&servers).Exec(ctx); err != nil {
			return fmt.Errorf("replace the servers of %s: %w", plan, err)
		}
	}
	return nil
}
