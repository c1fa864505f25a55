package db

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

type planRow struct {
	bun.BaseModel `bun:"table:recovery_plans"`

	ID          string `bun:",pk"`
	Account     string
	Region      string
	Name        string
	Description string
	Status      string
	Created     stamp
	Updated     stamp
	Tags        document[drs.Tags]
}

func (r planRow) resource() drs.RecoveryPlan {
	return drs.RecoveryPlan{
		ID: drs.RecoveryPlanID(r.ID), Account: drs.Account{ID: r.Account, Region: r.Region},
		Name: r.Name, Description: r.Description, Status: drs.PlanStatus(r.Status),
		Created: r.Created.Time(), Updated: r.Updated.Time(), Tags: r.Tags.V,
	}
}

func planRowOf(p drs.RecoveryPlan) planRow {
	return planRow{
		ID: string(p.ID), Account: p.Account.ID, Region: p.Account.Region, Name: p.Name, Description: p.Description,
		Status: string(p.Status), Created: stampOf(p.Created), Updated: stampOf(p.Updated), Tags: document[drs.Tags]{p.Tags},
	}
}

// Plan returns one recovery plan of the account, or ErrAbsent.
func (d *DB) Plan(ctx context.Context, account drs.Account, id drs.RecoveryPlanID) (drs.RecoveryPlan, error) {
	return plan(ctx, d.read, account, id)
}

// Plan is DB.Plan within the transaction.
func (tx Tx) Plan(ctx context.Context, account drs.Account, id drs.RecoveryPlanID) (drs.RecoveryPlan, error) {
	return plan(ctx, tx, account, id)
}

func plan(ctx context.Context, db bun.IDB, account drs.Account, id drs.RecoveryPlanID) (drs.RecoveryPlan, error) {
	var row planRow
	err := db.NewSelect().Model(&row).Where("id = ? AND account = ? AND region = ?", id, account.ID, account.Region).Scan(ctx)
	if err != nil {
		return drs.RecoveryPlan{}, fmt.Errorf("look up recovery plan %s: %w", id, absent(err))
	}
	return row.resource(), nil
}

// PlanNamed returns the account's plan of that name, or ErrAbsent.
func (tx Tx) PlanNamed(ctx context.Context, account drs.Account, name string) (drs.RecoveryPlan, error) {
	var row planRow
	err := tx.NewSelect().Model(&row).Where("account = ? AND region = ? AND name = ?", account.ID, account.Region, name).Scan(ctx)
	if err != nil {
		return drs.RecoveryPlan{}, fmt.Errorf("look up recovery plan %q: %w", name, absent(err))
	}
	return row.resource(), nil
}

// CountPlans counts the account's recovery plans.
func (tx Tx) CountPlans(ctx context.Context, account drs.Account) (int, error) {
	n, err := tx.NewSelect().Model((*planRow)(nil)).Where("account = ? AND region = ?", account.ID, account.Region).Count(ctx)
	if err != nil {
		return 0, fmt.Errorf("count recovery plans: %w", err)
	}
	return int(n), nil
}

// Plans lists the account's recovery plans, oldest first.
func (d *DB) Plans(ctx context.Context, account drs.Account, page Page) ([]drs.RecoveryPlan, string, error) {
	var rows []planRow
	q := d.read.NewSelect().Model(&rows).Where("account = ? AND region = ?", account.ID, account.Region)
	q, err := page.by(q, "created", "id", false)
	if err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list recovery plans: %w", err)
	}
	rows, next := cut(page, rows, func(r planRow) cursor { return cursor{int64(r.Created), r.ID} })
	return convert(rows, planRow.resource), next, nil
}

// InsertPlan adds a recovery plan without steps.
func (tx Tx) InsertPlan(ctx context.Context, p drs.RecoveryPlan) error {
	row := planRowOf(p)
	if _, err := tx.NewInsert().Model(&row).Exec(ctx); err != nil {
		return fmt.Errorf("insert recovery plan %s: %w", p.ID, err)
	}
	return nil
}

// UpdatePlan writes all of a plan but its tags and steps.
func (tx Tx) UpdatePlan(ctx context.Context, p drs.RecoveryPlan) error {
	row := planRowOf(p)
	if _, err := tx.NewUpdate().Model(&row).Column("name", "description", "status", "updated").WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("update recovery plan %s: %w", p.ID, err)
	}
	return nil
}

// DeletePlan removes a plan and its steps. Its executions stay.
func (tx Tx) DeletePlan(ctx context.Context, id drs.RecoveryPlanID) error {
	if _, err := tx.NewDelete().Model((*planRow)(nil)).Where("id = ?", id).Exec(ctx); err != nil {
		return fmt.Errorf("delete recovery plan %s: %w", id, err)
	}
	return nil
}

// PlansWith lists the plans, of any account, that have the source server in a
// step.
func (tx Tx) PlansWith(ctx context.Context, server drs.SourceServerID) ([]drs.RecoveryPlanID, error) {
	var ids []drs.RecoveryPlanID
	err := tx.NewSelect().Model((*planServerRow)(nil)).Column("plan").Where("source_server = ?", server).Order("plan").Scan(ctx, &ids)
	if err != nil {
		return nil, fmt.Errorf("look up the recovery plans of %s: %w", server, err)
	}
	return ids, nil
}
