package db

import (
	"context"
	"errors"
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
	Wanted       bool
	Launched     stamp
	Point        string
	PointTaken   stamp
	Properties   document[drs.InstanceProperties]
	Tags         document[drs.Tags]
	VaultServer  string
	Connection   string
	Failback     document[*drs.FailbackConfiguration]
}

func (r instanceRow) resource() drs.RecoveryInstance {
	failback := drs.DefaultFailbackConfiguration()
	if r.Failback.V != nil {
		failback = *r.Failback.V
	}
	return drs.RecoveryInstance{
		VaultServer: drs.SourceServerID(r.VaultServer), Connection: drs.Connection(r.Connection), Failback: failback,

		ID: drs.RecoveryInstanceID(r.ID), Account: drs.Account{ID: r.Account, Region: r.Region},
		SourceServer: drs.SourceServerID(r.SourceServer), Job: drs.JobID(r.Job), Drill: r.Drill,
		State: drs.InstanceState(r.State), Wanted: r.Wanted, Tags: r.Tags.V, Launched: r.Launched.Time(),
		Point: drs.RecoverySnapshotID(r.Point), PointTaken: r.PointTaken.Time(), Properties: r.Properties.V,
	}
}

// InsertInstance adds an instance.
func (tx Tx) InsertInstance(ctx context.Context, i drs.RecoveryInstance) error {
	row := instanceRow{
		ID: string(i.ID), Account: i.Account.ID, Region: i.Account.Region, SourceServer: string(i.SourceServer),
		Job: string(i.Job), Drill: i.Drill, State: string(i.State), Wanted: i.Wanted, Launched: stampOf(i.Launched),
		Point: string(i.Point), PointTaken: stampOf(i.PointTaken),
		Properties: document[drs.InstanceProperties]{i.Properties}, Tags: document[drs.Tags]{i.Tags},
		VaultServer: string(i.VaultServer), Connection: string(i.Connection),
	}
	if row.VaultServer == "" {
		row.VaultServer = row.SourceServer
	}
	if _, err := tx.NewInsert().Model(&row).Exec(ctx); err != nil {
		return fmt.Errorf("insert recovery instance %s: %w", i.ID, err)
	}
	return nil
}

// ErrForbidden: the instance is in a state from which no rule leads to the one
// that was asked for.
var ErrForbidden = errors.New("forbidden change of state")

// MoveInstance moves an instance on along its transition table and returns it as
// it was before; f, if not nil, changes what else is to change with it. ErrAbsent
// and ErrForbidden change nothing.
func (tx Tx) MoveInstance(ctx context.Context, id drs.RecoveryInstanceID, to drs.InstanceState, f func(*drs.RecoveryInstance)) (drs.RecoveryInstance, error) {
	var row instanceRow
	if err := tx.NewSelect().Model(&row).Where("id = ?", id).Scan(ctx); err != nil {
		return drs.RecoveryInstance{}, fmt.Errorf("look up recovery instance %s: %w", id, absent(err))
	}
	before := row.resource()
	next, err := before.State.Next(to)
	if err != nil {
		return before, fmt.Errorf("recovery instance %s: %w: %w", id, ErrForbidden, err)
	}
	after := before
	if f != nil {
		f(&after)
	}
	row.State, row.Wanted, row.Properties.V = string(next), after.Wanted, after.Properties
	if _, err := tx.NewUpdate().Model(&row).Column("state", "wanted", "properties").WherePK().Exec(ctx); err != nil {
		return before, fmt.Errorf("move recovery instance %s to %s: %w", id, to, err)
	}
	return before, nil
}

// MoveInstance is Tx.MoveInstance in a transaction of its own.
func (d *DB) MoveInstance(ctx context.Context, id drs.RecoveryInstanceID, to drs.InstanceState, f func(*drs.RecoveryInstance)) (before drs.RecoveryInstance, err error) {
	err = d.InTx(ctx, func(ctx context.Context, tx Tx) error {
		before, err = tx.MoveInstance(ctx, id, to, f)
		return err
	})
	return before, err
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

// Instances lists the recovery instances of an account, oldest first, but for
// those that were released.
func (d *DB) Instances(ctx context.Context, account drs.Account, f InstanceFilter, page Page) ([]drs.RecoveryInstance, string, error) {
	var rows []instanceRow
	q := d.read.NewSelect().Model(&rows).Where("account = ? AND region = ?", account.ID, account.Region).
		Where("connection <> ?", string(drs.Released))
	if len(f.IDs) > 0 {
		q = q.Where("id IN (?)", bun.List(f.IDs))
	}
	if len(f.SourceServers) > 0 {
		q = q.Where("source_server IN (?)", bun.List(f.SourceServers))
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

// MachinesOn lists the instances whose disks lie in the server's part of the vault,
// whatever account they are in.
func (tx Tx) MachinesOn(ctx context.Context, server drs.SourceServerID) ([]drs.RecoveryInstance, error) {
	var rows []instanceRow
	err := tx.NewSelect().Model(&rows).Where("vault_server = ?", server).Order("launched", "id").Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the machines on %s: %w", server, err)
	}
	return convert(rows, instanceRow.resource), nil
}

// SetConnection keeps how far the service still has to do with an instance.
func (tx Tx) SetConnection(ctx context.Context, id drs.RecoveryInstanceID, to drs.Connection) error {
	_, err := tx.NewUpdate().Model((*instanceRow)(nil)).Set("connection = ?", string(to)).Where("id = ?", id).Exec(ctx)
	if err != nil {
		return fmt.Errorf("set the connection of recovery instance %s: %w", id, err)
	}
	return nil
}

// SetFailback keeps the failback configuration of an instance.
func (tx Tx) SetFailback(ctx context.Context, id drs.RecoveryInstanceID, c drs.FailbackConfiguration) error {
	_, err := tx.NewUpdate().Model((*instanceRow)(nil)).
		Set("failback = ?", document[*drs.FailbackConfiguration]{&c}).Where("id = ?", id).Exec(ctx)
	if err != nil {
		return fmt.Errorf("set the failback configuration of recovery instance %s: %w", id, err)
	}
	return nil
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
		Where("id IN (?)", bun.List(ids)).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("look up recovery instances: %w", err)
	}
	return convert(rows, instanceRow.resource), nil
}
