package drsapi

import (
	"context"
	"errors"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

type describeRecoverySnapshotsRequest struct {
	SourceServerID sourceServerID                   `json:"sourceServerID"`
	Filters        describeRecoverySnapshotsFilters `json:"filters,omitempty"`
	Order          string                           `json:"order,omitempty" enum:"ASC,DESC"`
	Paging
}

type describeRecoverySnapshotsFilters struct {
	FromDateTime timestamp `json:"fromDateTime,omitempty"`
	ToDateTime   timestamp `json:"toDateTime,omitempty"`
	// IncludeFuzzy is our own: it lists the points too whose disks mix moments.
	IncludeFuzzy bool `json:"includeFuzzy,omitempty"`
}

type describeRecoverySnapshotsResponse struct {
	Items     []recoverySnapshot `json:"items"`
	NextToken paginationToken    `json:"nextToken,omitempty"`
}

type recoverySnapshot struct {
	SnapshotID        recoverySnapshotID `json:"snapshotID"`
	SourceServerID    sourceServerID     `json:"sourceServerID"`
	ExpectedTimestamp timestamp          `json:"expectedTimestamp"`
	Timestamp         timestamp          `json:"timestamp,omitempty"`
	EBSSnapshots      []string           `json:"ebsSnapshots"`
	// Consistency is our own: what the point promises about its disks.
	Consistency string `json:"consistency" enum:"fuzzy,crash,filesystem,application"`
	// Method and FreezeMilliseconds are our own, too: how the promise was kept, and for
	// how long that held the filesystems still.
	Method             string  `json:"method,omitempty"`
	FreezeMilliseconds float64 `json:"freezeMilliseconds,omitempty"`
}

// describeRecoverySnapshots lists the recovery points of one server, oldest
// first unless the order is DESC.
func (c caller) describeRecoverySnapshots(ctx context.Context, in *describeRecoverySnapshotsRequest) (*describeRecoverySnapshotsResponse, error) {
	from, err := in.Filters.FromDateTime.time("filters.fromDateTime")
	if err != nil {
		return nil, err
	}
	to, err := in.Filters.ToDateTime.time("filters.toDateTime")
	if err != nil {
		return nil, err
	}
	filter := db.PointFilter{From: from, To: to, IncludeFuzzy: in.Filters.IncludeFuzzy, Descending: in.Order == "DESC"}

	server, err := c.DB.SourceServer(ctx, c.account, drs.SourceServerID(in.SourceServerID))
	if errors.Is(err, db.ErrAbsent) {
		return &describeRecoverySnapshotsResponse{Items: []recoverySnapshot{}}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := c.checkExtension(ctx, &server); err != nil {
		return nil, err
	}
	if server.Staging.Error != "" { // an extension that is over has none
		return &describeRecoverySnapshotsResponse{Items: []recoverySnapshot{}}, nil
	}
	items, next, err := list(c, in.Paging, []any{"DescribeRecoverySnapshots", server.ID, filter},
		func(page db.Page) ([]drs.RecoveryPoint, string, error) {
			return c.DB.Points(ctx, server.VaultServer(), filter, page)
		},
		func(p drs.RecoveryPoint) recoverySnapshot {
			out := recoverySnapshotOf(p, server.Properties.Disks)
			out.SourceServerID = in.SourceServerID // an extended server shows the points of the one it stands for
			return out
		})
	if err != nil {
		return nil, err
	}
	return &describeRecoverySnapshotsResponse{Items: items, NextToken: next}, nil
}

// recoverySnapshotOf names one volume image per disk of the server. The vault
// keeps them together under the point, so their IDs are derived from it.
func recoverySnapshotOf(p drs.RecoveryPoint, disks []drs.Disk) recoverySnapshot {
	out := recoverySnapshot{
		SnapshotID:        recoverySnapshotID(p.ID),
		SourceServerID:    sourceServerID(p.SourceServer),
		ExpectedTimestamp: timestampOf(p.Expected),
		Timestamp:         timestampOf(p.Taken),
		EBSSnapshots: mapped(disks, func(d drs.Disk) string {
			return drs.VolumeSnapshotID(p.ID, d.Device)
		}),
		Consistency:        string(p.Consistency),
		Method:             string(p.Method),
		FreezeMilliseconds: float64(p.Freeze.Microseconds()) / 1000,
	}
	if out.ExpectedTimestamp == "" { // required by the model
		out.ExpectedTimestamp = out.Timestamp
	}
	return out
}
