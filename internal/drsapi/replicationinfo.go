package drsapi

import (
	"time"

	"lifeboat/internal/drs"
)

type dataReplicationInfo struct {
	LagDuration               string                     `json:"lagDuration,omitempty"`
	ETADateTime               timestamp                  `json:"etaDateTime,omitempty"`
	ReplicatedDisks           []replicatedDisk           `json:"replicatedDisks"`
	DataReplicationState      string                     `json:"dataReplicationState" enum:"STOPPED,INITIATING,INITIAL_SYNC,BACKLOG,CREATING_SNAPSHOT,CONTINUOUS,PAUSED,RESCAN,STALLED,DISCONNECTED"`
	DataReplicationInitiation *dataReplicationInitiation `json:"dataReplicationInitiation,omitempty"`
	DataReplicationError      *dataReplicationError      `json:"dataReplicationError,omitempty"`
}

type replicatedDisk struct {
	DeviceName             string `json:"deviceName"`
	TotalStorageBytes      int64  `json:"totalStorageBytes"`
	ReplicatedStorageBytes int64  `json:"replicatedStorageBytes"`
	RescannedStorageBytes  int64  `json:"rescannedStorageBytes"`
	BackloggedStorageBytes int64  `json:"backloggedStorageBytes"`
	VolumeStatus           string `json:"volumeStatus" enum:"REGULAR,CONTAINS_MARKETPLACE_PRODUCT_CODES,MISSING_VOLUME_ATTRIBUTES,MISSING_VOLUME_ATTRIBUTES_AND_PRECHECK_UNAVAILABLE,PENDING"`
}

type dataReplicationInitiation struct {
	StartDateTime timestamp                       `json:"startDateTime,omitempty"`
	Steps         []dataReplicationInitiationStep `json:"steps"`
}

type dataReplicationInitiationStep struct {
	Name   string `json:"name"`
	Status string `json:"status" enum:"NOT_STARTED,IN_PROGRESS,SUCCEEDED,FAILED,SKIPPED"`
}

type dataReplicationError struct {
	Error    string `json:"error"`
	RawError string `json:"rawError,omitempty"`
}

// lagTolerance is how far behind a continuously replicated server may be and
// still be shown without lag, as P0D: the agent tells that nothing changed only
// so often.
const lagTolerance = 15 * time.Second

func dataReplicationInfoOf(r drs.DataReplicationInfo, now time.Time) dataReplicationInfo {
	out := dataReplicationInfo{
		ReplicatedDisks:      mapped(r.Disks, replicatedDiskOf),
		DataReplicationState: string(r.State),
	}
	ended := r.State == drs.ReplicationStopped || r.State == drs.ReplicationDisconnected
	if !ended && !r.AsOf.IsZero() {
		lag := now.Sub(r.AsOf)
		if r.State == drs.ReplicationContinuous && lag < lagTolerance {
			lag = 0
		}
		out.LagDuration = durationOf(lag.Truncate(time.Millisecond))
	}
	if !ended {
		out.ETADateTime = timestampOf(r.ETA)
	}
	if len(r.Steps) > 0 {
		out.DataReplicationInitiation = &dataReplicationInitiation{
			StartDateTime: timestampOf(r.Begun),
			Steps: mapped(r.Steps, func(s drs.InitiationStep) dataReplicationInitiationStep {
				return dataReplicationInitiationStep{Name: string(s.Name), Status: string(s.Status)}
			}),
		}
	}
	if r.Error != nil {
		out.DataReplicationError = &dataReplicationError{Error: string(r.Error.Code), RawError: clip(r.Error.Raw, largeBoundedLength)}
	}
	return out
}

func replicatedDiskOf(d drs.ReplicatedDisk) replicatedDisk {
	return replicatedDisk{
		DeviceName:             clip(d.Device, boundedLength),
		TotalStorageBytes:      d.Total,
		ReplicatedStorageBytes: d.Replicated,
		RescannedStorageBytes:  d.Rescanned,
		BackloggedStorageBytes: d.Backlogged,
		VolumeStatus:           "REGULAR",
	}
}
