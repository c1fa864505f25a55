package drsapi

import (
	"context"
	"slices"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

type listRecoveryPlanExecutionStepsRequest struct {
	RecoveryPlanExecutionARN drsARN                               `json:"recoveryPlanExecutionArn"`
	Filter                   listRecoveryPlanExecutionStepsFilter `json:"filter,omitempty"`
	PlanPaging
}

type listRecoveryPlanExecutionStepsFilter struct {
	Status string `json:"status,omitempty" enum:"NOT_STARTED,EXECUTING,WAITING,COMPLETED,FAILED,TIMED_OUT,SKIPPED"`
}

type recoveryPlanExecutionStepRequest struct {
	RecoveryPlanExecutionStepARN drsARN `json:"recoveryPlanExecutionStepArn"`
}

type updateRecoveryPlanExecutionStepRequest struct {
	RecoveryPlanExecutionStepARN drsARN               `json:"recoveryPlanExecutionStepArn"`
	Status                       string               `json:"status,omitempty" enum:"NOT_STARTED,EXECUTING,WAITING,COMPLETED,FAILED,TIMED_OUT,SKIPPED"`
	Servers                      []recoveryPlanServer `json:"servers,omitempty" minItems:"1" maxItems:"100"`
	WaitDurationMinutes          int32                `json:"waitDurationMinutes,omitempty" minimum:"1" maximum:"120"`
}

type recoveryPlanExecutionStepResponse struct {
	RecoveryPlanExecutionStep recoveryPlanExecutionStep `json:"recoveryPlanExecutionStep"`
}

type listRecoveryPlanExecutionStepsResponse struct {
	RecoveryPlanExecutionSteps []recoveryPlanExecutionStepSummary `json:"recoveryPlanExecutionSteps"`
	NextToken                  paginationToken                    `json:"nextToken,omitempty"`
}

// executionStepConfiguration has exactly one of its members.
type executionStepConfiguration struct {
	ServerStep *executionServerStepConfiguration `json:"executionServerStepConfiguration,omitempty"`
	WaitStep   *waitStepConfiguration            `json:"waitStepConfiguration,omitempty"`
}

type executionServerStepConfiguration struct {
	Servers []recoveryPlanExecutionServer `json:"servers" minItems:"1" maxItems:"100"`
}

type recoveryPlanExecutionServer struct {
	ServerARN   sourceServerARN `json:"serverArn"`
	ImpactLevel string          `json:"impactLevel,omitempty" enum:"CRITICAL,OPTIONAL"`
	JobID       jobID           `json:"jobID,omitempty"`
}

type recoveryPlanExecutionStep struct {
	RecoveryPlanExecutionStepARN drsARN                     `json:"recoveryPlanExecutionStepArn"`
	StepIndex                    int32                      `json:"stepIndex" minimum:"1" maximum:"20"`
	Status                       string                     `json:"status" enum:"NOT_STARTED,EXECUTING,WAITING,COMPLETED,FAILED,TIMED_OUT,SKIPPED"`
	StepName                     planName                   `json:"stepName"`
	Configuration                executionStepConfiguration `json:"configuration"`
	ErrorDetail                  *errorDetail               `json:"errorDetail,omitempty"`
	Attempt                      int32                      `json:"attempt" minimum:"1"`
	CreatedAt                    timestamp                  `json:"createdAt"`
	UpdatedAt                    timestamp                  `json:"updatedAt"`
}

type recoveryPlanExecutionStepSummary struct {
	RecoveryPlanExecutionStepARN drsARN                     `json:"recoveryPlanExecutionStepArn"`
	StepName                     planName                   `json:"stepName"`
	StepIndex                    int32                      `json:"stepIndex" minimum:"1" maximum:"20"`
	Status                       string                     `json:"status" enum:"NOT_STARTED,EXECUTING,WAITING,COMPLETED,FAILED,TIMED_OUT,SKIPPED"`
	Configuration                executionStepConfiguration `json:"configuration"`
	ErrorDetail                  *errorDetail               `json:"errorDetail,omitempty"`
}

// listRecoveryPlanExecutionSteps lists the steps of an execution in their order.
func (c caller) listRecoveryPlanExecutionSteps(ctx context.Context, in *listRecoveryPlanExecutionStepsRequest) (*listRecoveryPlanExecutionStepsResponse, error) {
	e, err := c.findExecution(ctx, in.RecoveryPlanExecutionARN)
	if err != nil {
		return nil, err
	}
	steps, err := c.DB.ExecutionSteps(ctx, e)
	if err != nil {
		return nil, err
	}
	items, next, err := list(c, Paging(in.PlanPaging), []any{"ListRecoveryPlanExecutionSteps", e.ID, in.Filter.Status},
		func(page db.Page) ([]drs.ExecutionStep, string, error) {
			if status := in.Filter.Status; status != "" {
				// The step that a page goes on after may have moved on since.
				steps = slices.DeleteFunc(steps, func(s drs.ExecutionStep) bool { return string(s.Status) != status && string(s.ID) != page.After })
			}
			return pageOf(page, steps, func(s drs.ExecutionStep) string { return string(s.ID) })
		},
		func(s drs.ExecutionStep) recoveryPlanExecutionStepSummary {
			full := executionStepOf(s)
			return recoveryPlanExecutionStepSummary{
				RecoveryPlanExecutionStepARN: full.RecoveryPlanExecutionStepARN, StepName: full.StepName, StepIndex: full.StepIndex,
				Status: full.Status, Configuration: full.Configuration, ErrorDetail: full.ErrorDetail,
			}
		})
	if err != nil {
		return nil, err
	}
	return &listRecoveryPlanExecutionStepsResponse{RecoveryPlanExecutionSteps: items, NextToken: next}, nil
}

func (c caller) getRecoveryPlanExecutionStep(ctx context.Context, in *recoveryPlanExecutionStepRequest) (*recoveryPlanExecutionStepResponse, error) {
	execution, id, err := c.executionStepID(in.RecoveryPlanExecutionStepARN)
	if err != nil {
		return nil, err
	}
	e, err := c.findExecution(ctx, drsARN(c.account.ARN(drs.TypePlanExecution, string(execution))))
	if err != nil {
		return nil, err
	}
	steps, err := c.DB.ExecutionSteps(ctx, e)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(steps, func(s drs.ExecutionStep) bool { return s.ID == id })
	if at < 0 {
		return nil, drs.NotFound(drs.TypePlanExecution, string(in.RecoveryPlanExecutionStepARN))
	}
	return executionStepReply(steps[at], nil)
}

// updateRecoveryPlanExecutionStep does one thing at a time: it skips a step, or
// changes the servers or the wait of one that has not begun.
func (c caller) updateRecoveryPlanExecutionStep(ctx context.Context, in *updateRecoveryPlanExecutionStepRequest) (*recoveryPlanExecutionStepResponse, error) {
	execution, step, err := c.executionStepID(in.RecoveryPlanExecutionStepARN)
	if err != nil {
		return nil, err
	}
	set := 0
	for _, is := range []bool{in.Status != "", len(in.Servers) > 0, in.WaitDurationMinutes > 0} {
		if is {
			set++
		}
	}
	if set != 1 {
		return nil, &drs.Error{Kind: drs.KindValidation, Message: "Give exactly one of status, servers and waitDurationMinutes."}
	}
	if in.Status != "" && in.Status != string(drs.PlanStepSkipped) {
		return nil, drs.Invalid("status", "A step can be set to SKIPPED only; the execution itself sets %s.", in.Status)
	}
	servers, err := c.planServers(in.Servers)
	if err != nil {
		return nil, err
	}
	return executionStepReply(c.Plans.UpdateExecutionStep(ctx, c.account, execution, step, drs.ExecutionStepChange{
		Skip: in.Status != "", Servers: servers, WaitMinutes: int(in.WaitDurationMinutes),
	}))
}

// retryRecoveryPlanExecutionStep recovers again what failed in a step.
func (c caller) retryRecoveryPlanExecutionStep(ctx context.Context, in *recoveryPlanExecutionStepRequest) (*recoveryPlanExecutionStepResponse, error) {
	execution, step, err := c.executionStepID(in.RecoveryPlanExecutionStepARN)
	if err != nil {
		return nil, err
	}
	return executionStepReply(c.Plans.RetryStep(ctx, c.account, execution, step))
}

func (c caller) executionStepID(of drsARN) (drs.PlanExecutionID, drs.ExecutionStepID, error) {
	account, execution, step, err := drs.ParseExecutionStepARN(string(of))
	return execution, step, c.mine(drs.TypePlanExecution, of, account, err)
}

func executionStepReply(s drs.ExecutionStep, err error) (*recoveryPlanExecutionStepResponse, error) {
	if err != nil {
		return nil, err
	}
	return &recoveryPlanExecutionStepResponse{executionStepOf(s)}, nil
}

func executionStepOf(s drs.ExecutionStep) recoveryPlanExecutionStep {
	out := recoveryPlanExecutionStep{
		RecoveryPlanExecutionStepARN: drsARN(s.ARN()), StepIndex: int32(s.Index), Status: string(s.Status), StepName: planName(s.Name),
		ErrorDetail: errorDetailOf(s.Error), Attempt: int32(s.Attempt), CreatedAt: timestampOf(s.Created), UpdatedAt: timestampOf(s.Updated),
	}
	if s.Waits() {
		out.Configuration.WaitStep = &waitStepConfiguration{int32(s.WaitMinutes)}
		return out
	}
	out.Configuration.ServerStep = &executionServerStepConfiguration{mapped(s.Servers, func(p drs.ExecutionServer) recoveryPlanExecutionServer {
		return recoveryPlanExecutionServer{ServerARN: serverARN(s.Account, p.SourceServer), ImpactLevel: string(p.Impact), JobID: jobID(p.Job)}
	})}
	return out
}
