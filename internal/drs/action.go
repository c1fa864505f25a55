package drs

import (
	"slices"
	"strings"
)

// LaunchAction is something to do on a recovery instance after its launch: a
// document of AWS Systems Manager and what to give it. Stored as JSON: a field
// may be added, none renamed.
type LaunchAction struct {
	ID          string                           `json:"id"` // a UUID that the client chose
	Code        string                           `json:"code"`
	Version     string                           `json:"version"`
	Name        string                           `json:"name"`
	Description string                           `json:"description"`
	Category    string                           `json:"category"`
	Order       int                              `json:"order"` // 2 to 10000; lower ones first
	Active      bool                             `json:"active"`
	Optional    bool                             `json:"optional"`
	Parameters  map[string]LaunchActionParameter `json:"parameters,omitempty"`
}

// LaunchActionParameter is one parameter of the document.
type LaunchActionParameter struct {
	Type  string `json:"type"` // SSM_STORE or DYNAMIC
	Value string `json:"value"`
}

// LaunchActionType is how Systems Manager runs the document of an action.
type LaunchActionType string

const (
	ActionCommand    LaunchActionType = "SSM_COMMAND"
	ActionAutomation LaunchActionType = "SSM_AUTOMATION"
)

// automations are the documents of AWS in the names' family of commands that are
// automations.
var automations = map[string]bool{
	"AWS-CreateImage": true, "AWS-StartEC2Instance": true, "AWS-StopEC2Instance": true, "AWS-RestartEC2Instance": true,
	"AWS-ResizeInstance": true, "AWS-CreateSnapshot": true, "AWS-AttachIAMToInstance": true, "AWS-SetupInventory": true,
}

// Type is derived from the document, as the service does. Lifeboat has no
// documents to look into, so it goes by their names: automations are those that an
// ARN calls so, runbooks of Support, and the ones of AWS that are known to be.
func (a LaunchAction) Type() LaunchActionType {
	name := a.Code[strings.LastIndexByte(a.Code, '/')+1:]
	if strings.Contains(a.Code, ":automation-definition/") || strings.HasPrefix(name, "AWSSupport-") || automations[name] {
		return ActionAutomation
	}
	return ActionCommand
}

// MaxLaunchActions is how many actions one server or template may have.
const MaxLaunchActions = 200

// LaunchActionRun is what became of one action in one launch.
type LaunchActionRun struct {
	Action LaunchAction          `json:"action"`
	ID     string                `json:"id"`
	Status LaunchActionRunStatus `json:"status"`
	Reason string                `json:"reason,omitempty"` // why it failed
}

// LaunchActionRunStatus is how far a run is.
type LaunchActionRunStatus string

const (
	RunInProgress LaunchActionRunStatus = "IN_PROGRESS"
	RunSucceeded  LaunchActionRunStatus = "SUCCEEDED"
	RunFailed     LaunchActionRunStatus = "FAILED"
)

// RequiredFailed tells whether an action failed that is not optional: the launch
// does not count as successful then.
func RequiredFailed(runs []LaunchActionRun) bool {
	return slices.ContainsFunc(runs, func(r LaunchActionRun) bool { return !r.Action.Optional && r.Status == RunFailed })
}
