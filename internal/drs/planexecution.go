package drs

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// MaxPlanRun is how long an execution may take; after it, no step begins.
const MaxPlanRun = 24 * time.Hour

// PlanExecution is one run of a plan, on a copy of its steps as they were when it
// was started.
type PlanExecution struct {
	ID        PlanExecutionID
	Account   Account
	Plan      RecoveryPlanID
	Drill     bool
	Status    ExecutionStatus
	Started   time.Time
	Completed time.Time // zero until it is over
	Error     ErrorDetail
	Tags      Tags
}

// ARN names the execution.
func (e PlanExecution) ARN() string { return e.Account.ARN(TypePlanExecution, string(e.ID)) }

// PlanARN names the plan, which may be gone.
func (e PlanExecution) PlanARN() string { return e.Account.ARN(TypeRecoveryPlan, string(e.Plan)) }

// Deadline is when the execution times out.
func (e PlanExecution) Deadline() time.Time { return e.Started.Add(MaxPlanRun) }

// ErrorDetail says why an execution or a step failed, or what a person should
// know of one that did not. The zero value says nothing.
type ErrorDetail struct {
	Code    string
	Message string
}

// Codes of ErrorDetail. The service documents none.
const (
	PlanErrorValidation = "VALIDATION_FAILED"       // a server cannot be recovered
	PlanErrorServer     = "SERVER_RECOVERY_FAILED"  // a critical server was not recovered
	PlanErrorOptional   = "OPTIONAL_SERVERS_FAILED" // a notice: only optional ones were not
	PlanErrorStep       = "STEP_FAILED"
	PlanErrorTimeout    = "TIMED_OUT"
	PlanErrorSkipped    = "STEPS_SKIPPED" // a notice
	PlanErrorCancelled  = "CANCELLED"
)

// ExecutionStatus is how far an execution is.
type ExecutionStatus string

const (
	ExecutionCreated    ExecutionStatus = "CREATED"
	ExecutionInProgress ExecutionStatus = "IN_PROGRESS"
	ExecutionCompleted  ExecutionStatus = "COMPLETED"
	ExecutionFailed     ExecutionStatus = "FAILED"
	ExecutionCancelling ExecutionStatus = "CANCELLING"
	ExecutionCancelled  ExecutionStatus = "CANCELLED"
)

var executionTransitions = map[ExecutionStatus][]ExecutionStatus{
	ExecutionCreated:    {ExecutionInProgress, ExecutionFailed, ExecutionCancelling},
	ExecutionInProgress: {ExecutionCompleted, ExecutionFailed, ExecutionCancelling},
	ExecutionCancelling: {ExecutionCancelled, ExecutionFailed}, // failed: timed out meanwhile
	ExecutionFailed:     {ExecutionInProgress},                 // its failed step is tried again or skipped
}

// Next returns the status to go on with. Staying is always allowed.
func (s ExecutionStatus) Next(to ExecutionStatus) (ExecutionStatus, error) {
	if s == to || slices.Contains(executionTransitions[s], to) {
		return to, nil
	}
	return s, fmt.Errorf("execution status %s does not lead to %s", s, to)
}

// Running tells whether the execution still holds its plan and its servers.
func (s ExecutionStatus) Running() bool { return slices.Contains(RunningExecutions, s) }

// RunningExecutions are the statuses that are not final.
var RunningExecutions = []ExecutionStatus{ExecutionCreated, ExecutionInProgress, ExecutionCancelling}

// ExecutionStep is the copy of a plan's step in an execution.
type ExecutionStep struct {
	ID          ExecutionStepID
	Execution   PlanExecutionID
	Account     Account
	Index       int // from 1
	Name        string
	Status      ExecutionStepStatus
	Attempt     int // from 1
	Servers     []ExecutionServer
	WaitMinutes int
	WaitUntil   time.Time // zero until the wait has begun
	Error       ErrorDetail
	Created     time.Time
	Updated     time.Time
}

// Waits tells whether the step only lets time pass.
func (s ExecutionStep) Waits() bool { return s.WaitMinutes > 0 }

// ARN names the step, below its execution.
func (s ExecutionStep) ARN() string {
	return s.Account.ARN(TypePlanExecution, string(s.Execution)+stepPath+string(s.ID))
}

// ExecutionServer is a server of an execution's step.
type ExecutionServer struct {
	PlanServer
	Snapshot RecoverySnapshotID // the point it was pinned to; empty: the latest data
	Job      JobID              // empty until its job of this attempt exists
}

// ExecutionStepStatus is how far a step of an execution is.
type ExecutionStepStatus string

const (
	PlanStepNotStarted ExecutionStepStatus = "NOT_STARTED"
	PlanStepExecuting  ExecutionStepStatus = "EXECUTING"
	PlanStepWaiting    ExecutionStepStatus = "WAITING"
	PlanStepCompleted  ExecutionStepStatus = "COMPLETED"
	PlanStepFailed     ExecutionStepStatus = "FAILED"
	PlanStepTimedOut   ExecutionStepStatus = "TIMED_OUT"
	PlanStepSkipped    ExecutionStepStatus = "SKIPPED"
)

var executionStepTransitions = map[ExecutionStepStatus][]ExecutionStepStatus{
	PlanStepNotStarted: {PlanStepExecuting, PlanStepWaiting, PlanStepSkipped},
	PlanStepExecuting:  {PlanStepCompleted, PlanStepFailed, PlanStepTimedOut},
	// A wait has nothing to finish when its execution is cancelled, so it is cut
	// short; the service documents nothing of it.
	PlanStepWaiting: {PlanStepCompleted, PlanStepTimedOut, PlanStepSkipped},
	PlanStepFailed:  {PlanStepExecuting, PlanStepSkipped},
}

// Next returns the status to go on with. Staying is always allowed.
func (s ExecutionStepStatus) Next(to ExecutionStepStatus) (ExecutionStepStatus, error) {
	if s == to || slices.Contains(executionStepTransitions[s], to) {
		return to, nil
	}
	return s, fmt.Errorf("step status %s does not lead to %s", s, to)
}

// Over tells whether the execution has nothing more to do for the step.
func (s ExecutionStepStatus) Over() bool { return s == PlanStepCompleted || s == PlanStepSkipped }

// ParsePlanExecutionARN reads the ARN of an execution.
func ParsePlanExecutionARN(arn string) (Account, PlanExecutionID, error) {
	r, err := ParseARN(arn)
	if err == nil && (r.Type != TypePlanExecution || strings.Contains(r.ID, "/")) {
		err = wrongARN(arn, "recovery plan execution", "recovery-plan-execution/planexec-…")
	}
	return r.Account, PlanExecutionID(r.ID), err
}

// ParseExecutionStepARN reads the ARN of a step of an execution.
func ParseExecutionStepARN(arn string) (Account, PlanExecutionID, ExecutionStepID, error) {
	r, err := ParseARN(arn)
	execution, step, ok := strings.Cut(r.ID, stepPath)
	if err == nil && (r.Type != TypePlanExecution || !ok) {
		err = wrongARN(arn, "step of a recovery plan execution", "recovery-plan-execution/planexec-…/step/execstep-…")
	}
	return r.Account, PlanExecutionID(execution), ExecutionStepID(step), err
}

// StartPlanExecution is a request to run a plan.
type StartPlanExecution struct {
	Plan  RecoveryPlanID
	Drill bool
	// Pinned names the recovery points of some of the plan's servers.
	Pinned []StartRecoveryServer
	Tags   Tags
	Token  string
}
