package drs

import (
	"fmt"
	"strings"
	"time"
)

// Limits of recovery plans.
const (
	MaxPlans           = 1000 // of an account in a region
	MaxPlanSteps       = 20
	MaxPlanServers     = 100 // over all steps
	MaxPlanWaitMinutes = 120
)

// RecoveryPlan is a named list of steps that brings servers back in order.
type RecoveryPlan struct {
	ID          RecoveryPlanID
	Account     Account
	Name        string // unique in the account and region
	Description string
	Status      PlanStatus
	Created     time.Time
	Updated     time.Time
	Tags        Tags
}

// ARN names the plan.
func (p RecoveryPlan) ARN() string { return p.Account.ARN(TypeRecoveryPlan, string(p.ID)) }

// PlanStatus says whether a plan can run.
type PlanStatus string

const (
	// PlanActive plans have a step with servers.
	PlanActive PlanStatus = "ACTIVE"
	// PlanInvalid plans have none; steps that only wait do not count.
	PlanInvalid PlanStatus = "INVALID"
)

// PlanStep is one step of a plan. It has servers or a wait, and what it has never
// changes its kind.
type PlanStep struct {
	ID      PlanStepID
	Plan    RecoveryPlanID
	Account Account
	Order   int // from 1
	Name    string
	Servers []PlanServer // recovered at the same time; none in a step that waits
	// WaitMinutes is how long a step that waits holds the plan; 0 in one that has
	// servers.
	WaitMinutes int
	Created     time.Time
	Updated     time.Time
}

// Waits tells whether the step only lets time pass.
func (s PlanStep) Waits() bool { return s.WaitMinutes > 0 }

// ARN names the step, below its plan.
func (s PlanStep) ARN() string {
	return s.Account.ARN(TypeRecoveryPlan, string(s.Plan)+stepPath+string(s.ID))
}

// PlanServer is a server of a step.
type PlanServer struct {
	SourceServer SourceServerID
	Impact       ImpactLevel
}

// ImpactLevel says what the failure of one server means for its step.
type ImpactLevel string

const (
	// ImpactCritical servers fail their step with them. It is the default.
	ImpactCritical ImpactLevel = "CRITICAL"
	// ImpactOptional servers do not.
	ImpactOptional ImpactLevel = "OPTIONAL"
)

// stepPath stands between the ID of a plan or an execution and the ID of its step
// in the step's ARN. The service's own layout is not documented; in this one, a
// policy for the plan covers its steps.
const stepPath = "/step/"

// ParsePlanARN reads the ARN of a recovery plan.
func ParsePlanARN(arn string) (Account, RecoveryPlanID, error) {
	r, err := ParseARN(arn)
	if err == nil && (r.Type != TypeRecoveryPlan || strings.Contains(r.ID, "/")) {
		err = wrongARN(arn, "recovery plan", "recovery-plan/plan-…")
	}
	return r.Account, RecoveryPlanID(r.ID), err
}

// ParsePlanStepARN reads the ARN of a step of a recovery plan.
func ParsePlanStepARN(arn string) (Account, RecoveryPlanID, PlanStepID, error) {
	r, err := ParseARN(arn)
	plan, step, ok := strings.Cut(r.ID, stepPath)
	if err == nil && (r.Type != TypeRecoveryPlan || !ok) {
		err = wrongARN(arn, "step of a recovery plan", "recovery-plan/plan-…/step/planstep-…")
	}
	return r.Account, RecoveryPlanID(plan), PlanStepID(step), err
}

// OfStep returns the plan or the execution that a step's resource lies below, and
// any other resource as it is: permissions and tags are those of the whole.
func (r Resource) OfStep() Resource {
	if r.Type == TypeRecoveryPlan || r.Type == TypePlanExecution {
		r.ID, _, _ = strings.Cut(r.ID, stepPath)
	}
	return r
}

func wrongARN(arn, what, want string) error {
	return fmt.Errorf("%q is not the ARN of a %s: want arn:aws:drs:REGION:ACCOUNT:%s", arn, what, want)
}

// PlanDraft is a request to make a plan.
type PlanDraft struct {
	Name        string
	Description string
	Tags        Tags
	Token       string // idempotency token; empty: none
}

// PlanStepDraft is a request to make a step of a plan.
type PlanStepDraft struct {
	Name        string
	Order       int          // 0: after all others
	Servers     []PlanServer // or
	WaitMinutes int
	Token       string
}

// PlanChange is what is to be changed of a plan; nil members stay.
type PlanChange struct{ Name, Description *string }

// PlanStepChange is what is to be changed of a step; empty members stay.
type PlanStepChange struct {
	Name        string
	Servers     []PlanServer
	WaitMinutes int
}

// ExecutionStepChange is what is to become of a step of an execution: exactly one
// of its members is set.
type ExecutionStepChange struct {
	Skip        bool
	Servers     []PlanServer
	WaitMinutes int
}
