package db

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

type executionStepRow struct {
	bun.BaseModel `bun:"table:plan_execution_steps"`

	ID           string `bun:",pk"`
	Execution    string
	Ordinal      int64
	Name         string
	Status       string
	Attempt      int64
	WaitMinutes  int64
	WaitUntil    stamp
	ErrorCode    string
	ErrorMessage string
	Created      stamp
	Updated      stamp
}

type executionServerRow struct {
	bun.BaseModel `bun:"table:plan_execution_servers"`

	Step         string `bun:",pk"`
	Ordinal      int64  `bun:",pk"`
	Execution    string
	SourceServer string
	Impact       string
	Snapshot     string
	Job          string
}

func executionStepRowOf(s drs.ExecutionStep) executionStepRow {
	return executionStepRow{
		ID: string(s.ID), Execution: string(s.Execution), Ordinal: int64(s.Index), Name: s.Name, Status: string(s.Status),
		Attempt: int64(s.Attempt), WaitMinutes: int64(s.WaitMinutes), WaitUntil: stampOf(s.WaitUntil),
		ErrorCode: s.Error.Code, ErrorMessage: s.Error.Message, Created: stampOf(s.Created), Updated: stampOf(s.Updated),
	}
}

// ExecutionSteps lists all steps of an execution in order.
func (d *DB) ExecutionSteps(ctx context.Context, e drs.PlanExecution) ([]drs.ExecutionStep, error) {
	return executionSteps(ctx, d.read, e)
}

// ExecutionSteps is DB.ExecutionSteps within the transaction.
func (tx Tx) ExecutionSteps(ctx context.Context, e drs.PlanExecution) ([]drs.ExecutionStep, error) {
	return executionSteps(ctx, tx, e)
}

func executionSteps(ctx context.Context, db bun.IDB, e drs.PlanExecution) ([]drs.ExecutionStep, error) {
	var rows []executionStepRow
	if err := db.NewSelect().Model(&rows).Where("execution = ?", e.ID).Order("ordinal").Scan(ctx); err != nil {
		return nil, fmt.Errorf("list the steps of execution %s: %w", e.ID, err)
	}
	var servers []executionServerRow
	if err := db.NewSelect().Model(&servers).Where("execution = ?", e.ID).Order("step", "ordinal").Scan(ctx); err != nil {
		return nil, fmt.Errorf("list the servers of execution %s: %w", e.ID, err)
	}
	of := map[string][]drs.ExecutionServer{}
	for _, s := range servers {
		of[s.Step] = append(of[s.Step], drs.ExecutionServer{
			PlanServer: drs.PlanServer{SourceServer: drs.SourceServerID(s.SourceServer), Impact: drs.ImpactLevel(s.Impact)},
			Snapshot:   drs.RecoverySnapshotID(s.Snapshot), Job: drs.JobID(s.Job),
		})
	}
	return convert(rows, func(r executionStepRow) drs.ExecutionStep {
		return drs.ExecutionStep{
			ID: drs.ExecutionStepID(r.ID), Execution: e.ID, Account: e.Account, Index: int(r.Ordinal), Name: r.Name,
			Status: drs.ExecutionStepStatus(r.Status), Attempt: int(r.Attempt), Servers: of[r.ID],
			WaitMinutes: int(r.WaitMinutes), WaitUntil: r.WaitUntil.Time(),
			Error: drs.ErrorDetail{Code: r.ErrorCode, Message: r.ErrorMessage}, Created: r.Created.Time(), Updated: r.Updated.Time(),
		}
	}), nil
}

// MoveExecutionStep writes all of a step that changes in a run, its servers too.
// The status is held against its transition table.
func (tx Tx) MoveExecutionStep(ctx context.Context, s drs.ExecutionStep) error {
	var kept executionStepRow
	if err := tx.NewSelect().Model(&kept).Column("status").Where("id = ?", s.ID).Scan(ctx); err != nil {
		return fmt.Errorf("look up step %s: %w", s.ID, absent(err))
	}
	if _, err := drs.ExecutionStepStatus(kept.Status).Next(s.Status); err != nil {
		return fmt.Errorf("step %s: %w", s.ID, err)
	}
	row := executionStepRowOf(s)
	_, err := tx.NewUpdate().Model(&row).
		Column("status", "attempt", "wait_minutes", "wait_until", "error_code", "error_message", "updated").WherePK().Exec(ctx)
	if err != nil {
		return fmt.Errorf("update step %s: %w", s.ID, err)
	}
	return tx.replaceServers(ctx, s)
}

func (tx Tx) replaceServers(ctx context.Context, s drs.ExecutionStep) error {
	if _, err := tx.NewDelete().Model((*executionServerRow)(nil)).Where("step = ?", s.ID).Exec(ctx); err != nil {
		return fmt.Errorf("replace the servers of step %s: %w", s.ID, err)
	}
	var rows []executionServerRow
	for i, server := range s.Servers {
		rows = append(rows, executionServerRow{
			Step: string(s.ID), Ordinal: int64(i), Execution: string(s.Execution), SourceServer: string(server.SourceServer),
			Impact: string(server.Impact), Snapshot: string(server.Snapshot), Job: string(server.Job),
		})
	}
	if len(rows) == 0 {
		return nil
	}
	if _, err := tx.NewInsert().Model(&rows).Exec(ctx); err != nil {
		return fmt.Errorf("replace the servers of step %s: %w", s.ID, err)
	}
	return nil
}
