package drs

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"regexp"
)

// Identifiers are strings of a prefix and 17 characters. New ones are lower-case
// hexadecimal, as the service makes them; any alphanumeric ones are accepted.
type (
	SourceServerID     string // s-…
	RecoverySnapshotID string // pit-…, a recovery point
	JobID              string // drsjob-…
	RecoveryInstanceID string // i-…
	RecoveryPlanID     string // plan-…
	PlanStepID         string // planstep-…
	PlanExecutionID    string // planexec-…
	ExecutionStepID    string // execstep-…
	SourceNetworkID    string // sn-…

	ReplicationTemplateID string // rct-…
	LaunchTemplateID      string // lct-…
)

const idDigits = 17

// NewSourceServerID returns a random source server ID.
func NewSourceServerID() SourceServerID { return SourceServerID(newID("s-")) }

// NewRecoverySnapshotID returns a random recovery point ID.
func NewRecoverySnapshotID() RecoverySnapshotID { return RecoverySnapshotID(newID("pit-")) }

// NewJobID returns a random job ID.
func NewJobID() JobID { return JobID(newID("drsjob-")) }

// NewRecoveryInstanceID returns a random recovery instance ID.
func NewRecoveryInstanceID() RecoveryInstanceID { return RecoveryInstanceID(newID("i-")) }

// NewRecoveryPlanID returns a random recovery plan ID.
func NewRecoveryPlanID() RecoveryPlanID { return RecoveryPlanID(newID("plan-")) }

// NewPlanStepID returns a random ID of a step of a plan.
func NewPlanStepID() PlanStepID { return PlanStepID(newID("planstep-")) }

// NewPlanExecutionID returns a random ID of a run of a plan.
func NewPlanExecutionID() PlanExecutionID { return PlanExecutionID(newID("planexec-")) }

// NewExecutionStepID returns a random ID of a step of a run.
func NewExecutionStepID() ExecutionStepID { return ExecutionStepID(newID("execstep-")) }

// NewSourceNetworkID returns a random source network ID.
func NewSourceNetworkID() SourceNetworkID { return SourceNetworkID(newID("sn-")) }

// NewReplicationTemplateID returns a random ID of a replication configuration template.
func NewReplicationTemplateID() ReplicationTemplateID { return ReplicationTemplateID(newID("rct-")) }

// NewLaunchTemplateID returns a random ID of a launch configuration template.
func NewLaunchTemplateID() LaunchTemplateID { return LaunchTemplateID(newID("lct-")) }

func newID(prefix string) string {
	raw := make([]byte, (idDigits+1)/2)
	rand.Read(raw) // never fails: crypto/rand aborts the program instead
	return prefix + hex.EncodeToString(raw)[:idDigits]
}

var (
	sourceServerID     = regexp.MustCompile(`^s-[0-9a-zA-Z]{17}$`)
	recoverySnapshotID = regexp.MustCompile(`^pit-[0-9a-zA-Z]{17}$`)
	jobID              = regexp.MustCompile(`^drsjob-[0-9a-zA-Z]{17}$`)
	recoveryInstanceID = regexp.MustCompile(`^i-[0-9a-fA-F]{8,17}$`)
)

// ParseSourceServerID checks the form of a source server ID, not its existence.
func ParseSourceServerID(s string) (SourceServerID, error) {
	return parseID[SourceServerID](s, sourceServerID, "source server ID", "s-")
}

// ParseRecoverySnapshotID checks the form of a recovery point ID.
func ParseRecoverySnapshotID(s string) (RecoverySnapshotID, error) {
	return parseID[RecoverySnapshotID](s, recoverySnapshotID, "recovery snapshot ID", "pit-")
}

// ParseJobID checks the form of a job ID.
func ParseJobID(s string) (JobID, error) { return parseID[JobID](s, jobID, "job ID", "drsjob-") }

// ParseRecoveryInstanceID checks the form of a recovery instance ID.
func ParseRecoveryInstanceID(s string) (RecoveryInstanceID, error) {
	return parseID[RecoveryInstanceID](s, recoveryInstanceID, "recovery instance ID", "i-")
}

func parseID[T ~string](s string, form *regexp.Regexp, what, prefix string) (T, error) {
	if !form.MatchString(s) {
		return "", fmt.Errorf("%q is not a %s: want %s and %d letters or digits", s, what, prefix, idDigits)
	}
	return T(s), nil
}
