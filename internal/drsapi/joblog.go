package drsapi

import (
	"context"
	"errors"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

type describeJobLogItemsRequest struct {
	JobID jobID `json:"jobID"`
	Paging
}

type describeJobLogItemsResponse struct {
	Items     []jobLog        `json:"items"`
	NextToken paginationToken `json:"nextToken,omitempty"`
}

type jobLog struct {
	LogDateTime timestamp    `json:"logDateTime"`
	Event       string       `json:"event"`
	EventData   jobEventData `json:"eventData"`
}

type jobEventData struct {
	SourceServerID       sourceServerID        `json:"sourceServerID,omitempty"`
	TargetInstanceID     ec2InstanceID         `json:"targetInstanceID,omitempty"`
	RawError             string                `json:"rawError,omitempty"`
	ConversionProperties *conversionProperties `json:"conversionProperties,omitempty"`
	EventResourceData    *eventResourceData    `json:"eventResourceData,omitempty"`
	// Note is our own: what a person should know of a step that went well.
	Note string `json:"note,omitempty"`
}

type eventResourceData struct {
	SourceNetworkData sourceNetworkData `json:"sourceNetworkData"`
}

type sourceNetworkData struct {
	SourceNetworkID sourceNetworkID `json:"sourceNetworkID"`
	SourceVPC       vpcID           `json:"sourceVpc,omitempty"`
	TargetVPC       vpcID           `json:"targetVpc,omitempty"`
	StackName       stackName       `json:"stackName,omitempty"`
}

type conversionProperties struct {
	RootVolumeName     string           `json:"rootVolumeName,omitempty"`
	ForceUEFI          bool             `json:"forceUefi"`
	DataTimestamp      timestamp        `json:"dataTimestamp,omitempty"`
	VolumeToVolumeSize map[string]int64 `json:"volumeToVolumeSize,omitempty"`
}

// describeJobLogItems lists the log of one job in order of time.
func (c caller) describeJobLogItems(ctx context.Context, in *describeJobLogItemsRequest) (*describeJobLogItemsResponse, error) {
	id := drs.JobID(in.JobID)
	_, err := c.DB.Job(ctx, c.account, id) // logs do not cross accounts
	if errors.Is(err, db.ErrAbsent) {
		return &describeJobLogItemsResponse{Items: []jobLog{}}, nil
	}
	if err != nil {
		return nil, err
	}
	items, next, err := list(c, in.Paging, []any{"DescribeJobLogItems", id},
		func(page db.Page) ([]drs.JobLogItem, string, error) { return c.DB.JobLog(ctx, id, page) }, jobLogOf)
	if err != nil {
		return nil, err
	}
	return &describeJobLogItemsResponse{Items: items, NextToken: next}, nil
}

func jobLogOf(item drs.JobLogItem) jobLog {
	out := jobLog{
		LogDateTime: timestampOf(item.Time),
		Event:       string(item.Event),
		EventData: jobEventData{
			SourceServerID:   sourceServerID(item.SourceServer),
			TargetInstanceID: ec2InstanceID(item.Instance),
			RawError:         clip(item.RawError, largeBoundedLength),
			Note:             clip(item.Note, largeBoundedLength),
		},
	}
	if done := item.Conversion; done != nil {
		out.EventData.ConversionProperties = &conversionProperties{
			RootVolumeName:     done.RootVolume,
			ForceUEFI:          done.ForceUEFI,
			DataTimestamp:      timestampOf(done.DataTimestamp),
			VolumeToVolumeSize: done.VolumeSizes,
		}
	}
	if n := item.Network; n != nil {
		out.EventData.EventResourceData = &eventResourceData{sourceNetworkData{
			SourceNetworkID: sourceNetworkID(n.SourceNetwork), SourceVPC: vpcID(n.SourceVPC), TargetVPC: vpcID(n.TargetVPC), StackName: stackName(n.Stack),
		}}
	}
	return out
}
