package db

import (
	"context"
	"errors"
	"fmt"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

// listedRow is what a listing shows of a server: all but its configurations.
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
	Version          int64
}

func (r listedRow) resource() (drs.SourceServer, error) {
	full := serverRow{
		ID: r.ID, Account: r.Account, Region: r.Region, HardwareID: r.HardwareID, AgentVersion: r.AgentVersion,
		Added: r.Added, FirstByte: r.FirstByte, LastSeen: r.LastSeen, LastLaunch: r.LastLaunch, LastLaunchResult: r.LastLaunchResult,
		RecoveryInstance: r.RecoveryInstance, StagingAccount: r.StagingAccount, StagingServer: r.StagingServer,
	}
	err := errors.Join(full.Properties.Scan(r.Properties), full.Replication.Scan(r.Replication), full.Tags.Scan(r.Tags))
	return full.resource(), err
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
	listed, next, err := d.ListSourceServers(ctx, account, f, page)
	return values(listed), next, err
}

// ListSourceServers is SourceServers for those who also keep what they write of
// them. What is listed of an extended server is nobody else's.
func (d *DB) ListSourceServers(ctx context.Context, account drs.Account, f SourceServerFilter, page Page) ([]*Listed[drs.SourceServer], string, error) {
	q := d.read.NewSelect().Table("source_servers").Column("added", "id", "version").
		Where("account = ? AND region = ?", account.ID, account.Region)
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
	found, next, err := marks(ctx, q, page)
	if err != nil {
		return nil, "", fmt.Errorf("list source servers: %w", err)
	}
	servers, err := d.servers.list(found, func(ids []string) (map[string]*Listed[drs.SourceServer], error) { return d.readServers(ctx, ids) })
	if err != nil {
		return nil, "", fmt.Errorf("list source servers: %w", err)
	}
	return servers, next, d.extend(ctx, servers)
}

// readServers reads servers that are not on the shelf, and puts them there.
func (d *DB) readServers(ctx context.Context, ids []string) (map[string]*Listed[drs.SourceServer], error) {
	var rows []listedRow
	if err := d.read.NewSelect().Model(&rows).Where("id IN (?)", bun.List(ids)).Scan(ctx); err != nil {
		return nil, err
	}
	out := make(map[string]*Listed[drs.SourceServer], len(rows))
	for _, r := range rows {
		server, err := r.resource()
		if err != nil {
			return nil, fmt.Errorf("read source server %s: %w", r.ID, err)
		}
		out[r.ID] = &Listed[drs.SourceServer]{V: server}
		d.servers.put(r.ID, r.Version, len(r.Properties)+len(r.Replication)+len(r.Tags), out[r.ID])
	}
	return out, nil
}

// extend puts what extended servers show in their places: it changes with the
// servers that they stand for.
func (d *DB) extend(ctx context.Context, servers []*Listed[drs.SourceServer]) error {
	var places []int
	var extended []drs.SourceServer
	for i, l := range servers {
		if l.V.Extended() {
			places, extended = append(places, i), append(extended, l.V)
		}
	}
	if err := showOrigins(ctx, d.read, extended); err != nil {
		return err
	}
	for i, at := range places {
		servers[at] = &Listed[drs.SourceServer]{V: extended[i]}
	}
	return nil
}

// ServerMark names a source server, and the version of what is kept of it: it is
// another one after any change.
type ServerMark struct {
	ID      drs.SourceServerID
	Account drs.Account
	Version int64
}

// ServerMarks lists every server of every account that is replicated to it, as
// AllServers does, without reading what is known of them.
func (d *DB) ServerMarks(ctx context.Context) ([]ServerMark, error) {
	rows, err := d.read.QueryContext(ctx, "SELECT id, account, region, version FROM source_servers WHERE staging_server = '' ORDER BY added, id")
	if err != nil {
		return nil, fmt.Errorf("list source servers: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells what went wrong
	var all []ServerMark
	for rows.Next() {
		var m ServerMark
		if err := rows.Scan(&m.ID, &m.Account.ID, &m.Account.Region, &m.Version); err != nil {
			return nil, fmt.Errorf("list source servers: %w", err)
		}
		all = append(all, m)
	}
	return all, rows.Err()
}
