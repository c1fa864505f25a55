package db

import (
	"context"
	"fmt"
	"maps"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

// tagged are the tables whose rows carry tags, by the word in their ARN.
var tagged = map[drs.ResourceType]string{
	drs.TypeSourceServer:     "source_servers",
	drs.TypeJob:              "jobs",
	drs.TypeRecoveryInstance: "recovery_instances",
	drs.TypeRecoveryPlan:     "recovery_plans",
	drs.TypePlanExecution:    "plan_executions",
	drs.TypeSourceNetwork:    "source_networks",

	drs.TypeReplicationTemplate: "replication_templates",
	drs.TypeLaunchTemplate:      "launch_templates",
}

// Tags returns the tags of one resource, or ErrAbsent.
func (d *DB) Tags(ctx context.Context, r drs.Resource) (drs.Tags, error) {
	return tags(ctx, d.read, r)
}

// ChangeTags changes the tags of one resource under f; ErrAbsent when there is
// no such resource.
func (d *DB) ChangeTags(ctx context.Context, r drs.Resource, f func(drs.Tags) error) error {
	return d.InTx(ctx, func(ctx context.Context, tx Tx) error {
		now, err := tags(ctx, tx, r)
		if err != nil {
			return err
		}
		next := maps.Clone(now)
		if next == nil {
			next = drs.Tags{}
		}
		if err := f(next); err != nil {
			return err
		}
		_, err = tx.NewRaw("UPDATE ? SET tags = ? WHERE id = ?", bun.Ident(tagged[r.Type]), document[drs.Tags]{next}, r.ID).Exec(ctx)
		return err
	})
}

func tags(ctx context.Context, db bun.IDB, r drs.Resource) (drs.Tags, error) {
	table, ok := tagged[r.Type]
	if !ok {
		return nil, fmt.Errorf("look up tags of %s %s: %w", r.Type, r.ID, ErrAbsent)
	}
	var out document[drs.Tags]
	err := db.NewRaw("SELECT tags FROM ? WHERE id = ? AND account = ? AND region = ?",
		bun.Ident(table), r.ID, r.Account.ID, r.Account.Region).Scan(ctx, &out)
	if err != nil {
		return nil, fmt.Errorf("look up tags of %s %s: %w", r.Type, r.ID, absent(err))
	}
	return out.V, nil
}
