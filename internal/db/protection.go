package db

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

// Replication is how a server's replication stands after an order.
type Replication struct {
	Info drs.DataReplicationInfo
	// Emptied forgets the recovery points and requests that the vault deletes the
	// server's data; see Purges.
	Emptied bool
}

// OrderReplication moves a server's replication on by an order, and keeps what
// follows from it.
func (tx Tx) OrderReplication(ctx context.Context, id drs.SourceServerID, r Replication) error {
	q := tx.NewUpdate().Model((*serverRow)(nil)).Set("replication = ?", document[drs.DataReplicationInfo]{r.Info}).Where("id = ?", id)
	if r.Info.State == drs.ReplicationInitiating && r.Info.AsOf.IsZero() {
		q = q.Set("first_byte = 0") // all begins anew
	}
	if _, err := q.Exec(ctx); err != nil {
		return fmt.Errorf("order the replication of %s: %w", id, err)
	}
	if !r.Emptied {
		return nil
	}
	return tx.empty(ctx, id)
}

// empty forgets a server's points and requests the deletion of its data.
func (tx Tx) empty(ctx context.Context, id drs.SourceServerID) error {
	if _, err := tx.NewDelete().Model((*pointRow)(nil)).Where("source_server = ?", id).Exec(ctx); err != nil {
		return fmt.Errorf("forget the recovery points of %s: %w", id, err)
	}
	_, err := tx.NewRaw("INSERT INTO vault_purges (source_server, requested) VALUES (?, ?) ON CONFLICT DO NOTHING",
		string(id), stampOf(time.Now())).Exec(ctx)
	if err != nil {
		return fmt.Errorf("request the deletion of the data of %s: %w", id, err)
	}
	return nil
}

// DeleteServer forgets a server with its points and launch actions. Jobs keep its
// name. The deletion of its data is requested, but for an extended server, which
// has none.
func (tx Tx) DeleteServer(ctx context.Context, server drs.SourceServer) error {
	if err := remove(ctx, tx, (*serverRow)(nil), server.Account, string(server.ID)); err != nil {
		return err
	}
	if err := tx.deleteLaunchActions(ctx, string(server.ID)); err != nil {
		return err
	}
	if server.Extended() {
		return nil
	}
	return tx.empty(ctx, server.ID)
}

// Purges lists the servers whose data is to be deleted from the vault, in the order
// of the requests.
func (d *DB) Purges(ctx context.Context) ([]drs.SourceServerID, error) {
	var ids []drs.SourceServerID
	if err := d.read.NewRaw("SELECT source_server FROM vault_purges ORDER BY requested, source_server").Scan(ctx, &ids); err != nil {
		return nil, fmt.Errorf("list data to delete: %w", err)
	}
	return ids, nil
}

// MayPurge tells whether the deletion of a server's data is requested, and which
// machines still stand in its way.
func (d *DB) MayPurge(ctx context.Context, id drs.SourceServerID) (requested bool, inUse []drs.RecoveryInstance, err error) {
	err = d.InTx(ctx, func(ctx context.Context, tx Tx) error {
		n, err := tx.NewSelect().Table("vault_purges").Where("source_server = ?", id).Count(ctx)
		if err != nil {
			return fmt.Errorf("look up data to delete: %w", err)
		}
		if requested = n > 0; !requested {
			return nil
		}
		inUse, err = tx.MachinesOn(ctx, id)
		return err
	})
	return requested, inUse, err
}

// Purged notes that the vault holds nothing of the server any more.
func (d *DB) Purged(ctx context.Context, id drs.SourceServerID) error {
	if _, err := d.write.NewRaw("DELETE FROM vault_purges WHERE source_server = ?", string(id)).Exec(ctx); err != nil {
		return fmt.Errorf("note that the data of %s is deleted: %w", id, err)
	}
	return nil
}

// ended tells whether the server's replication was ended by an order. A server
// that is not there has none.
func (tx Tx) ended(ctx context.Context, id drs.SourceServerID) (bool, error) {
	var row serverRow
	err := tx.NewSelect().Model(&row).Column("replication").Where("id = ?", id).Scan(ctx)
	if errors.Is(absent(err), ErrAbsent) {
		return false, nil
	}
	return err == nil && row.Replication.V.State.Ended(), err
}

// InsertExtended adds a server that stands for one of another account; most is how
// many source servers the account may have in all. ErrExtended: it has such a one.
func (tx Tx) InsertExtended(ctx context.Context, server drs.SourceServer, most int) (drs.SourceServer, error) {
	n, err := tx.NewSelect().Model((*serverRow)(nil)).
		Where("account = ? AND region = ? AND staging_server = ?", server.Account.ID, server.Account.Region, server.Staging.Server).Count(ctx)
	if err != nil {
		return server, fmt.Errorf("look up extended servers: %w", err)
	}
	if n > 0 {
		return server, ErrExtended
	}
	if err := mayHaveMore(ctx, tx, server.Account, most); err != nil {
		return server, err
	}
	row := newServerRow(Registration{
		Account: server.Account, HardwareID: server.Staging.ARN(), AgentVersion: server.AgentVersion, Properties: server.Properties,
	})
	row.StagingAccount, row.StagingServer = server.Staging.Account.ID, string(server.Staging.Server)
	row.Tags.V = server.Tags
	if err := tx.configure(ctx, &row); err != nil {
		return server, err
	}
	row.ReplicationConfiguration.V = server.ReplicationConfiguration
	if _, err := tx.NewInsert().Model(&row).Exec(ctx); err != nil {
		return server, fmt.Errorf("insert extended server: %w", err)
	}
	return tx.SourceServer(ctx, server.Account, drs.SourceServerID(row.ID))
}

// ErrExtended: the server was extended to the account before.
var ErrExtended = errors.New("the source server is extended to this account already")

// Extensible lists the servers of a staging account that are not extended to the
// account yet and are no extensions themselves, oldest first.
func (d *DB) Extensible(ctx context.Context, staging, account drs.Account, page Page) ([]drs.SourceServer, string, error) {
	var rows []serverRow
	q := d.read.NewSelect().Model(&rows).Where("account = ? AND region = ? AND staging_server = ''", staging.ID, staging.Region).
		Where("id NOT IN (SELECT staging_server FROM source_servers WHERE account = ? AND region = ?)", account.ID, account.Region)
	q, err := page.by(q, "added", "id", false)
	if err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list extensible servers: %w", err)
	}
	rows, next := cut(page, rows, func(r serverRow) cursor { return cursor{int64(r.Added), r.ID} })
	return convert(rows, serverRow.resource), next, nil
}

// StagingAccounts lists the accounts from which servers are extended to this one,
// sorted.
func (d *DB) StagingAccounts(ctx context.Context, account drs.Account, page Page) ([]string, string, error) {
	var ids []string
	q := d.read.NewSelect().Model((*serverRow)(nil)).ColumnExpr("DISTINCT staging_account").
		Where("account = ? AND region = ? AND staging_account > ?", account.ID, account.Region, page.After)
	if err := q.Order("staging_account").Limit(int64(page.Limit)+1).Scan(ctx, &ids); err != nil {
		return nil, "", fmt.Errorf("list staging accounts: %w", err)
	}
	if len(ids) <= page.Limit {
		return ids, "", nil
	}
	ids = ids[:page.Limit]
	return ids, ids[len(ids)-1], nil
}

// resources turns rows into servers. Extended ones show how the server that they
// stand for is replicated now.
func resources(ctx context.Context, db bun.IDB, rows []serverRow) ([]drs.SourceServer, error) {
	out := convert(rows, serverRow.resource)
	return out, showOrigins(ctx, db, out)
}

// showOrigins makes the extended ones among the servers show what they stand for.
func showOrigins(ctx context.Context, db bun.IDB, servers []drs.SourceServer) error {
	var staged []string
	for _, s := range servers {
		if s.Extended() && !slices.Contains(staged, string(s.Staging.Server)) {
			staged = append(staged, string(s.Staging.Server))
		}
	}
	if len(staged) == 0 {
		return nil
	}
	var origins []serverRow
	if err := db.NewSelect().Model(&origins).Where("id IN (?)", bun.List(staged)).Scan(ctx); err != nil {
		return fmt.Errorf("look up staging servers: %w", err)
	}
	origin := map[drs.SourceServerID]drs.SourceServer{}
	for _, r := range origins {
		origin[drs.SourceServerID(r.ID)] = r.resource()
	}
	for i := range servers {
		s := &servers[i]
		if !s.Extended() {
			continue
		}
		from, ok := origin[s.Staging.Server]
		if !ok {
			s.Staging.Error = fmt.Sprintf("Source server %s of account %s does not exist any more. Delete this extension.",
				s.Staging.Server, s.Staging.Account.ID)
			s.Replication = s.Replication.After(drs.ReplicationDisconnected)
			continue
		}
		s.Replication, s.Properties, s.AgentVersion = from.Replication, from.Properties, from.AgentVersion
		s.ReplicationConfiguration = from.ReplicationConfiguration
		s.LifeCycle.FirstByte, s.LifeCycle.LastSeen = from.LifeCycle.FirstByte, from.LifeCycle.LastSeen
	}
	return nil
}
