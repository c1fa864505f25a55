package drsapi

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// PlanEditor changes recovery plans and their steps. It refuses with *drs.Error.
type PlanEditor interface {
	CreatePlan(context.Context, drs.Account, drs.PlanDraft) (drs.RecoveryPlan, error)
	UpdatePlan(context.Context, drs.Account, drs.RecoveryPlanID, drs.PlanChange) (drs.RecoveryPlan, error)
	DeletePlan(context.Context, drs.Account, drs.RecoveryPlanID) error

	CreateStep(context.Context, drs.Account, drs.RecoveryPlanID, drs.PlanStepDraft) (drs.PlanStep, error)
	UpdateStep(context.Context, drs.Account, drs.RecoveryPlanID, drs.PlanStepID, drs.PlanStepChange) (drs.PlanStep, error)
	DeleteStep(context.Context, drs.Account, drs.RecoveryPlanID, drs.PlanStepID) error
	ReorderSteps(context.Context, drs.Account, drs.RecoveryPlanID, []drs.PlanStepID) ([]drs.PlanStep, error)
}

// PlanRunner runs recovery plans. It refuses with *drs.Error; what it accepts is
// durable and goes on without the caller.
type PlanRunner interface {
	StartExecution(context.Context, drs.Account, drs.StartPlanExecution) (drs.PlanExecution, error)
	CancelExecution(context.Context, drs.Account, drs.PlanExecutionID) (drs.PlanExecution, error)
	DeleteExecution(context.Context, drs.Account, drs.PlanExecutionID) error
	RetryStep(context.Context, drs.Account, drs.PlanExecutionID, drs.ExecutionStepID) (drs.ExecutionStep, error)
	UpdateExecutionStep(context.Context, drs.Account, drs.PlanExecutionID, drs.ExecutionStepID, drs.ExecutionStepChange) (drs.ExecutionStep, error)
}

// Plans is who edits and runs recovery plans.
type Plans interface {
	PlanEditor
	PlanRunner
}

func (a *API) registerPlans() {
	add(a, operation{name: "CreateRecoveryPlan", status: http.StatusCreated, access: onAnything().creating(drs.TypeRecoveryPlan)}, caller.createRecoveryPlan)
	add(a, operation{name: "GetRecoveryPlan", access: onARN("recoveryPlanArn")}, caller.getRecoveryPlan)
	add(a, operation{name: "ListRecoveryPlans", access: onAnything()}, caller.listRecoveryPlans)
	add(a, operation{name: "UpdateRecoveryPlan", access: onARN("recoveryPlanArn")}, caller.updateRecoveryPlan)
	add(a, operation{name: "DeleteRecoveryPlan", access: onARN("recoveryPlanArn")}, caller.deleteRecoveryPlan)

	add(a, operation{name: "CreateRecoveryPlanStep", status: http.StatusCreated, access: onARN("recoveryPlanArn")}, caller.createRecoveryPlanStep)
	add(a, operation{name: "GetRecoveryPlanStep", access: onARN("recoveryPlanStepArn")}, caller.getRecoveryPlanStep)
	add(a, operation{name: "ListRecoveryPlanSteps", access: onARN("recoveryPlanArn")}, caller.listRecoveryPlanSteps)
	add(a, operation{name: "UpdateRecoveryPlanStep", access: onARN("recoveryPlanStepArn")}, caller.updateRecoveryPlanStep)
	add(a, operation{name: "DeleteRecoveryPlanStep", access: onARN("recoveryPlanStepArn")}, caller.deleteRecoveryPlanStep)
	add(a, operation{name: "ReorderRecoveryPlanSteps", access: onARN("recoveryPlanArn")}, caller.reorderRecoveryPlanSteps)

	add(a, operation{name: "StartRecoveryPlanExecution", status: http.StatusCreated, access: onARN("recoveryPlanArn").creating(drs.TypePlanExecution)}, caller.startRecoveryPlanExecution)
	add(a, operation{name: "GetRecoveryPlanExecution", access: onARN("recoveryPlanExecutionArn")}, caller.getRecoveryPlanExecution)
	add(a, operation{name: "ListRecoveryPlanExecutions", access: onAnything()}, caller.listRecoveryPlanExecutions)
	add(a, operation{name: "CancelRecoveryPlanExecution", access: onARN("recoveryPlanExecutionArn")}, caller.cancelRecoveryPlanExecution)
	add(a, operation{name: "DeleteRecoveryPlanExecution", access: onARN("recoveryPlanExecutionArn")}, caller.deleteRecoveryPlanExecution)

	add(a, operation{name: "ListRecoveryPlanExecutionSteps", access: onARN("recoveryPlanExecutionArn")}, caller.listRecoveryPlanExecutionSteps)
	add(a, operation{name: "GetRecoveryPlanExecutionStep", access: onARN("recoveryPlanExecutionStepArn")}, caller.getRecoveryPlanExecutionStep)
	add(a, operation{name: "UpdateRecoveryPlanExecutionStep", access: onARN("recoveryPlanExecutionStepArn")}, caller.updateRecoveryPlanExecutionStep)
	add(a, operation{name: "RetryRecoveryPlanExecutionStep", access: onARN("recoveryPlanExecutionStepArn")}, caller.retryRecoveryPlanExecutionStep)
}

type (
	drsARN          string // of a DRS resource
	planName        string
	planDescription string
	clientToken     string
)

func (drsARN) Schema(huma.Registry) *huma.Schema {
	return text(20, 2048, `arn:aws(-[a-z0-9]+)*:drs:[a-z0-9-]+:[0-9]{12}:[a-zA-Z0-9_/.-]+`)
}
func (planName) Schema(huma.Registry) *huma.Schema        { return text(1, 256, `[a-zA-Z0-9][a-zA-Z0-9 _-]*`) }
func (planDescription) Schema(huma.Registry) *huma.Schema { return text(0, 1024, "") }
func (clientToken) Schema(huma.Registry) *huma.Schema     { return text(0, 64, "") }

// PlanPaging are the members of a paged request of recovery plans, whose pages
// are bounded.
type PlanPaging struct {
	MaxResults int32           `json:"maxResults,omitempty" minimum:"1" maximum:"1000"`
	NextToken  paginationToken `json:"nextToken,omitempty"`
}

type createRecoveryPlanRequest struct {
	Name        planName        `json:"name"`
	Description planDescription `json:"description,omitempty"`
	ClientToken clientToken     `json:"clientToken,omitempty"`
	Tags        drs.Tags        `json:"tags,omitempty"`
}

type recoveryPlanRequest struct {
	RecoveryPlanARN drsARN `json:"recoveryPlanArn"`
}

type updateRecoveryPlanRequest struct {
	RecoveryPlanARN drsARN           `json:"recoveryPlanArn"`
	Name            *planName        `json:"name,omitempty"`
	Description     *planDescription `json:"description,omitempty"`
}

type recoveryPlanResponse struct {
	RecoveryPlan recoveryPlan `json:"recoveryPlan"`
}

type deleteRecoveryPlanResponse struct {
	RecoveryPlanARN drsARN `json:"recoveryPlanArn"`
}

type listRecoveryPlansRequest struct{ PlanPaging }

type listRecoveryPlansResponse struct {
	RecoveryPlans []recoveryPlanSummary `json:"recoveryPlans"`
	NextToken     paginationToken       `json:"nextToken,omitempty"`
}

type recoveryPlan struct {
	RecoveryPlanARN drsARN          `json:"recoveryPlanArn"`
	Name            planName        `json:"name"`
	Description     planDescription `json:"description,omitempty"`
	Status          string          `json:"status" enum:"ACTIVE,INVALID"`
	CreatedAt       timestamp       `json:"createdAt"`
	UpdatedAt       timestamp       `json:"updatedAt"`
	Tags            drs.Tags        `json:"tags"`
}

type recoveryPlanSummary struct {
	RecoveryPlanARN drsARN    `json:"recoveryPlanArn"`
	Name            planName  `json:"name"`
	Status          string    `json:"status" enum:"ACTIVE,INVALID"`
	CreatedAt       timestamp `json:"createdAt"`
	UpdatedAt       timestamp `json:"updatedAt"`
}

func recoveryPlanOf(p drs.RecoveryPlan) recoveryPlan {
	return recoveryPlan{
		RecoveryPlanARN: drsARN(p.ARN()), Name: planName(p.Name), Description: planDescription(p.Description), Status: string(p.Status),
		CreatedAt: timestampOf(p.Created), UpdatedAt: timestampOf(p.Updated), Tags: tagsOf(p.Tags),
	}
}

// createRecoveryPlan makes a plan without steps, which cannot run yet.
func (c caller) createRecoveryPlan(ctx context.Context, in *createRecoveryPlanRequest) (*recoveryPlanResponse, error) {
	if err := checkTags(in.Tags, drs.MaxTags); err != nil {
		return nil, err
	}
	plan, err := c.Plans.CreatePlan(ctx, c.account, drs.PlanDraft{
		Name: string(in.Name), Description: string(in.Description), Tags: tagsOf(in.Tags), Token: string(in.ClientToken),
	})
	if err != nil {
		return nil, err
	}
	return &recoveryPlanResponse{recoveryPlanOf(plan)}, nil
}

func (c caller) getRecoveryPlan(ctx context.Context, in *recoveryPlanRequest) (*recoveryPlanResponse, error) {
	plan, err := c.findPlan(ctx, in.RecoveryPlanARN)
	if err != nil {
		return nil, err
	}
	return &recoveryPlanResponse{recoveryPlanOf(plan)}, nil
}

// listRecoveryPlans lists the plans of the account, oldest first.
func (c caller) listRecoveryPlans(ctx context.Context, in *listRecoveryPlansRequest) (*listRecoveryPlansResponse, error) {
	items, next, err := list(c, Paging(in.PlanPaging), []any{"ListRecoveryPlans"},
		func(page db.Page) ([]drs.RecoveryPlan, string, error) { return c.DB.Plans(ctx, c.account, page) },
		func(p drs.RecoveryPlan) recoveryPlanSummary {
			return recoveryPlanSummary{
				RecoveryPlanARN: drsARN(p.ARN()), Name: planName(p.Name), Status: string(p.Status),
				CreatedAt: timestampOf(p.Created), UpdatedAt: timestampOf(p.Updated),
			}
		})
	if err != nil {
		return nil, err
	}
	return &listRecoveryPlansResponse{RecoveryPlans: items, NextToken: next}, nil
}

func (c caller) updateRecoveryPlan(ctx context.Context, in *updateRecoveryPlanRequest) (*recoveryPlanResponse, error) {
	id, err := c.planID(in.RecoveryPlanARN)
	if err != nil {
		return nil, err
	}
	plan, err := c.Plans.UpdatePlan(ctx, c.account, id, drs.PlanChange{Name: (*string)(in.Name), Description: (*string)(in.Description)})
	if err != nil {
		return nil, err
	}
	return &recoveryPlanResponse{recoveryPlanOf(plan)}, nil
}

// deleteRecoveryPlan removes a plan; what it launched, and its executions, stay.
func (c caller) deleteRecoveryPlan(ctx context.Context, in *recoveryPlanRequest) (*deleteRecoveryPlanResponse, error) {
	id, err := c.planID(in.RecoveryPlanARN)
	if err != nil {
		return nil, err
	}
	return &deleteRecoveryPlanResponse{in.RecoveryPlanARN}, c.Plans.DeletePlan(ctx, c.account, id)
}

// planID reads the ARN of a plan. One of another account or kind of resource
// names nothing that the caller could know of.
func (c caller) planID(of drsARN) (drs.RecoveryPlanID, error) {
	account, id, err := drs.ParsePlanARN(string(of))
	return id, c.mine(drs.TypeRecoveryPlan, of, account, err)
}

// mine refuses an ARN that is of another account or names no resource of the
// type.
func (c caller) mine(t drs.ResourceType, of drsARN, account drs.Account, err error) error {
	if err == nil && account == c.account {
		return nil
	}
	refusal := drs.NotFound(t, string(of))
	if err != nil {
		refusal.Message = err.Error() + "."
	}
	return refusal
}

func (c caller) findPlan(ctx context.Context, of drsARN) (drs.RecoveryPlan, error) {
	id, err := c.planID(of)
	if err != nil {
		return drs.RecoveryPlan{}, err
	}
	plan, err := c.DB.Plan(ctx, c.account, id)
	if errors.Is(err, db.ErrAbsent) {
		err = drs.NotFound(drs.TypeRecoveryPlan, string(id))
	}
	return plan, err
}
