package db

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

type launchActionRow struct {
	bun.BaseModel `bun:"table:launch_actions"`

	Resource string `bun:",pk"`
	ID       string `bun:",pk"`
	Position int64
	Name     string
	Action   document[drs.LaunchAction]
}

// LaunchActionFilter narrows a listing; no IDs mean all.
type LaunchActionFilter struct{ IDs []string }

// LaunchActions lists the actions of a source server or template in the order in
// which they are to run. The caller knows that the resource is the account's.
func (d *DB) LaunchActions(ctx context.Context, resource string, f LaunchActionFilter, page Page) ([]drs.LaunchAction, string, error) {
	var rows []launchActionRow
	q := d.read.NewSelect().Model(&rows).Where("resource = ?", resource)
	if len(f.IDs) > 0 {
		q = q.Where("id IN (?)", bun.List(f.IDs))
	}
	q, err := page.by(q, "position", "id", false)
	if err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list the launch actions of %s: %w", resource, err)
	}
	rows, next := cut(page, rows, func(r launchActionRow) cursor { return cursor{r.Position, r.ID} })
	return convert(rows, func(r launchActionRow) drs.LaunchAction { return r.Action.V }), next, nil
}

// LaunchActions is DB.LaunchActions for all of them within the transaction.
func (tx Tx) LaunchActions(ctx context.Context, resource string) ([]drs.LaunchAction, error) {
	var rows []launchActionRow
	if err := tx.NewSelect().Model(&rows).Where("resource = ?", resource).Order("position").Scan(ctx); err != nil {
		return nil, fmt.Errorf("list the launch actions of %s: %w", resource, err)
	}
	return convert(rows, func(r launchActionRow) drs.LaunchAction { return r.Action.V }), nil
}

// PutLaunchAction adds an action to a source server or template, or replaces the
// one with its ID.
func (tx Tx) PutLaunchAction(ctx context.Context, resource string, a drs.LaunchAction) error {
	row := launchActionRow{Resource: resource, ID: a.ID, Position: int64(a.Order), Name: a.Name, Action: document[drs.LaunchAction]{a}}
	_, err := tx.NewInsert().Model(&row).On("CONFLICT (resource, id) DO UPDATE").
		Set("position = EXCLUDED.position").Set("name = EXCLUDED.name").Set("action = EXCLUDED.action").Exec(ctx)
	if err != nil {
		return fmt.Errorf("put launch action %s of %s: %w", a.ID, resource, err)
	}
	return nil
}

// DeleteLaunchAction removes an action, or returns ErrAbsent.
func (tx Tx) DeleteLaunchAction(ctx context.Context, resource, id string) error {
	result, err := tx.NewDelete().Model((*launchActionRow)(nil)).Where("resource = ? AND id = ?", resource, id).Exec(ctx)
	if err != nil {
		return fmt.Errorf("delete launch action %s of %s: %w", id, resource, err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return fmt.Errorf("delete launch action %s of %s: %w", id, resource, ErrAbsent)
	}
	return nil
}

func (tx Tx) deleteLaunchActions(ctx context.Context, resource string) error {
	if _, err := tx.NewDelete().Model((*launchActionRow)(nil)).Where("resource = ?", resource).Exec(ctx); err != nil {
		return fmt.Errorf("delete the launch actions of %s: %w", resource, err)
	}
	return nil
}

func (tx Tx) copyLaunchActions(ctx context.Context, from, to string) error {
	_, err := tx.NewRaw(`INSERT INTO launch_actions (resource, id, position, name, action)
		SELECT ?, id, position, name, action FROM launch_actions WHERE resource = ?`, to, from).Exec(ctx)
	if err != nil {
		return fmt.Errorf("copy the launch actions of %s: %w", from, err)
	}
	return nil
}

// LaunchTemplate returns one template of the account within the transaction, or
// ErrAbsent.
func (tx Tx) LaunchTemplate(ctx context.Context, account drs.Account, id drs.LaunchTemplateID) (drs.LaunchConfigurationTemplate, error) {
	var row launchTemplateRow
	if err := one(ctx, tx, &row, account, string(id)); err != nil {
		return drs.LaunchConfigurationTemplate{}, err
	}
	return row.resource(), nil
}
