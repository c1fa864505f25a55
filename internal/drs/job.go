package drs

import (
	"fmt"
	"slices"
	"time"
)

// Job is one StartRecovery or TerminateRecoveryInstances and its progress.
type Job struct {
	ID        JobID
	Account   Account
	Type      JobType
	Initiated InitiatedBy
	Status    JobStatus
	Created   time.Time
	Ended     time.Time // zero while it runs
	Tags      Tags
	Servers   []ParticipatingServer // in the order of the request
	// Networks are set in the jobs that recover networks, which have no servers.
	Networks []ParticipatingNetwork
}

// ARN names the job.
func (j Job) ARN() string { return j.Account.ARN(TypeJob, string(j.ID)) }

type (
	JobType     string
	InitiatedBy string
	JobStatus   string
	// LaunchStatus is how far one server is within a job.
	LaunchStatus string
)

const (
	JobLaunch    JobType = "LAUNCH"
	JobTerminate JobType = "TERMINATE"

	StartedRecovery     InitiatedBy = "START_RECOVERY"
	StartedDrill        InitiatedBy = "START_DRILL"
	TerminatedInstances InitiatedBy = "TERMINATE_RECOVERY_INSTANCES"
	CreatedNetwork      InitiatedBy = "CREATE_NETWORK_RECOVERY"
	UpdatedNetwork      InitiatedBy = "UPDATE_NETWORK_RECOVERY"
	AssociatedNetwork   InitiatedBy = "ASSOCIATE_NETWORK_RECOVERY"

	JobPending   JobStatus = "PENDING"
	JobStarted   JobStatus = "STARTED"
	JobCompleted JobStatus = "COMPLETED"

	LaunchPending    LaunchStatus = "PENDING"
	LaunchInProgress LaunchStatus = "IN_PROGRESS"
	LaunchLaunched   LaunchStatus = "LAUNCHED"
	LaunchFailed     LaunchStatus = "FAILED"
	LaunchTerminated LaunchStatus = "TERMINATED"
)

var jobTransitions = map[JobStatus][]JobStatus{
	JobPending: {JobStarted},
	JobStarted: {JobCompleted},
}

// Next returns the status to go on with. There is no failed job: success and
// failure are the servers'. Staying is always allowed.
func (s JobStatus) Next(to JobStatus) (JobStatus, error) {
	if s == to || slices.Contains(jobTransitions[s], to) {
		return to, nil
	}
	return s, fmt.Errorf("job status %s does not lead to %s", s, to)
}

var launchTransitions = map[LaunchStatus][]LaunchStatus{
	LaunchPending:    {LaunchInProgress, LaunchFailed},
	LaunchInProgress: {LaunchLaunched, LaunchFailed, LaunchTerminated},
	LaunchLaunched:   {LaunchTerminated},
	LaunchFailed:     {LaunchTerminated},
}

// Next returns the status to go on with. Staying is always allowed.
func (s LaunchStatus) Next(to LaunchStatus) (LaunchStatus, error) {
	if s == to || slices.Contains(launchTransitions[s], to) {
		return to, nil
	}
	return s, fmt.Errorf("launch status %s does not lead to %s", s, to)
}

// ParticipatingServer is one server's part in a job.
type ParticipatingServer struct {
	SourceServer SourceServerID
	// Snapshot is the point that was asked for; empty asks for one on demand.
	Snapshot RecoverySnapshotID
	// Instance is the machine that was launched, or is to be terminated.
	Instance RecoveryInstanceID
	Status   LaunchStatus
	// Actions are what became of the post-launch actions, once the launch got there.
	Actions []LaunchActionRun
}

// Recovered tells whether the launch counts as successful. What was launched may
// have been terminated since.
func (p ParticipatingServer) Recovered() bool {
	return (p.Status == LaunchLaunched || p.Status == LaunchTerminated) && !RequiredFailed(p.Actions)
}

// StartRecovery is a request to launch recovery instances.
type StartRecovery struct {
	Servers []StartRecoveryServer
	Drill   bool
	Tags    Tags
}

// StartRecoveryServer is one server of such a request and the point to launch
// it from; an empty Snapshot asks for an on-demand one.
type StartRecoveryServer struct {
	SourceServer SourceServerID
	Snapshot     RecoverySnapshotID
}

// JobLogItem is one line of a job's log. SourceServer is empty for events of
// the job itself.
type JobLogItem struct {
	Job          JobID
	Time         time.Time
	Event        JobEvent
	SourceServer SourceServerID
	Instance     RecoveryInstanceID // the machine it is about, where there is one
	RawError     string             // cause and next step, for people
	// Note is what a person should know of a step that went well; the wire shape
	// carries it beside the documented members.
	Note string
	// Conversion is set on CONVERSION_END.
	Conversion *Conversion
	// Network is set where the line is about a source network.
	Network *NetworkEvent
}

// Conversion is what was found out and decided to make a disk bootable.
type Conversion struct {
	RootVolume    string           `json:"rootVolume"`
	ForceUEFI     bool             `json:"forceUefi"`
	DataTimestamp time.Time        `json:"dataTimestamp"`
	VolumeSizes   map[string]int64 `json:"volumeSizes"` // bytes by device name
}

// JobEvent is what happened, in the words of the API.
type JobEvent string

const (
	EventJobStart                    JobEvent = "JOB_START"
	EventServerSkipped               JobEvent = "SERVER_SKIPPED"
	EventCleanupStart                JobEvent = "CLEANUP_START"
	EventCleanupEnd                  JobEvent = "CLEANUP_END"
	EventCleanupFail                 JobEvent = "CLEANUP_FAIL"
	EventSnapshotStart               JobEvent = "SNAPSHOT_START"
	EventSnapshotEnd                 JobEvent = "SNAPSHOT_END"
	EventSnapshotFail                JobEvent = "SNAPSHOT_FAIL"
	EventUsingPreviousSnapshot       JobEvent = "USING_PREVIOUS_SNAPSHOT"
	EventUsingPreviousSnapshotFailed JobEvent = "USING_PREVIOUS_SNAPSHOT_FAILED"
	EventConversionStart             JobEvent = "CONVERSION_START"
	EventConversionEnd               JobEvent = "CONVERSION_END"
	EventConversionFail              JobEvent = "CONVERSION_FAIL"
	EventLaunchStart                 JobEvent = "LAUNCH_START"
	EventLaunchFailed                JobEvent = "LAUNCH_FAILED"
	EventJobEnd                      JobEvent = "JOB_END"
	EventDeployNetworkStart          JobEvent = "DEPLOY_NETWORK_CONFIGURATION_START"
	EventDeployNetworkEnd            JobEvent = "DEPLOY_NETWORK_CONFIGURATION_END"
	EventDeployNetworkFailed         JobEvent = "DEPLOY_NETWORK_CONFIGURATION_FAILED"
	EventUpdateNetworkStart          JobEvent = "UPDATE_NETWORK_CONFIGURATION_START"
	EventUpdateNetworkEnd            JobEvent = "UPDATE_NETWORK_CONFIGURATION_END"
	EventUpdateNetworkFailed         JobEvent = "UPDATE_NETWORK_CONFIGURATION_FAILED"
	EventUpdateLaunchStart           JobEvent = "UPDATE_LAUNCH_TEMPLATE_START"
	EventUpdateLaunchEnd             JobEvent = "UPDATE_LAUNCH_TEMPLATE_END"
	EventUpdateLaunchFailed          JobEvent = "UPDATE_LAUNCH_TEMPLATE_FAILED"
	EventNetworkRecoveryFail         JobEvent = "NETWORK_RECOVERY_FAIL"
)
