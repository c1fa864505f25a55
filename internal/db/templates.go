package db

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

type replicationTemplateRow struct {
	bun.BaseModel `bun:"table:replication_templates"`

	ID            string `bun:",pk"`
	Account       string
	Region        string
	Created       stamp
	Configuration document[drs.ReplicationConfiguration]
	Tags          document[drs.Tags]
}

func (r replicationTemplateRow) resource() drs.ReplicationConfigurationTemplate {
	return drs.ReplicationConfigurationTemplate{
		ID: drs.ReplicationTemplateID(r.ID), Account: drs.Account{ID: r.Account, Region: r.Region},
		Created: r.Created.Time(), Tags: r.Tags.V, Configuration: r.Configuration.V,
	}
}

type launchTemplateRow struct {
	bun.BaseModel `bun:"table:launch_templates"`

	ID       string `bun:",pk"`
	Account  string
	Region   string
	Created  stamp
	Settings document[drs.LaunchTemplateSettings]
	Tags     document[drs.Tags]
}

func (r launchTemplateRow) resource() drs.LaunchConfigurationTemplate {
	return drs.LaunchConfigurationTemplate{
		ID: drs.LaunchTemplateID(r.ID), Account: drs.Account{ID: r.Account, Region: r.Region},
		Created: r.Created.Time(), Tags: r.Tags.V, Settings: r.Settings.V,
	}
}

// InsertReplicationTemplate adds a template.
func (d *DB) InsertReplicationTemplate(ctx context.Context, t drs.ReplicationConfigurationTemplate) error {
	row := replicationTemplateRow{
		ID: string(t.ID), Account: t.Account.ID, Region: t.Account.Region, Created: stampOf(t.Created),
		Configuration: document[drs.ReplicationConfiguration]{t.Configuration}, Tags: document[drs.Tags]{t.Tags},
	}
	if _, err := d.write.NewInsert().Model(&row).Exec(ctx); err != nil {
		return fmt.Errorf("insert replication configuration template: %w", err)
	}
	return nil
}

// ReplicationTemplates lists the templates of an account, oldest first; no IDs
// mean all.
func (d *DB) ReplicationTemplates(ctx context.Context, account drs.Account, ids []drs.ReplicationTemplateID, page Page) ([]drs.ReplicationConfigurationTemplate, string, error) {
	var rows []replicationTemplateRow
	q := d.read.NewSelect().Model(&rows).Where("account = ? AND region = ?", account.ID, account.Region)
	if len(ids) > 0 {
		q = q.Where("id IN (?)", bun.List(ids))
	}
	q, err := page.by(q, "created", "id", false)
	if err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list replication configuration templates: %w", err)
	}
	rows, next := cut(page, rows, func(r replicationTemplateRow) cursor { return cursor{int64(r.Created), r.ID} })
	return convert(rows, replicationTemplateRow.resource), next, nil
}

// UpdateReplicationTemplate changes a template under f and returns it; ErrAbsent
// when the account has no such template.
func (d *DB) UpdateReplicationTemplate(ctx context.Context, account drs.Account, id drs.ReplicationTemplateID, f func(*drs.ReplicationConfiguration) error) (drs.ReplicationConfigurationTemplate, error) {
	var row replicationTemplateRow
	err := d.InTx(ctx, func(ctx context.Context, tx Tx) error {
		if err := one(ctx, tx, &row, account, string(id)); err != nil {
			return err
		}
		if err := f(&row.Configuration.V); err != nil {
			return err
		}
		_, err := tx.NewUpdate().Model(&row).Column("configuration").WherePK().Exec(ctx)
		return err
	})
	if err != nil {
		return drs.ReplicationConfigurationTemplate{}, fmt.Errorf("update template %s: %w", id, err)
	}
	return row.resource(), nil
}

// DeleteReplicationTemplate removes a template, or returns ErrAbsent.
func (d *DB) DeleteReplicationTemplate(ctx context.Context, account drs.Account, id drs.ReplicationTemplateID) error {
	return d.InTx(ctx, func(ctx context.Context, tx Tx) error {
		return remove(ctx, tx, (*replicationTemplateRow)(nil), account, string(id))
	})
}

// InsertLaunchTemplate adds a template. Beyond most templates of the account it
// is refused with a *drs.Error.
func (d *DB) InsertLaunchTemplate(ctx context.Context, t drs.LaunchConfigurationTemplate, most int) error {
	row := launchTemplateRow{
		ID: string(t.ID), Account: t.Account.ID, Region: t.Account.Region, Created: stampOf(t.Created),
		Settings: document[drs.LaunchTemplateSettings]{t.Settings}, Tags: document[drs.Tags]{t.Tags},
	}
	return d.InTx(ctx, func(ctx context.Context, tx Tx) error {
		n, err := tx.NewSelect().Model((*launchTemplateRow)(nil)).
			Where("account = ? AND region = ?", t.Account.ID, t.Account.Region).Count(ctx)
		if err != nil {
			return fmt.Errorf("count launch configuration templates: %w", err)
		}
		if int(n) >= most {
			return drs.QuotaExceeded(drs.QuotaLaunchTemplates, drs.TypeLaunchTemplate, "",
				"The account has %d launch configuration template(s), the most it may have. Update it, or delete it first.", n)
		}
		if _, err := tx.NewInsert().Model(&row).Exec(ctx); err != nil {
			return fmt.Errorf("insert launch configuration template: %w", err)
		}
		return nil
	})
}

// LaunchTemplates lists the templates of an account, oldest first; no IDs mean all.
func (d *DB) LaunchTemplates(ctx context.Context, account drs.Account, ids []drs.LaunchTemplateID, page Page) ([]drs.LaunchConfigurationTemplate, string, error) {
	var rows []launchTemplateRow
	q := d.read.NewSelect().Model(&rows).Where("account = ? AND region = ?", account.ID, account.Region)
	if len(ids) > 0 {
		q = q.Where("id IN (?)", bun.List(ids))
	}
	q, err := page.by(q, "created", "id", false)
	if err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list launch configuration templates: %w", err)
	}
	rows, next := cut(page, rows, func(r launchTemplateRow) cursor { return cursor{int64(r.Created), r.ID} })
	return convert(rows, launchTemplateRow.resource), next, nil
}

// UpdateLaunchTemplate changes a template under f and returns it; ErrAbsent when
// the account has no such template.
func (d *DB) UpdateLaunchTemplate(ctx context.Context, account drs.Account, id drs.LaunchTemplateID, f func(*drs.LaunchTemplateSettings) error) (drs.LaunchConfigurationTemplate, error) {
	var row launchTemplateRow
	err := d.InTx(ctx, func(ctx context.Context, tx Tx) error {
		if err := one(ctx, tx, &row, account, string(id)); err != nil {
			return err
		}
		if err := f(&row.Settings.V); err != nil {
			return err
		}
		_, err := tx.NewUpdate().Model(&row).Column("settings").WherePK().Exec(ctx)
		return err
	})
	if err != nil {
		return drs.LaunchConfigurationTemplate{}, fmt.Errorf("update template %s: %w", id, err)
	}
	return row.resource(), nil
}

// DeleteLaunchTemplate removes a template and its launch actions, or returns
// ErrAbsent. Servers keep their copies.
func (d *DB) DeleteLaunchTemplate(ctx context.Context, account drs.Account, id drs.LaunchTemplateID) error {
	return d.InTx(ctx, func(ctx context.Context, tx Tx) error {
		if err := remove(ctx, tx, (*launchTemplateRow)(nil), account, string(id)); err != nil {
			return err
		}
		return tx.deleteLaunchActions(ctx, string(id))
	})
}

// one reads a row of an account by its ID, or returns ErrAbsent.
func one(ctx context.Context, db bun.IDB, row any, account drs.Account, id string) error {
	err := db.NewSelect().Model(row).Where("id = ? AND account = ? AND region = ?", id, account.ID, account.Region).Scan(ctx)
	if err != nil {
		return fmt.Errorf("look up %s: %w", id, absent(err))
	}
	return nil
}

// remove deletes a row of an account by its ID, or returns ErrAbsent.
func remove(ctx context.Context, db bun.IDB, model any, account drs.Account, id string) error {
	result, err := db.NewDelete().Model(model).Where("id = ? AND account = ? AND region = ?", id, account.ID, account.Region).Exec(ctx)
	if err != nil {
		return fmt.Errorf("delete %s: %w", id, err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return fmt.Errorf("delete %s: %w", id, ErrAbsent)
	}
	return nil
}

// configure gives a new server the configurations of the account's templates, of
// each kind the oldest, and copies the launch actions. Without a template it keeps
// the defaults that it has.
func (tx Tx) configure(ctx context.Context, row *serverRow) error {
	oldest := func(rows any) error {
		return tx.NewSelect().Model(rows).Where("account = ? AND region = ?", row.Account, row.Region).
			Order("created", "id").Limit(1).Scan(ctx)
	}
	var replication []replicationTemplateRow
	if err := oldest(&replication); err != nil {
		return fmt.Errorf("look up replication configuration template: %w", err)
	}
	for _, t := range replication {
		row.ReplicationConfiguration.V = t.resource().For(drs.SourceServerID(row.ID))
	}
	var launch []launchTemplateRow
	if err := oldest(&launch); err != nil {
		return fmt.Errorf("look up launch configuration template: %w", err)
	}
	for _, t := range launch {
		row.LaunchConfiguration.V = t.resource().For(drs.SourceServerID(row.ID))
		if err := tx.copyLaunchActions(ctx, t.ID, row.ID); err != nil {
			return err
		}
	}
	return nil
}
