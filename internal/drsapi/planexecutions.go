package drsapi

import (
	"context"
	"errors"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

type startRecoveryPlanExecutionRequest struct {
	RecoveryPlanARN drsARN                              `json:"recoveryPlanArn"`
	Mode            string                              `json:"mode" enum:"DRILL,RECOVERY"`
	ClientToken     clientToken                         `json:"clientToken,omitempty"`
	SourceServers   []recoveryPlanExecutionSourceServer `json:"sourceServers,omitempty" maxItems:"200"`
	Tags            drs.Tags                            `json:"tags,omitempty"`
}

type recoveryPlanExecutionSourceServer struct {
	SourceServerID     sourceServerID     `json:"sourceServerID"`
	RecoverySnapshotID recoverySnapshotID `json:"recoverySnapshotID"`
}

type recoveryPlanExecutionRequest struct {
	RecoveryPlanExecutionARN drsARN `json:"recoveryPlanExecutionArn"`
}

type listRecoveryPlanExecutionsRequest struct {
	RecoveryPlanARN drsARN `json:"recoveryPlanArn,omitempty"`
	Status          string `json:"status,omitempty" enum:"CREATED,IN_PROGRESS,COMPLETED,FAILED,CANCELLING,CANCELLED"`
	PlanPaging
}

type recoveryPlanExecutionResponse struct {
	RecoveryPlanExecution recoveryPlanExecution `json:"recoveryPlanExecution"`
}

type deleteRecoveryPlanExecutionResponse struct {
	RecoveryPlanExecutionARN drsARN `json:"recoveryPlanExecutionArn"`
}

type listRecoveryPlanExecutionsResponse struct {
	RecoveryPlanExecutions []recoveryPlanExecutionSummary `json:"recoveryPlanExecutions"`
	NextToken              paginationToken                `json:"nextToken,omitempty"`
}

type recoveryPlanExecution struct {
	RecoveryPlanExecutionARN drsARN       `json:"recoveryPlanExecutionArn"`
	RecoveryPlanARN          drsARN       `json:"recoveryPlanArn"`
	Mode                     string       `json:"mode" enum:"DRILL,RECOVERY"`
	Status                   string       `json:"status" enum:"CREATED,IN_PROGRESS,COMPLETED,FAILED,CANCELLING,CANCELLED"`
	StartedAt                timestamp    `json:"startedAt"`
	CompletedAt              timestamp    `json:"completedAt,omitempty"`
	ErrorDetail              *errorDetail `json:"errorDetail,omitempty"`
	Tags                     drs.Tags     `json:"tags"`
}

type recoveryPlanExecutionSummary struct {
	RecoveryPlanExecutionARN drsARN       `json:"recoveryPlanExecutionArn"`
	RecoveryPlanARN          drsARN       `json:"recoveryPlanArn"`
	Mode                     string       `json:"mode" enum:"DRILL,RECOVERY"`
	Status                   string       `json:"status" enum:"CREATED,IN_PROGRESS,COMPLETED,FAILED,CANCELLING,CANCELLED"`
	StartedAt                timestamp    `json:"startedAt"`
	ErrorDetail              *errorDetail `json:"errorDetail,omitempty"`
}

type errorDetail struct {
	Message string `json:"message"`
	Code    string `json:"code"`
}

func errorDetailOf(d drs.ErrorDetail) *errorDetail {
	if d == (drs.ErrorDetail{}) {
		return nil
	}
	return &errorDetail{Message: d.Message, Code: d.Code}
}

// startRecoveryPlanExecution begins a run on a copy of the plan as it is now.
func (c caller) startRecoveryPlanExecution(ctx context.Context, in *startRecoveryPlanExecutionRequest) (*recoveryPlanExecutionResponse, error) {
	if err := checkTags(in.Tags, drs.MaxTags); err != nil {
		return nil, err
	}
	id, err := c.planID(in.RecoveryPlanARN)
	if err != nil {
		return nil, err
	}
	return executionReply(c.Plans.StartExecution(ctx, c.account, drs.StartPlanExecution{
		Plan: id, Drill: in.Mode == "DRILL", Tags: tagsOf(in.Tags), Token: string(in.ClientToken),
		Pinned: mapped(in.SourceServers, func(s recoveryPlanExecutionSourceServer) drs.StartRecoveryServer {
			return drs.StartRecoveryServer{SourceServer: drs.SourceServerID(s.SourceServerID), Snapshot: drs.RecoverySnapshotID(s.RecoverySnapshotID)}
		}),
	}))
}

func (c caller) getRecoveryPlanExecution(ctx context.Context, in *recoveryPlanExecutionRequest) (*recoveryPlanExecutionResponse, error) {
	return executionReply(c.findExecution(ctx, in.RecoveryPlanExecutionARN))
}

// listRecoveryPlanExecutions lists executions, newest first; those of a plan that
// is gone too.
func (c caller) listRecoveryPlanExecutions(ctx context.Context, in *listRecoveryPlanExecutionsRequest) (*listRecoveryPlanExecutionsResponse, error) {
	filter := db.PlanExecutionFilter{Status: drs.ExecutionStatus(in.Status)}
	if in.RecoveryPlanARN != "" {
		id, err := c.planID(in.RecoveryPlanARN)
		if err != nil { // the operation knows no 404
			return &listRecoveryPlanExecutionsResponse{RecoveryPlanExecutions: []recoveryPlanExecutionSummary{}}, nil //nolint:nilerr // it names no plan of the account
		}
		filter.Plan = id
	}
	items, next, err := list(c, Paging(in.PlanPaging), []any{"ListRecoveryPlanExecutions", filter},
		func(page db.Page) ([]drs.PlanExecution, string, error) {
			return c.DB.PlanExecutions(ctx, c.account, filter, page)
		}, recoveryPlanExecutionSummaryOf)
	if err != nil {
		return nil, err
	}
	return &listRecoveryPlanExecutionsResponse{RecoveryPlanExecutions: items, NextToken: next}, nil
}

// cancelRecoveryPlanExecution ends a run after the step that it is at.
func (c caller) cancelRecoveryPlanExecution(ctx context.Context, in *recoveryPlanExecutionRequest) (*recoveryPlanExecutionResponse, error) {
	id, err := c.executionID(in.RecoveryPlanExecutionARN)
	if err != nil {
		return nil, err
	}
	return executionReply(c.Plans.CancelExecution(ctx, c.account, id))
}

func (c caller) deleteRecoveryPlanExecution(ctx context.Context, in *recoveryPlanExecutionRequest) (*deleteRecoveryPlanExecutionResponse, error) {
	id, err := c.executionID(in.RecoveryPlanExecutionARN)
	if err != nil {
		return nil, err
	}
	return &deleteRecoveryPlanExecutionResponse{in.RecoveryPlanExecutionARN}, c.Plans.DeleteExecution(ctx, c.account, id)
}

func (c caller) executionID(of drsARN) (drs.PlanExecutionID, error) {
	account, id, err := drs.ParsePlanExecutionARN(string(of))
	return id, c.mine(drs.TypePlanExecution, of, account, err)
}

func (c caller) findExecution(ctx context.Context, of drsARN) (drs.PlanExecution, error) {
	id, err := c.executionID(of)
	if err != nil {
		return drs.PlanExecution{}, err
	}
	e, err := c.DB.PlanExecution(ctx, c.account, id)
	if errors.Is(err, db.ErrAbsent) {
		err = drs.NotFound(drs.TypePlanExecution, string(id))
	}
	return e, err
}

func executionReply(e drs.PlanExecution, err error) (*recoveryPlanExecutionResponse, error) {
	if err != nil {
		return nil, err
	}
	short := recoveryPlanExecutionSummaryOf(e)
	return &recoveryPlanExecutionResponse{recoveryPlanExecution{
		RecoveryPlanExecutionARN: short.RecoveryPlanExecutionARN, RecoveryPlanARN: short.RecoveryPlanARN, Mode: short.Mode, Status: short.Status,
		StartedAt: short.StartedAt, CompletedAt: timestampOf(e.Completed), ErrorDetail: short.ErrorDetail, Tags: tagsOf(e.Tags),
	}}, nil
}

func recoveryPlanExecutionSummaryOf(e drs.PlanExecution) recoveryPlanExecutionSummary {
	mode := "RECOVERY"
	if e.Drill {
		mode = "DRILL"
	}
	return recoveryPlanExecutionSummary{
		RecoveryPlanExecutionARN: drsARN(e.ARN()), RecoveryPlanARN: drsARN(e.PlanARN()), Mode: mode, Status: string(e.Status),
		StartedAt: timestampOf(e.Started), ErrorDetail: errorDetailOf(e.Error),
	}
}
