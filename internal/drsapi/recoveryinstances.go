package drsapi

import (
	"context"
	"strconv"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

type describeRecoveryInstancesRequest struct {
	Filters describeRecoveryInstancesFilters `json:"filters,omitempty"`
	Paging
}

type describeRecoveryInstancesFilters struct {
	RecoveryInstanceIDs []recoveryInstanceID `json:"recoveryInstanceIDs,omitempty" maxItems:"200"`
	SourceServerIDs     []sourceServerID     `json:"sourceServerIDs,omitempty"`
}

type describeRecoveryInstancesResponse struct {
	Items     []recoveryInstance `json:"items"`
	NextToken paginationToken    `json:"nextToken,omitempty"`
}

type recoveryInstance struct {
	EC2InstanceID       ec2InstanceID              `json:"ec2InstanceID"`
	EC2InstanceState    string                     `json:"ec2InstanceState" enum:"PENDING,RUNNING,STOPPING,STOPPED,SHUTTING-DOWN,TERMINATED,NOT_FOUND"`
	JobID               jobID                      `json:"jobID"`
	RecoveryInstanceID  recoveryInstanceID         `json:"recoveryInstanceID"`
	SourceServerID      sourceServerID             `json:"sourceServerID"`
	ARN                 arn                        `json:"arn"`
	Tags                drs.Tags                   `json:"tags"`
	Failback            failback                   `json:"failback"`
	DataReplicationInfo instanceReplication        `json:"dataReplicationInfo"`
	Properties          recoveryInstanceProperties `json:"recoveryInstanceProperties"`
	PointInTime         timestamp                  `json:"pointInTimeSnapshotDateTime,omitempty"`
	IsDrill             bool                       `json:"isDrill"`
	OriginEnvironment   string                     `json:"originEnvironment" enum:"ON_PREMISES,AWS"`
}

type failback struct {
	State string `json:"state" enum:"FAILBACK_NOT_STARTED,FAILBACK_IN_PROGRESS,FAILBACK_READY_FOR_LAUNCH,FAILBACK_COMPLETED,FAILBACK_ERROR,FAILBACK_NOT_READY_FOR_LAUNCH,FAILBACK_LAUNCH_STATE_NOT_AVAILABLE"`
}

type instanceReplication struct {
	DataReplicationState string `json:"dataReplicationState" enum:"STOPPED,INITIATING,INITIAL_SYNC,BACKLOG,CREATING_SNAPSHOT,CONTINUOUS,PAUSED,RESCAN,STALLED,DISCONNECTED,REPLICATION_STATE_NOT_AVAILABLE,NOT_STARTED"`
}

type recoveryInstanceProperties struct {
	LastUpdatedDateTime timestamp              `json:"lastUpdatedDateTime,omitempty"`
	IdentificationHints identificationHints    `json:"identificationHints"`
	NetworkInterfaces   []networkInterface     `json:"networkInterfaces"`
	Disks               []recoveryInstanceDisk `json:"disks"`
	CPUs                []cpu                  `json:"cpus"`
	RAMBytes            int64                  `json:"ramBytes"`
	OS                  operatingSystem        `json:"os"`
}

type recoveryInstanceDisk struct {
	InternalDeviceName string `json:"internalDeviceName"`
	Bytes              int64  `json:"bytes"`
	EBSVolumeID        string `json:"ebsVolumeID"`
}

type terminateRecoveryInstancesRequest struct {
	RecoveryInstanceIDs []recoveryInstanceID `json:"recoveryInstanceIDs" minItems:"1" maxItems:"200"`
}

type terminateRecoveryInstancesResponse struct {
	Job job `json:"job"`
}

// describeRecoveryInstances lists the account's instances, oldest first.
func (c caller) describeRecoveryInstances(ctx context.Context, in *describeRecoveryInstancesRequest) (*describeRecoveryInstancesResponse, error) {
	filter := db.InstanceFilter{
		IDs:           instanceIDs(in.Filters.RecoveryInstanceIDs),
		SourceServers: mapped(in.Filters.SourceServerIDs, func(id sourceServerID) drs.SourceServerID { return drs.SourceServerID(id) }),
	}
	items, next, err := list(c, in.Paging, []any{"DescribeRecoveryInstances", filter},
		func(page db.Page) ([]drs.RecoveryInstance, string, error) {
			return c.DB.Instances(ctx, c.account, filter, page)
		}, recoveryInstanceOf)
	if err != nil {
		return nil, err
	}
	return &describeRecoveryInstancesResponse{Items: items, NextToken: next}, nil
}

// terminateRecoveryInstances starts the job that frees all that the instances
// hold.
func (c caller) terminateRecoveryInstances(ctx context.Context, in *terminateRecoveryInstancesRequest) (*terminateRecoveryInstancesResponse, error) {
	started, err := c.Recovery.TerminateRecoveryInstances(ctx, c.account, instanceIDs(in.RecoveryInstanceIDs))
	if err != nil {
		return nil, err
	}
	return &terminateRecoveryInstancesResponse{Job: jobOf(started)}, nil
}

func instanceIDs(ids []recoveryInstanceID) []drs.RecoveryInstanceID {
	return mapped(ids, func(id recoveryInstanceID) drs.RecoveryInstanceID { return drs.RecoveryInstanceID(id) })
}

// volumeDigits is the only length of a volume ID that the model's pattern and its
// maximum both allow.
const volumeDigits = 8

// instanceReplicationState: nothing replicates an instance until it fails back.
func instanceReplicationState(i drs.RecoveryInstance) string {
	if i.Connection == drs.Disconnected {
		return "DISCONNECTED"
	}
	return "NOT_STARTED"
}

func recoveryInstanceOf(i drs.RecoveryInstance) recoveryInstance {
	p := i.Properties
	out := recoveryInstance{
		EC2InstanceID:       ec2InstanceID(i.ID),
		EC2InstanceState:    string(i.State),
		JobID:               jobID(i.Job),
		RecoveryInstanceID:  recoveryInstanceID(i.ID),
		SourceServerID:      sourceServerID(i.SourceServer),
		ARN:                 arn(i.ARN()),
		Tags:                tagsOf(i.Tags),
		Failback:            failback{State: failbackState(i)},
		DataReplicationInfo: instanceReplication{DataReplicationState: instanceReplicationState(i)},
		PointInTime:         timestampOf(i.PointTaken),
		IsDrill:             i.Drill,
		OriginEnvironment:   "ON_PREMISES",
		Properties: recoveryInstanceProperties{
			LastUpdatedDateTime: timestampOf(p.LastUpdated),
			IdentificationHints: identificationHints{FQDN: clip(p.FQDN, boundedLength), Hostname: clip(p.Hostname, boundedLength)},
			NetworkInterfaces:   mapped(p.NetworkInterfaces, networkInterfaceOf),
			CPUs:                mapped(p.CPUs, cpuOf),
			RAMBytes:            p.RAMBytes,
			OS:                  operatingSystem{FullString: clip(p.OS, boundedLength)},
			Disks:               []recoveryInstanceDisk{},
		},
	}
	for n, d := range p.Disks {
		out.Properties.Disks = append(out.Properties.Disks, recoveryInstanceDisk{
			InternalDeviceName: clip(d.Device, boundedLength), Bytes: d.Bytes,
			EBSVolumeID: derivedID("vol-", volumeDigits, string(i.ID), strconv.Itoa(n)),
		})
	}
	return out
}
