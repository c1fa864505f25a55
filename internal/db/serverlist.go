package db

import (
	"context"
	"errors"
	"fmt"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

// listedRow is what a listing shows of a server. Its JSON texts are not parsed
// again where they were before.
type listedRow struct {
	bun.BaseModel `bun:"table:source_servers"`

	ID               string `bun:",pk"`
	Account          string
	Region           string
	HardwareID       string
	AgentVersion     string
	Added            stamp
	FirstByte        stamp
	LastSeen         stamp
	LastLaunch       document[*drs.LastLaunch]
	LastLaunchResult string
	RecoveryInstance string
	Properties       string
	Replication      string
	Tags             string
	StagingAccount   string
	StagingServer    string
}

func (r listedRow) row(d *DB) (serverRow, error) {
	properties, propertiesErr := d.properties.read(r.Properties)
	replication, replicationErr := d.replication.read(r.Replication)
	tags, tagsErr := d.tags.read(r.Tags)
	return serverRow{
		ID: r.ID, Account: r.Account, Region: r.Region, HardwareID: r.HardwareID, AgentVersion: r.AgentVersion,
		Added: r.Added, FirstByte: r.FirstByte, LastSeen: r.LastSeen, LastLaunch: r.LastLaunch, LastLaunchResult: r.LastLaunchResult,
		RecoveryInstance: r.RecoveryInstance, StagingAccount: r.StagingAccount, StagingServer: r.StagingServer,
		Properties:  document[drs.SourceProperties]{properties},
		Replication: document[drs.DataReplicationInfo]{replication},
		Tags:        document[drs.Tags]{tags},
	}, errors.Join(propertiesErr, replicationErr, tagsErr)
}

// SourceServerFilter narrows a listing; empty members do not.
type SourceServerFilter struct {
	IDs        []drs.SourceServerID
	HardwareID string
	// StagingAccounts selects the servers that are extended from them.
	StagingAccounts []string
}

// SourceServers lists the servers of an account, oldest first, and the cursor
// of the next page. They come without their configurations, which listings do not
// show, and share what they hold: nobody may change it.
func (d *DB) SourceServers(ctx context.Context, account drs.Account, f SourceServerFilter, page Page) ([]drs.SourceServer, string, error) {
	var rows []listedRow
	q := d.read.NewSelect().Model(&rows).Where("account = ? AND region = ?", account.ID, account.Region)
	if len(f.IDs) > 0 {
		q = q.Where("id IN (?)", bun.List(f.IDs))
	}
	if len(f.StagingAccounts) > 0 {
		q = q.Where("staging_account IN (?)", bun.List(f.StagingAccounts))
	}
	if f.HardwareID != "" {
		// The API means a MAC address or a machine's UUID by it.
		q = q.Where(`(hardware_id = ?0
			OR lower(json_extract(properties, '$.vmwareUuid')) = lower(?0)
			OR EXISTS (SELECT 1 FROM json_each(properties, '$.networkInterfaces')
				WHERE lower(json_extract(value, '$.mac')) = lower(?0)))`, f.HardwareID)
	}
	q, err := page.by(q, "added", "id", false)
	if err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list source servers: %w", err)
	}
	rows, next := cut(page, rows, func(r listedRow) cursor { return cursor{int64(r.Added), r.ID} })
	full := make([]serverRow, len(rows))
	for i, r := range rows {
		if full[i], err = r.row(d); err != nil {
			return nil, "", fmt.Errorf("read source server %s: %w", r.ID, err)
		}
	}
	servers, err := resources(ctx, d.read, full)
	return servers, next, err
}
