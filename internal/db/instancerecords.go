package db

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"lifeboat/internal/drs"
)

// InstanceRecord is a recovery instance as it is kept beside its disks, so that a lost
// database does not lose the machine. Kept as JSON: a field may be added, none renamed.
type InstanceRecord struct {
	ID           drs.RecoveryInstanceID     `json:"id"`
	Account      string                     `json:"account"`
	Region       string                     `json:"region"`
	SourceServer drs.SourceServerID         `json:"sourceServer"`
	VaultServer  drs.SourceServerID         `json:"vaultServer"`
	Job          drs.JobID                  `json:"job"`
	Drill        bool                       `json:"drill"`
	State        drs.InstanceState          `json:"state"`
	Wanted       bool                       `json:"wanted"`
	Launched     time.Time                  `json:"launched"`
	Point        drs.RecoverySnapshotID     `json:"point"`
	PointTaken   time.Time                  `json:"pointTaken"`
	Properties   drs.InstanceProperties     `json:"properties"`
	Tags         drs.Tags                   `json:"tags"`
	Connection   drs.Connection             `json:"connection,omitempty"`
	Failback     *drs.FailbackConfiguration `json:"failback,omitempty"`
}

// InstanceRecords returns the records of all instances.
func (d *DB) InstanceRecords(ctx context.Context) ([]InstanceRecord, error) {
	var rows []instanceRow
	if err := d.read.NewSelect().Model(&rows).Order("id").Scan(ctx); err != nil {
		return nil, fmt.Errorf("list recovery instances: %w", err)
	}
	return convert(rows, func(r instanceRow) InstanceRecord {
		return InstanceRecord{
			ID: drs.RecoveryInstanceID(r.ID), Account: r.Account, Region: r.Region, SourceServer: drs.SourceServerID(r.SourceServer),
			VaultServer: drs.SourceServerID(r.VaultServer), Job: drs.JobID(r.Job), Drill: r.Drill, State: drs.InstanceState(r.State),
			Wanted: r.Wanted, Launched: r.Launched.Time(), Point: drs.RecoverySnapshotID(r.Point), PointTaken: r.PointTaken.Time(),
			Properties: r.Properties.V, Tags: r.Tags.V, Connection: drs.Connection(r.Connection), Failback: r.Failback.V,
		}
	}), nil
}

// DecodeInstanceRecord reads a record that was kept as JSON.
func DecodeInstanceRecord(text []byte) (r InstanceRecord, err error) {
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("read instance record: %w", err)
	}
	if _, err := drs.ParseRecoveryInstanceID(string(r.ID)); err != nil {
		return r, fmt.Errorf("read instance record: %w", err)
	}
	if r.Account == "" || r.Region == "" || r.SourceServer == "" || r.State == "" {
		return r, fmt.Errorf("read instance record: it names no account, region, source server or state")
	}
	return r, nil
}

// RestoreInstance makes an instance from its record, and the one that its source server
// shows. What became of its machine meanwhile is found out by the next start.
func (tx Tx) RestoreInstance(ctx context.Context, r InstanceRecord) error {
	row := instanceRow{
		ID: string(r.ID), Account: r.Account, Region: r.Region, SourceServer: string(r.SourceServer), VaultServer: string(r.VaultServer),
		Job: string(r.Job), Drill: r.Drill, State: string(r.State), Wanted: r.Wanted, Launched: stampOf(r.Launched),
		Point: string(r.Point), PointTaken: stampOf(r.PointTaken), Properties: document[drs.InstanceProperties]{r.Properties},
		Tags: document[drs.Tags]{r.Tags}, Connection: string(r.Connection), Failback: document[*drs.FailbackConfiguration]{r.Failback},
	}
	if row.Tags.V == nil {
		row.Tags.V = drs.Tags{}
	}
	if _, err := tx.NewInsert().Model(&row).Exec(ctx); err != nil {
		return fmt.Errorf("restore recovery instance %s: %w", r.ID, err)
	}
	return tx.SetRecoveryInstance(ctx, r.SourceServer, r.ID)
}
