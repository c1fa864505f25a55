package drsapi

import (
	"context"
	"errors"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

type (
	launchActionResourceID  string
	launchActionID          string
	launchActionName        string
	launchActionDescription string
	launchActionVersion     string
	ssmDocumentName         string
	launchActionParamValue  string
)

func (launchActionResourceID) Schema(huma.Registry) *huma.Schema {
	return text(0, 21, `s-[0-9a-zA-Z]{17}|lct-[0-9a-zA-Z]{17}`)
}

func (launchActionID) Schema(huma.Registry) *huma.Schema {
	return text(1, 64, `[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}`)
}

func (launchActionName) Schema(huma.Registry) *huma.Schema {
	return text(1, 256, `[A-Za-z0-9][A-Za-z0-9 /_-]*`)
}

func (launchActionDescription) Schema(huma.Registry) *huma.Schema {
	return text(0, 1024, `[0-9a-zA-Z ():/.,'-_#*; ]*`)
}

func (launchActionVersion) Schema(huma.Registry) *huma.Schema {
	return text(1, 10, `(\$DEFAULT|\$LATEST|[0-9]+)`)
}

func (ssmDocumentName) Schema(huma.Registry) *huma.Schema {
	return text(1, maxParameterText, `([A-Za-z0-9-/:])+`)
}

func (launchActionParamValue) Schema(huma.Registry) *huma.Schema {
	return text(1, maxParameterText, `[A-Za-z0-9.-]+`)
}

const (
	maxParameterText = 1011
	maxParameters    = 20
)

// LaunchActionShape are the members of an action, in requests and replies alike.
type LaunchActionShape struct {
	ActionID      launchActionID          `json:"actionId"`
	ActionCode    ssmDocumentName         `json:"actionCode"`
	Name          launchActionName        `json:"name"`
	Active        bool                    `json:"active"`
	Order         int32                   `json:"order" minimum:"2" maximum:"10000"`
	ActionVersion launchActionVersion     `json:"actionVersion"`
	Optional      bool                    `json:"optional"`
	Parameters    launchActionParams      `json:"parameters,omitempty"`
	Description   launchActionDescription `json:"description"`
	Category      string                  `json:"category" enum:"MONITORING,VALIDATION,CONFIGURATION,SECURITY,OTHER"`
}

type launchActionParams map[string]launchActionParam

func (launchActionParams) Schema(r huma.Registry) *huma.Schema {
	most := maxParameters
	return &huma.Schema{
		Type: huma.TypeObject, MaxProperties: &most,
		AdditionalProperties: r.Schema(reflect.TypeFor[launchActionParam](), true, ""),
		Extensions:           map[string]any{propertyNames: text(1, maxParameterText, `([A-Za-z0-9])+`)},
	}
}

type launchActionParam struct {
	Value launchActionParamValue `json:"value,omitempty"`
	Type  string                 `json:"type,omitempty" enum:"SSM_STORE,DYNAMIC"`
}

type launchAction struct {
	LaunchActionShape
	Type string `json:"type" enum:"SSM_AUTOMATION,SSM_COMMAND"`
}

type putLaunchActionRequest struct {
	ResourceID launchActionResourceID `json:"resourceId"`
	LaunchActionShape
}

type putLaunchActionResponse struct {
	ResourceID launchActionResourceID `json:"resourceId"`
	LaunchActionShape
	Type string `json:"type" enum:"SSM_AUTOMATION,SSM_COMMAND"`
}

type listLaunchActionsRequest struct {
	ResourceID launchActionResourceID   `json:"resourceId"`
	Filters    listLaunchActionsFilters `json:"filters,omitempty"`
	Paging1000
}

type listLaunchActionsFilters struct {
	ActionIDs []launchActionID `json:"actionIds,omitempty" maxItems:"100"`
}

type listLaunchActionsResponse struct {
	Items     []launchAction  `json:"items"`
	NextToken paginationToken `json:"nextToken,omitempty"`
}

type deleteLaunchActionRequest struct {
	ResourceID launchActionResourceID `json:"resourceId"`
	ActionID   launchActionID         `json:"actionId"`
}

// putLaunchAction adds an action to a source server or template, or replaces the
// one with its ID.
func (c caller) putLaunchAction(ctx context.Context, in *putLaunchActionRequest) (*putLaunchActionResponse, error) {
	action := drs.LaunchAction{
		ID: string(in.ActionID), Code: string(in.ActionCode), Version: string(in.ActionVersion), Name: string(in.Name),
		Description: string(in.Description), Category: in.Category, Order: int(in.Order), Active: in.Active, Optional: in.Optional,
	}
	if in.Parameters != nil {
		action.Parameters = map[string]drs.LaunchActionParameter{}
	}
	for name, p := range in.Parameters {
		action.Parameters[name] = drs.LaunchActionParameter{Type: p.Type, Value: string(p.Value)}
	}
	err := c.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		if err := c.mayHaveActions(ctx, tx, in.ResourceID); err != nil {
			return err
		}
		others, err := tx.LaunchActions(ctx, string(in.ResourceID))
		if err != nil {
			return err
		}
		if err := fits(action, others, string(in.ResourceID)); err != nil {
			return err
		}
		return tx.PutLaunchAction(ctx, string(in.ResourceID), action)
	})
	if err != nil {
		return nil, err
	}
	shape := launchActionOf(action)
	return &putLaunchActionResponse{ResourceID: in.ResourceID, LaunchActionShape: shape.LaunchActionShape, Type: shape.Type}, nil
}

// fits refuses an action whose order or name another one of the resource has.
func fits(a drs.LaunchAction, others []drs.LaunchAction, resource string) error {
	count := 1
	for _, other := range others {
		switch {
		case other.ID == a.ID:
			continue
		case other.Order == a.Order:
			return drs.Conflict(drs.TypeLaunchAction, a.ID, "Launch action %s (%s) of %s has the order %d already. Choose another.", other.ID, other.Name, resource, a.Order)
		case other.Name == a.Name:
			return drs.Conflict(drs.TypeLaunchAction, a.ID, "Launch action %s of %s has the name %s already. Choose another, or use its actionId.", other.ID, resource, a.Name)
		}
		count++
	}
	if count > drs.MaxLaunchActions {
		// The operation has no exception for a quota.
		return drs.Conflict(drs.TypeLaunchAction, a.ID, "%s has %d launch actions, the most it may have. Delete one first.", resource, count-1)
	}
	return nil
}

// mayHaveActions refuses a resource that the account does not have, and a template
// whose actions are switched off.
func (c caller) mayHaveActions(ctx context.Context, tx db.Tx, resource launchActionResourceID) error {
	id := string(resource)
	if !strings.HasPrefix(id, "lct-") {
		_, err := tx.SourceServer(ctx, c.account, drs.SourceServerID(id))
		if errors.Is(err, db.ErrAbsent) {
			return drs.NotFound(drs.TypeSourceServer, id)
		}
		return err
	}
	template, err := tx.LaunchTemplate(ctx, c.account, drs.LaunchTemplateID(id))
	if errors.Is(err, db.ErrAbsent) {
		return drs.NotFound(drs.TypeLaunchTemplate, id)
	}
	if err == nil && !template.Settings.PostLaunchEnabled {
		return drs.Conflict(drs.TypeLaunchTemplate, id,
			"Post-launch actions of template %s are switched off. Set postLaunchEnabled with UpdateLaunchConfigurationTemplate first.", id)
	}
	return err
}

// listLaunchActions lists the actions of a resource in the order in which they
// are to run.
func (c caller) listLaunchActions(ctx context.Context, in *listLaunchActionsRequest) (*listLaunchActionsResponse, error) {
	id := string(in.ResourceID)
	if err := c.hasActions(ctx, id); err != nil {
		return nil, err
	}
	filter := db.LaunchActionFilter{IDs: mapped(in.Filters.ActionIDs, func(id launchActionID) string { return string(id) })}
	items, next, err := list(c, Paging(in.Paging1000), []any{"ListLaunchActions", id, filter},
		func(page db.Page) ([]drs.LaunchAction, string, error) {
			return c.DB.LaunchActions(ctx, id, filter, page)
		}, launchActionOf)
	if err != nil {
		return nil, err
	}
	return &listLaunchActionsResponse{Items: items, NextToken: next}, nil
}

// hasActions refuses a resource that the account does not have.
func (c caller) hasActions(ctx context.Context, id string) error {
	if !strings.HasPrefix(id, "lct-") {
		_, err := c.existingServer(ctx, sourceServerID(id))
		return err
	}
	found, _, err := c.DB.LaunchTemplates(ctx, c.account, []drs.LaunchTemplateID{drs.LaunchTemplateID(id)}, db.Page{Limit: 1})
	if err == nil && len(found) == 0 {
		return drs.NotFound(drs.TypeLaunchTemplate, id)
	}
	return err
}

func (c caller) deleteLaunchAction(ctx context.Context, in *deleteLaunchActionRequest) (*nothing, error) {
	if err := c.hasActions(ctx, string(in.ResourceID)); err != nil {
		return nil, err
	}
	action := string(in.ActionID)
	err := c.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		return tx.DeleteLaunchAction(ctx, string(in.ResourceID), action)
	})
	if errors.Is(err, db.ErrAbsent) {
		return nil, drs.NotFound(drs.TypeLaunchAction, action)
	}
	return nil, err
}

func launchActionOf(a drs.LaunchAction) launchAction {
	out := launchAction{
		Type: string(a.Type()),
		LaunchActionShape: LaunchActionShape{
			ActionID: launchActionID(a.ID), ActionCode: ssmDocumentName(a.Code), Name: launchActionName(a.Name), Active: a.Active,
			Order: int32(a.Order), ActionVersion: launchActionVersion(a.Version), Optional: a.Optional,
			Description: launchActionDescription(a.Description), Category: a.Category,
		},
	}
	if len(a.Parameters) > 0 {
		out.Parameters = launchActionParams{}
	}
	for name, p := range a.Parameters {
		out.Parameters[name] = launchActionParam{Value: launchActionParamValue(p.Value), Type: p.Type}
	}
	return out
}
