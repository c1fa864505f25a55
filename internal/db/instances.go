package db

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

type instanceRow struct {
	bun.BaseModel `bun:"table:recovery_instances"`

	ID           string `bun:",pk"`
	Account      string
	Region       string
	SourceServer string
	Job          string
	Drill        bool
	State        string
	Launched     stamp
	Point        string
	PointTaken   stamp
	Properties   document[drs.InstanceProperties]
	Tags         document[drs.Tags]
}

func (r instanceRow) resource() drs.RecoveryInstance {
	return drs.RecoveryInstance{
		ID: drs.RecoveryInstanceID(r.ID), Account: drs.Account{ID: r.Account, Region: r.Region},
		SourceServer: drs.SourceServerID(r.SourceServer), Job: drs.JobID(r.Job), Drill: r.Drill,
		State: drs.InstanceState(r.State), Tags: r.Tags.V, Launched: r.Launched.Time(),
		Point: drs.RecoverySnapshotID(r.Point), PointTaken: r.PointTaken.Time(), Properties: r.Properties.V,
	}
}

// PutInstance inserts an instance or replaces the one with its ID.
func (tx Tx) PutInstance(ctx context.Context, i drs.RecoveryInstance) error {
	row := instanceRow{
		ID: string(i.ID), Account: i.Account.ID, Region: i.Account.Region, SourceServer: string(i.SourceServer),
		Job: string(i.Job), Drill: i.Drill, State: string(i.State), Launched: stampOf(i.Launched),
		Point: string(i.Point), PointTaken: stampOf(i.PointTaken),
		Properties: document[drs.InstanceProperties]{i.Properties}, Tags: document[drs.Tags]{i.Tags},
	}
	_, err := tx.NewInsert().Model(&row).On("CONFLICT (id) DO UPDATE").
		Set("state = EXCLUDED.state, point = EXCLUDED.point, point_taken = EXCLUDED.point_taken, properties = EXCLUDED.properties").Exec(ctx)
	if err != nil {
		return fmt.Errorf("keep recovery instance %s: %w", i.ID, err)
	}
	return nil
}

// SetInstanceState follows the machine; an instance that is gone stays gone.
func (d *DB) SetInstanceState(ctx context.Context, id drs.RecoveryInstanceID, state drs.InstanceState) error {
	_, err := d.write.NewUpdate().Model((*instanceRow)(nil)).Set("state = ?", string(state)).Where("id = ?", id).Exec(ctx)
	if err != nil {
		return fmt.Errorf("set state of recovery instance %s: %w", id, err)
	}
	return nil
}

// DeleteInstance forgets an instance; one that is absent already is no error.
func (tx Tx) DeleteInstance(ctx context.Context, id drs.RecoveryInstanceID) error {
	if _, err := tx.NewDelete().Model((*instanceRow)(nil)).Where("id = ?", id).Exec(ctx); err != nil {
		return fmt.Errorf("delete recovery instance %s: %w", id, err)
	}
	return nil
}

// InstanceFilter narrows a listing; empty members do not.
type InstanceFilter struct {
	IDs           []drs.RecoveryInstanceID
	SourceServers []drs.SourceServerID
}

// Instances lists the recovery instances of an account, oldest first.
func (d *DB) Instances(ctx context.Context, account drs.Account, f InstanceFilter, page Page) ([]drs.RecoveryInstance, string, error) {
	var rows []instanceRow
	q := d.read.NewSelect().Model(&rows).Where("account = ? AND region = ?", account.ID, account.Region)
	if len(f.IDs) > 0 {
		q = q.Where("id IN (?)", bun.In(f.IDs))
	}
	if len(f.SourceServers) > 0 {
		q = q.Where("source_server IN (?)", bun.In(f.SourceServers))
	}
	q, err := page.by(q, "launched", "id", false)
	if err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list recovery instances: %w", err)
	}
	rows, next := cut(page, rows, func(r instanceRow) cursor { return cursor{int64(r.Launched), r.ID} })
	return convert(rows, instanceRow.resource), next, nil
}

// InstanceByID returns one instance whatever its account, or ErrAbsent.
func (d *DB) InstanceByID(ctx context.Context, id drs.RecoveryInstanceID) (drs.RecoveryInstance, error) {
	var row instanceRow
	if err := d.read.NewSelect().Model(&row).Where("id = ?", id).Scan(ctx); err != nil {
		return drs.RecoveryInstance{}, fmt.Errorf("look up recovery instance %s: %w", id, absent(err))
	}
	return row.resource(), nil
}

// AllInstances lists every instance of every account.
func (d *DB) AllInstances(ctx context.Context) ([]drs.RecoveryInstance, error) {
	var rows []instanceRow
	if err := d.read.NewSelect().Model(&rows).Order("launched", "id").Scan(ctx); err != nil {
		return nil, fmt.Errorf("list recovery instances: %w", err)
	}
	return convert(rows, instanceRow.resource), nil
}

// InstancesOf lists the instances of one server within the transaction.
func (tx Tx) InstancesOf(ctx context.Context, server drs.SourceServerID) ([]drs.RecoveryInstance, error) {
	var rows []instanceRow
	err := tx.NewSelect().Model(&rows).Where("source_server = ?", server).Order("launched", "id").Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("list recovery instances of %s: %w", server, err)
	}
	return convert(rows, instanceRow.resource), nil
}

// InstancesByID lists those of the account's instances within the transaction.
func (tx Tx) InstancesByID(ctx context.Context, account drs.Account, ids []drs.RecoveryInstanceID) ([]drs.RecoveryInstance, error) {
	var rows []instanceRow
	err := tx.NewSelect().Model(&rows).Where("account = ? AND region = ?", account.ID, account.Region).
		Where("id IN (?)", bun.In(ids)).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("look up recovery instances: %w", err)
	}
	return convert(rows, instanceRow.resource), nil
}
