package drsapi

import (
	"context"
	"fmt"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// sourceServerARN names a source server in full.
type sourceServerARN string

func (sourceServerARN) Schema(huma.Registry) *huma.Schema {
	return text(20, 2048, `arn:(?:[0-9a-zA-Z_-]+:){3}([0-9]{12,}):source-server/(s-[0-9a-zA-Z]{17})`)
}

type createRecoveryPlanStepRequest struct {
	RecoveryPlanARN drsARN                        `json:"recoveryPlanArn"`
	StepName        planName                      `json:"stepName"`
	StepOrder       int32                         `json:"stepOrder,omitempty" minimum:"1" maximum:"20"`
	Configuration   recoveryPlanStepConfiguration `json:"configuration"`
	ClientToken     clientToken                   `json:"clientToken,omitempty"`
}

type recoveryPlanStepRequest struct {
	RecoveryPlanStepARN drsARN `json:"recoveryPlanStepArn"`
}

type updateRecoveryPlanStepRequest struct {
	RecoveryPlanStepARN drsARN                         `json:"recoveryPlanStepArn"`
	StepName            planName                       `json:"stepName,omitempty"`
	Configuration       *recoveryPlanStepConfiguration `json:"configuration,omitempty"`
}

type reorderRecoveryPlanStepsRequest struct {
	RecoveryPlanARN drsARN   `json:"recoveryPlanArn"`
	OrderedStepARNs []drsARN `json:"orderedStepArns" minItems:"1" maxItems:"20"`
}

type listRecoveryPlanStepsRequest struct {
	RecoveryPlanARN drsARN `json:"recoveryPlanArn"`
	PlanPaging
}

type recoveryPlanStepResponse struct {
	RecoveryPlanStep recoveryPlanStep `json:"recoveryPlanStep"`
}

type deleteRecoveryPlanStepResponse struct {
	RecoveryPlanStepARN drsARN `json:"recoveryPlanStepArn"`
}

type listRecoveryPlanStepsResponse struct {
	RecoveryPlanSteps []recoveryPlanStep `json:"recoveryPlanSteps"`
	NextToken         paginationToken    `json:"nextToken,omitempty"`
}

type reorderRecoveryPlanStepsResponse struct {
	RecoveryPlanSteps []recoveryPlanStep `json:"recoveryPlanSteps"`
}

// recoveryPlanStepConfiguration has exactly one of its members.
type recoveryPlanStepConfiguration struct {
	ServerStep *serverStepConfiguration `json:"serverStepConfiguration,omitempty"`
	WaitStep   *waitStepConfiguration   `json:"waitStepConfiguration,omitempty"`
}

type serverStepConfiguration struct {
	Servers []recoveryPlanServer `json:"servers" minItems:"1" maxItems:"100"`
}

type waitStepConfiguration struct {
	WaitDurationMinutes int32 `json:"waitDurationMinutes" minimum:"1" maximum:"120"`
}

type recoveryPlanServer struct {
	ServerARN   sourceServerARN `json:"serverArn"`
	ImpactLevel string          `json:"impactLevel,omitempty" enum:"CRITICAL,OPTIONAL"`
}

type recoveryPlanStep struct {
	RecoveryPlanStepARN drsARN                        `json:"recoveryPlanStepArn"`
	StepOrder           int32                         `json:"stepOrder" minimum:"1" maximum:"20"`
	StepName            planName                      `json:"stepName"`
	Configuration       recoveryPlanStepConfiguration `json:"configuration"`
	CreatedAt           timestamp                     `json:"createdAt"`
	UpdatedAt           timestamp                     `json:"updatedAt"`
}

func (c caller) createRecoveryPlanStep(ctx context.Context, in *createRecoveryPlanStepRequest) (*recoveryPlanStepResponse, error) {
	id, err := c.planID(in.RecoveryPlanARN)
	if err != nil {
		return nil, err
	}
	draft := drs.PlanStepDraft{Name: string(in.StepName), Order: int(in.StepOrder), Token: string(in.ClientToken)}
	if draft.Servers, draft.WaitMinutes, err = c.stepConfiguration(in.Configuration); err != nil {
		return nil, err
	}
	return stepReply(c.Plans.CreateStep(ctx, c.account, id, draft))
}

func (c caller) updateRecoveryPlanStep(ctx context.Context, in *updateRecoveryPlanStepRequest) (*recoveryPlanStepResponse, error) {
	plan, step, err := c.planStepID(in.RecoveryPlanStepARN)
	if err != nil {
		return nil, err
	}
	change := drs.PlanStepChange{Name: string(in.StepName)}
	if in.Configuration != nil {
		if change.Servers, change.WaitMinutes, err = c.stepConfiguration(*in.Configuration); err != nil {
			return nil, err
		}
	}
	return stepReply(c.Plans.UpdateStep(ctx, c.account, plan, step, change))
}

// deleteRecoveryPlanStep takes a step out; those after it move up.
func (c caller) deleteRecoveryPlanStep(ctx context.Context, in *recoveryPlanStepRequest) (*deleteRecoveryPlanStepResponse, error) {
	plan, step, err := c.planStepID(in.RecoveryPlanStepARN)
	if err != nil {
		return nil, err
	}
	return &deleteRecoveryPlanStepResponse{in.RecoveryPlanStepARN}, c.Plans.DeleteStep(ctx, c.account, plan, step)
}

func (c caller) getRecoveryPlanStep(ctx context.Context, in *recoveryPlanStepRequest) (*recoveryPlanStepResponse, error) {
	plan, id, err := c.planStepID(in.RecoveryPlanStepARN)
	if err != nil {
		return nil, err
	}
	// Steps know no account, so their plan is looked up for it.
	if _, err := c.findPlan(ctx, drsARN(c.account.ARN(drs.TypeRecoveryPlan, string(plan)))); err != nil {
		return nil, err
	}
	steps, err := c.DB.PlanSteps(ctx, c.account, plan)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(steps, func(s drs.PlanStep) bool { return s.ID == id })
	if at < 0 {
		return nil, drs.NotFound(drs.TypeRecoveryPlan, string(in.RecoveryPlanStepARN))
	}
	return stepReply(steps[at], nil)
}

// listRecoveryPlanSteps lists the steps of a plan in their order.
func (c caller) listRecoveryPlanSteps(ctx context.Context, in *listRecoveryPlanStepsRequest) (*listRecoveryPlanStepsResponse, error) {
	plan, err := c.findPlan(ctx, in.RecoveryPlanARN)
	if err != nil {
		return nil, err
	}
	steps, err := c.DB.PlanSteps(ctx, c.account, plan.ID)
	if err != nil {
		return nil, err
	}
	items, next, err := list(c, Paging(in.PlanPaging), []any{"ListRecoveryPlanSteps", plan.ID},
		func(page db.Page) ([]drs.PlanStep, string, error) {
			return pageOf(page, steps, func(s drs.PlanStep) string { return string(s.ID) })
		}, recoveryPlanStepOf)
	if err != nil {
		return nil, err
	}
	return &listRecoveryPlanStepsResponse{RecoveryPlanSteps: items, NextToken: next}, nil
}

func (c caller) reorderRecoveryPlanSteps(ctx context.Context, in *reorderRecoveryPlanStepsRequest) (*reorderRecoveryPlanStepsResponse, error) {
	plan, err := c.findPlan(ctx, in.RecoveryPlanARN)
	if err != nil {
		return nil, err
	}
	order := make([]drs.PlanStepID, 0, len(in.OrderedStepARNs))
	for n, of := range in.OrderedStepARNs {
		id, step, err := c.planStepID(of)
		if err != nil || id != plan.ID {
			return nil, drs.Invalid(fmt.Sprintf("orderedStepArns[%d]", n), "%s is not a step of recovery plan %s. ListRecoveryPlanSteps lists those that are.", of, plan.ID)
		}
		order = append(order, step)
	}
	steps, err := c.Plans.ReorderSteps(ctx, c.account, plan.ID, order)
	if err != nil {
		return nil, err
	}
	return &reorderRecoveryPlanStepsResponse{mapped(steps, recoveryPlanStepOf)}, nil
}

// pageOf takes one page out of a short list whose order is its own; the cursor is
// the ID of the last item before it. One that has gone meanwhile ends the listing.
func pageOf[T any](page db.Page, all []T, id func(T) string) ([]T, string, error) {
	if page.After != "" {
		at := slices.IndexFunc(all, func(item T) bool { return id(item) == page.After })
		if at < 0 {
			return nil, "", nil
		}
		all = all[at+1:]
	}
	if len(all) <= page.Limit {
		return all, "", nil
	}
	return all[:page.Limit], id(all[page.Limit-1]), nil
}

func (c caller) planStepID(of drsARN) (drs.RecoveryPlanID, drs.PlanStepID, error) {
	account, plan, step, err := drs.ParsePlanStepARN(string(of))
	return plan, step, c.mine(drs.TypeRecoveryPlan, of, account, err)
}

// stepConfiguration reads a union: exactly one of its members must be there.
func (c caller) stepConfiguration(in recoveryPlanStepConfiguration) (servers []drs.PlanServer, waitMinutes int, err error) {
	switch {
	case (in.ServerStep == nil) == (in.WaitStep == nil):
		return nil, 0, drs.Invalid("configuration", "Value at 'configuration' failed to satisfy constraint: "+
			"Member must have exactly one of serverStepConfiguration and waitStepConfiguration")
	case in.WaitStep != nil:
		return nil, int(in.WaitStep.WaitDurationMinutes), nil
	}
	servers, err = c.planServers(in.ServerStep.Servers)
	return servers, 0, err
}

func (c caller) planServers(in []recoveryPlanServer) ([]drs.PlanServer, error) {
	servers := make([]drs.PlanServer, 0, len(in))
	for _, s := range in {
		resource, err := drs.ParseARN(string(s.ServerARN))
		if err != nil || resource.Account != c.account {
			return nil, drs.NotFound(drs.TypeSourceServer, string(s.ServerARN))
		}
		servers = append(servers, drs.PlanServer{SourceServer: drs.SourceServerID(resource.ID), Impact: drs.ImpactLevel(s.ImpactLevel)})
	}
	return servers, nil
}

func stepReply(step drs.PlanStep, err error) (*recoveryPlanStepResponse, error) {
	if err != nil {
		return nil, err
	}
	return &recoveryPlanStepResponse{recoveryPlanStepOf(step)}, nil
}

func recoveryPlanStepOf(s drs.PlanStep) recoveryPlanStep {
	out := recoveryPlanStep{
		RecoveryPlanStepARN: drsARN(s.ARN()), StepOrder: int32(s.Order), StepName: planName(s.Name),
		CreatedAt: timestampOf(s.Created), UpdatedAt: timestampOf(s.Updated),
	}
	if s.Waits() {
		out.Configuration.WaitStep = &waitStepConfiguration{int32(s.WaitMinutes)}
		return out
	}
	out.Configuration.ServerStep = &serverStepConfiguration{mapped(s.Servers, func(p drs.PlanServer) recoveryPlanServer {
		return recoveryPlanServer{ServerARN: serverARN(s.Account, p.SourceServer), ImpactLevel: string(p.Impact)}
	})}
	return out
}

func serverARN(account drs.Account, id drs.SourceServerID) sourceServerARN {
	return sourceServerARN(account.ARN(drs.TypeSourceServer, string(id)))
}
