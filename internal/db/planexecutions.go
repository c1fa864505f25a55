package db

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

type executionRow struct {
	bun.BaseModel `bun:"table:plan_executions"`

	ID           string `bun:",pk"`
	Account      string
	Region       string
	Plan         string
	Drill        bool
	Status       string
	Started      stamp
	Completed    stamp
	ErrorCode    string
	ErrorMessage string
	Tags         document[drs.Tags]
}

func (r executionRow) resource() drs.PlanExecution {
	return drs.PlanExecution{
		ID: drs.PlanExecutionID(r.ID), Account: drs.Account{ID: r.Account, Region: r.Region},
		Plan: drs.RecoveryPlanID(r.Plan), Drill: r.Drill, Status: drs.ExecutionStatus(r.Status),
		Started: r.Started.Time(), Completed: r.Completed.Time(),
		Error: drs.ErrorDetail{Code: r.ErrorCode, Message: r.ErrorMessage}, Tags: r.Tags.V,
	}
}

func executionRowOf(e drs.PlanExecution) executionRow {
	return executionRow{
		ID: string(e.ID), Account: e.Account.ID, Region: e.Account.Region, Plan: string(e.Plan), Drill: e.Drill,
		Status: string(e.Status), Started: stampOf(e.Started), Completed: stampOf(e.Completed),
		ErrorCode: e.Error.Code, ErrorMessage: e.Error.Message, Tags: document[drs.Tags]{e.Tags},
	}
}

// PlanExecution returns one execution of the account, or ErrAbsent.
func (d *DB) PlanExecution(ctx context.Context, account drs.Account, id drs.PlanExecutionID) (drs.PlanExecution, error) {
	return planExecution(ctx, d.read, account, id)
}

// PlanExecution is DB.PlanExecution within the transaction.
func (tx Tx) PlanExecution(ctx context.Context, account drs.Account, id drs.PlanExecutionID) (drs.PlanExecution, error) {
	return planExecution(ctx, tx, account, id)
}

func planExecution(ctx context.Context, db bun.IDB, account drs.Account, id drs.PlanExecutionID) (drs.PlanExecution, error) {
	var row executionRow
	err := db.NewSelect().Model(&row).Where("id = ? AND account = ? AND region = ?", id, account.ID, account.Region).Scan(ctx)
	if err != nil {
		return drs.PlanExecution{}, fmt.Errorf("look up execution %s: %w", id, absent(err))
	}
	return row.resource(), nil
}

// PlanExecutionFilter narrows a listing; empty members do not.
type PlanExecutionFilter struct {
	Plan   drs.RecoveryPlanID
	Status drs.ExecutionStatus
}

// PlanExecutions lists the account's executions, newest first.
func (d *DB) PlanExecutions(ctx context.Context, account drs.Account, f PlanExecutionFilter, page Page) ([]drs.PlanExecution, string, error) {
	var rows []executionRow
	q := d.read.NewSelect().Model(&rows).Where("account = ? AND region = ?", account.ID, account.Region)
	if f.Plan != "" {
		q = q.Where("plan = ?", f.Plan)
	}
	if f.Status != "" {
		q = q.Where("status = ?", string(f.Status))
	}
	q, err := page.by(q, "started", "id", true)
	if err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list executions: %w", err)
	}
	rows, next := cut(page, rows, func(r executionRow) cursor { return cursor{int64(r.Started), r.ID} })
	return convert(rows, executionRow.resource), next, nil
}

// RunningPlanExecutions lists those of all accounts that are not over, oldest
// first.
func (d *DB) RunningPlanExecutions(ctx context.Context) ([]drs.PlanExecution, error) {
	return runningExecutions(ctx, d.read.NewSelect())
}

// RunningPlanExecutions is DB.RunningPlanExecutions for the executions of one
// plan, of which there is at most one.
func (tx Tx) RunningPlanExecutions(ctx context.Context, plan drs.RecoveryPlanID) ([]drs.PlanExecution, error) {
	return runningExecutions(ctx, tx.NewSelect().Where("plan = ?", plan))
}

func runningExecutions(ctx context.Context, q *bun.SelectQuery) ([]drs.PlanExecution, error) {
	var rows []executionRow
	// The words stand in the statement, so that its index is seen to fit.
	q = q.Model(&rows).Where("status IN ('CREATED', 'IN_PROGRESS', 'CANCELLING')").Order("started", "id")
	if err := q.Scan(ctx); err != nil {
		return nil, fmt.Errorf("list running executions: %w", err)
	}
	return convert(rows, executionRow.resource), nil
}

// Holder is the running execution of a plan that holds a server.
type Holder struct {
	Server    drs.SourceServerID
	Plan      drs.RecoveryPlanID
	Execution drs.PlanExecutionID
}

// HeldServers tells which of the servers running executions of other plans hold.
func (tx Tx) HeldServers(ctx context.Context, plan drs.RecoveryPlanID, servers []drs.SourceServerID) ([]Holder, error) {
	var held []Holder
	if len(servers) == 0 {
		return held, nil
	}
	err := tx.NewRaw(`SELECT s.source_server AS server, e.plan AS plan, e.id AS execution
		FROM plan_executions e JOIN plan_execution_servers s ON s.execution = e.id
		WHERE e.status IN ('CREATED', 'IN_PROGRESS', 'CANCELLING') AND e.plan <> ? AND s.source_server IN (?)
		ORDER BY s.source_server`, plan, bun.List(servers)).Scan(ctx, &held)
	if err != nil {
		return nil, fmt.Errorf("look up servers in running executions: %w", err)
	}
	return held, nil
}

// InsertPlanExecution adds an execution and its steps.
func (tx Tx) InsertPlanExecution(ctx context.Context, e drs.PlanExecution, steps []drs.ExecutionStep) error {
	row := executionRowOf(e)
	if _, err := tx.NewInsert().Model(&row).Exec(ctx); err != nil {
		return fmt.Errorf("insert execution %s: %w", e.ID, err)
	}
	for _, s := range steps {
		row := executionStepRowOf(s)
		if _, err := tx.NewInsert().Model(&row).Exec(ctx); err != nil {
			return fmt.Errorf("insert step %d of execution %s: %w", s.Index, e.ID, err)
		}
		if err := tx.replaceServers(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// MovePlanExecution writes status, end and error of an execution. The status is
// held against its transition table.
func (tx Tx) MovePlanExecution(ctx context.Context, e drs.PlanExecution) error {
	var kept executionRow
	if err := tx.NewSelect().Model(&kept).Column("status").Where("id = ?", e.ID).Scan(ctx); err != nil {
		return fmt.Errorf("look up execution %s: %w", e.ID, absent(err))
	}
	if _, err := drs.ExecutionStatus(kept.Status).Next(e.Status); err != nil {
		return fmt.Errorf("execution %s: %w", e.ID, err)
	}
	row := executionRowOf(e)
	if _, err := tx.NewUpdate().Model(&row).Column("status", "completed", "error_code", "error_message").WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("update execution %s: %w", e.ID, err)
	}
	return nil
}

// DeletePlanExecution removes an execution and its steps.
func (tx Tx) DeletePlanExecution(ctx context.Context, id drs.PlanExecutionID) error {
	if _, err := tx.NewDelete().Model((*executionRow)(nil)).Where("id = ?", id).Exec(ctx); err != nil {
		return fmt.Errorf("delete execution %s: %w", id, err)
	}
	return nil
}
