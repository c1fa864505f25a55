package drs

import (
	"fmt"
	"slices"
	"time"
)

// ReplicationState is where a source server stands on its way to being
// protected.
type ReplicationState string

const (
	ReplicationStopped          ReplicationState = "STOPPED"
	ReplicationInitiating       ReplicationState = "INITIATING"
	ReplicationInitialSync      ReplicationState = "INITIAL_SYNC"
	ReplicationCreatingSnapshot ReplicationState = "CREATING_SNAPSHOT"
	ReplicationContinuous       ReplicationState = "CONTINUOUS"
	ReplicationBacklog          ReplicationState = "BACKLOG"
	ReplicationRescan           ReplicationState = "RESCAN"
	ReplicationPaused           ReplicationState = "PAUSED"
	ReplicationStalled          ReplicationState = "STALLED"
	ReplicationDisconnected     ReplicationState = "DISCONNECTED"
)

// replicationTransitions lists, for each state, the states that may follow.
// A live server may stall, stop or be disconnected from anywhere, and any
// session of an agent begins by initiating.
var replicationTransitions = map[ReplicationState][]ReplicationState{
	ReplicationInitiating: {ReplicationInitialSync, ReplicationRescan, ReplicationContinuous, ReplicationCreatingSnapshot, ReplicationBacklog},
	// CONTINUOUS without a snapshot of its own: a rescan that found nothing new.
	ReplicationInitialSync:      {ReplicationCreatingSnapshot, ReplicationContinuous},
	ReplicationCreatingSnapshot: {ReplicationContinuous, ReplicationBacklog, ReplicationRescan},
	ReplicationContinuous:       {ReplicationBacklog, ReplicationRescan, ReplicationCreatingSnapshot},
	ReplicationBacklog:          {ReplicationContinuous, ReplicationRescan, ReplicationCreatingSnapshot},
	ReplicationRescan:           {ReplicationBacklog, ReplicationCreatingSnapshot, ReplicationContinuous},
	ReplicationPaused:           {ReplicationInitialSync, ReplicationContinuous, ReplicationBacklog, ReplicationRescan},
	ReplicationStalled:          {ReplicationInitialSync, ReplicationCreatingSnapshot, ReplicationContinuous, ReplicationBacklog, ReplicationRescan},
	ReplicationStopped:          {},
	ReplicationDisconnected:     {},
}

// fromAnywhere may follow every state but STOPPED and DISCONNECTED.
var fromAnywhere = []ReplicationState{
	ReplicationInitiating, ReplicationStalled, ReplicationStopped, ReplicationDisconnected, ReplicationPaused,
}

// Next returns the state to go on with, or an error when no rule leads from s
// to it. Staying is always allowed.
func (s ReplicationState) Next(to ReplicationState) (ReplicationState, error) {
	ended := s.Ended()
	switch {
	case s == to:
	case ended && to == ReplicationInitiating:
	case ended && to == ReplicationDisconnected:
	case !ended && slices.Contains(fromAnywhere, to):
	case slices.Contains(replicationTransitions[s], to):
	default:
		return s, fmt.Errorf("replication state %s does not lead to %s", s, to)
	}
	return to, nil
}

// DataReplicationInfo is the replication of one server as the API shows it.
// Stored as JSON: a field may be added, none renamed.
type DataReplicationInfo struct {
	State ReplicationState `json:"state"`
	// AsOf is the moment up to which the vault holds everything: the taken time
	// of the newest consistent point, moved on by heartbeats while nothing
	// changes. Zero before the first point. Lag is the time since then.
	AsOf time.Time `json:"asOf"`
	// ETA is when a running sync is expected to end; zero when none runs.
	ETA   time.Time           `json:"eta"`
	Disks []ReplicatedDisk    `json:"disks"`
	Begun time.Time           `json:"begun"` // start of the initiation
	Steps []InitiationStep    `json:"steps,omitempty"`
	Error *DataReplicationErr `json:"error,omitempty"`
}

// ReplicatedDisk counts the bytes of one disk.
type ReplicatedDisk struct {
	Device     string `json:"device"`
	Total      int64  `json:"total"`
	Replicated int64  `json:"replicated"`
	Rescanned  int64  `json:"rescanned"`
	Backlogged int64  `json:"backlogged"`
}

// InitiationStep is one step on the way from registration to data transfer.
type InitiationStep struct {
	Name   InitiationStepName   `json:"name"`
	Status InitiationStepStatus `json:"status"`
}

type (
	InitiationStepName   string
	InitiationStepStatus string
)

// InitiationSteps are the steps that happen here, in order. The steps of AWS
// that start and prepare a staging machine have no counterpart.
var InitiationSteps = []InitiationStepName{
	StepWait, StepAuthenticateWithService, StepCreateStagingDisks, StepPairReplicationServerWithAgent,
	StepConnectAgentToReplicationServer, StepStartDataTransfer,
}

const (
	StepWait                            InitiationStepName = "WAIT"
	StepAuthenticateWithService         InitiationStepName = "AUTHENTICATE_WITH_SERVICE"
	StepCreateStagingDisks              InitiationStepName = "CREATE_STAGING_DISKS"
	StepPairReplicationServerWithAgent  InitiationStepName = "PAIR_REPLICATION_SERVER_WITH_AGENT"
	StepConnectAgentToReplicationServer InitiationStepName = "CONNECT_AGENT_TO_REPLICATION_SERVER"
	StepStartDataTransfer               InitiationStepName = "START_DATA_TRANSFER"

	StepNotStarted InitiationStepStatus = "NOT_STARTED"
	StepInProgress InitiationStepStatus = "IN_PROGRESS"
	StepSucceeded  InitiationStepStatus = "SUCCEEDED"
	StepFailed     InitiationStepStatus = "FAILED"
	StepSkipped    InitiationStepStatus = "SKIPPED"
)

// DataReplicationErr says why replication does not flow. Raw is for people: it
// names the cause and the next step.
type DataReplicationErr struct {
	Code ReplicationErrorCode `json:"code"`
	Raw  string               `json:"raw"`
}

// ReplicationErrorCode is one of the documented error names.
type ReplicationErrorCode string

const (
	AgentNotSeen               ReplicationErrorCode = "AGENT_NOT_SEEN"
	SnapshotsFailure           ReplicationErrorCode = "SNAPSHOTS_FAILURE"
	NotConverging              ReplicationErrorCode = "NOT_CONVERGING"
	UnstableNetwork            ReplicationErrorCode = "UNSTABLE_NETWORK"
	FailedToCreateStagingDisks ReplicationErrorCode = "FAILED_TO_CREATE_STAGING_DISKS"
	FailedToStartDataTransfer  ReplicationErrorCode = "FAILED_TO_START_DATA_TRANSFER"
)

// ReplicationConfiguration says how one server is replicated. What only a
// cloud has (subnets, staging disks) is kept and shown, without effect.
type ReplicationConfiguration struct {
	Name                          string    `json:"name"`
	StagingAreaSubnetID           string    `json:"stagingAreaSubnetId"`
	AssociateDefaultSecurityGroup bool      `json:"associateDefaultSecurityGroup"`
	SecurityGroupIDs              []string  `json:"securityGroupIds"`
	ReplicationServerInstanceType string    `json:"replicationServerInstanceType"`
	UseDedicatedReplicationServer bool      `json:"useDedicatedReplicationServer"`
	DefaultLargeStagingDiskType   string    `json:"defaultLargeStagingDiskType"`
	EBSEncryption                 string    `json:"ebsEncryption"`
	EBSEncryptionKeyARN           string    `json:"ebsEncryptionKeyArn,omitempty"`
	BandwidthThrottlingMbps       int64     `json:"bandwidthThrottlingMbps"` // 0: unlimited
	DataPlaneRouting              string    `json:"dataPlaneRouting"`
	CreatePublicIP                bool      `json:"createPublicIp"`
	StagingAreaTags               Tags      `json:"stagingAreaTags"`
	PITPolicy                     []PITRule `json:"pitPolicy"`
	AutoReplicateNewDisks         bool      `json:"autoReplicateNewDisks"`
	InternetProtocol              string    `json:"internetProtocol"`
	// Disks says what the user set for some of the server's disks, in any order.
	Disks []ConfiguredDisk `json:"disks,omitempty"`
}

// ConfiguredDisk is what the user set for one disk. The kind of the disk that a
// cloud would stage it on is kept and shown, without effect.
type ConfiguredDisk struct {
	Device      string `json:"device"`
	Identity    string `json:"identity,omitempty"` // as Disk has it
	Boot        bool   `json:"boot"`               // recovery instances boot from it
	StagingType string `json:"stagingType"`
	IOPS        int64  `json:"iops,omitempty"`
	Throughput  int64  `json:"throughput,omitempty"`
}

// DefaultReplicationConfiguration is what a new source server gets.
func DefaultReplicationConfiguration(server SourceServerID) ReplicationConfiguration {
	return ReplicationConfiguration{
		Name:                          "Data Replication Configuration for Source Server " + string(server),
		AssociateDefaultSecurityGroup: true,
		SecurityGroupIDs:              []string{},
		ReplicationServerInstanceType: "t3.small",
		DefaultLargeStagingDiskType:   "AUTO",
		EBSEncryption:                 "DEFAULT",
		DataPlaneRouting:              "PUBLIC_IP",
		CreatePublicIP:                true,
		StagingAreaTags:               Tags{},
		PITPolicy:                     DefaultPITPolicy(),
		AutoReplicateNewDisks:         true,
		InternetProtocol:              "IPV4",
	}
}
