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

type serverRow struct {
	bun.BaseModel `bun:"table:source_servers"`

	ID                       string `bun:",pk"`
	Account                  string
	Region                   string
	HardwareID               string
	AgentVersion             string
	Added                    stamp
	FirstByte                stamp
	LastSeen                 stamp
	LastLaunch               document[*drs.LastLaunch]
	LastLaunchResult         string
	RecoveryInstance         string
	Properties               document[drs.SourceProperties]
	Replication              document[drs.DataReplicationInfo]
	ReplicationConfiguration document[drs.ReplicationConfiguration]
	LaunchConfiguration      document[drs.LaunchConfiguration]
	Tags                     document[drs.Tags]
	StagingAccount           string // of an extended server
	StagingServer            string
}

func (r serverRow) resource() drs.SourceServer {
	return drs.SourceServer{
		ID:           drs.SourceServerID(r.ID),
		Account:      drs.Account{ID: r.Account, Region: r.Region},
		Tags:         r.Tags.V,
		HardwareID:   r.HardwareID,
		AgentVersion: r.AgentVersion,
		Properties:   r.Properties.V,
		Replication:  r.Replication.V,
		LifeCycle: drs.LifeCycle{
			AddedToService: r.Added.Time(),
			FirstByte:      r.FirstByte.Time(),
			LastSeen:       r.LastSeen.Time(),
			LastLaunch:     r.LastLaunch.V,
		},
		LastLaunchResult:         drs.LastLaunchResult(r.LastLaunchResult),
		RecoveryInstance:         drs.RecoveryInstanceID(r.RecoveryInstance),
		ReplicationConfiguration: r.ReplicationConfiguration.V,
		LaunchConfiguration:      r.LaunchConfiguration.V,
		Staging:                  r.staging(),
	}
}

func (r serverRow) staging() drs.Staging {
	if r.StagingServer == "" {
		return drs.Staging{}
	}
	return drs.Staging{Account: drs.Account{ID: r.StagingAccount, Region: r.Region}, Server: drs.SourceServerID(r.StagingServer)}
}

// Registration is an agent that introduces its machine.
type Registration struct {
	Account      drs.Account
	HardwareID   string
	AgentVersion string
	Properties   drs.SourceProperties
	// Most is how many source servers of its own the account may have, and MostInAll
	// how many with those that are extended to it; 0 means any number.
	Most, MostInAll int
	// Takeover refuses to give a known server to the machine; nil never does. It is
	// asked in the transaction that would do so.
	Takeover func(known drs.SourceServer) error
}

// RegisterServer returns the source server of the machine, a new one when the
// account has none with its hardware ID. A known one keeps everything but its
// properties and agent version. A new one too many is refused with a *drs.Error.
func (d *DB) RegisterServer(ctx context.Context, r Registration) (server drs.SourceServer, created bool, err error) {
	err = d.InTx(ctx, func(ctx context.Context, tx Tx) error {
		var row serverRow
		err := tx.NewSelect().Model(&row).
			Where("account = ? AND region = ? AND hardware_id = ?", r.Account.ID, r.Account.Region, r.HardwareID).Scan(ctx)
		switch {
		case err == nil:
			if r.Takeover != nil {
				if err := r.Takeover(row.resource()); err != nil {
					return err
				}
			}
			row.Properties.V, row.AgentVersion = r.Properties, r.AgentVersion
			_, err = tx.NewUpdate().Model(&row).Column("properties", "agent_version").WherePK().Exec(ctx)
		case errors.Is(absent(err), ErrAbsent):
			if err := mayHaveAnother(ctx, tx, r); err != nil {
				return err
			}
			created = true
			row = newServerRow(r)
			if err := tx.configure(ctx, &row); err != nil {
				return err
			}
			_, err = tx.NewInsert().Model(&row).Exec(ctx)
		}
		server = row.resource()
		return err
	})
	if err != nil {
		return drs.SourceServer{}, false, fmt.Errorf("register source server: %w", err)
	}
	return server, created, nil
}

func mayHaveAnother(ctx context.Context, tx Tx, r Registration) error {
	if err := mayHaveMore(ctx, tx, r.Account, r.MostInAll); err != nil || r.Most <= 0 {
		return err
	}
	n, err := tx.NewSelect().Model((*serverRow)(nil)).
		Where("account = ? AND region = ? AND staging_server = ''", r.Account.ID, r.Account.Region).Count(ctx)
	if err != nil {
		return err
	}
	if int(n) >= r.Most {
		return drs.QuotaExceeded(drs.QuotaReplicatingServers, drs.TypeSourceServer, "",
			"The account has %d source servers of its own, the most it may have. Delete one that is no longer needed.", n)
	}
	return nil
}

// mayHaveMore holds the quota of all source servers of an account; 0: there is none.
func mayHaveMore(ctx context.Context, tx Tx, account drs.Account, most int) error {
	if most <= 0 {
		return nil
	}
	n, err := tx.NewSelect().Model((*serverRow)(nil)).Where("account = ? AND region = ?", account.ID, account.Region).Count(ctx)
	if err != nil {
		return fmt.Errorf("count source servers: %w", err)
	}
	if int(n) >= most {
		return drs.QuotaExceeded(drs.QuotaSourceServers, drs.TypeSourceServer, "",
			"The account has %d source servers, extended ones included, the most it may have. Delete one that is no longer needed.", n)
	}
	return nil
}

func newServerRow(r Registration) serverRow {
	id, now := drs.NewSourceServerID(), time.Now()
	return serverRow{
		ID: string(id), Account: r.Account.ID, Region: r.Account.Region,
		HardwareID: r.HardwareID, AgentVersion: r.AgentVersion,
		Added: stampOf(now), LastSeen: stampOf(now),
		LastLaunchResult:         string(drs.LastLaunchNotStarted),
		Properties:               document[drs.SourceProperties]{r.Properties},
		Replication:              document[drs.DataReplicationInfo]{drs.DataReplicationInfo{State: drs.ReplicationInitiating, Begun: now.UTC()}},
		ReplicationConfiguration: document[drs.ReplicationConfiguration]{drs.DefaultReplicationConfiguration(id)},
		LaunchConfiguration:      document[drs.LaunchConfiguration]{drs.DefaultLaunchConfiguration(id)},
		Tags:                     document[drs.Tags]{drs.Tags{}},
	}
}

// UpdateProperties keeps what the agent found on its machine since it registered.
func (d *DB) UpdateProperties(ctx context.Context, id drs.SourceServerID, p drs.SourceProperties) error {
	_, err := d.write.NewUpdate().Model((*serverRow)(nil)).
		Set("properties = ?", document[drs.SourceProperties]{p}).Where("id = ?", id).Exec(ctx)
	if err != nil {
		return fmt.Errorf("update the properties of %s: %w", id, err)
	}
	return nil
}

// SourceServer returns one server of the account, or ErrAbsent.
func (d *DB) SourceServer(ctx context.Context, account drs.Account, id drs.SourceServerID) (drs.SourceServer, error) {
	return sourceServer(ctx, d.read, account, id)
}

// SourceServer is DB.SourceServer within the transaction.
func (tx Tx) SourceServer(ctx context.Context, account drs.Account, id drs.SourceServerID) (drs.SourceServer, error) {
	return sourceServer(ctx, tx, account, id)
}

func sourceServer(ctx context.Context, db bun.IDB, account drs.Account, id drs.SourceServerID) (drs.SourceServer, error) {
	var row serverRow
	err := db.NewSelect().Model(&row).
		Where("id = ? AND account = ? AND region = ?", id, account.ID, account.Region).Scan(ctx)
	if err != nil {
		return drs.SourceServer{}, fmt.Errorf("look up source server %s: %w", id, absent(err))
	}
	servers, err := resources(ctx, db, []serverRow{row})
	if err != nil {
		return drs.SourceServer{}, err
	}
	return servers[0], nil
}

// AllServers lists every server of every account that is replicated to it; those
// that are extended are not.
func (d *DB) AllServers(ctx context.Context) ([]drs.SourceServer, error) {
	var rows []serverRow
	if err := d.read.NewSelect().Model(&rows).Where("staging_server = ''").Order("added", "id").Scan(ctx); err != nil {
		return nil, fmt.Errorf("list source servers: %w", err)
	}
	return convert(rows, serverRow.resource), nil
}

// ReportReplication keeps what the replication server sees of an agent. A zero
// seen leaves the last one; the first report of data sets the first byte's time.
//
// A report whose state must not follow the one kept leaves all but last seen as
// it is: it came too late, or is about a server that is gone. No report leads out
// of STOPPED and DISCONNECTED; who started replication again does that.
func (d *DB) ReportReplication(ctx context.Context, id drs.SourceServerID, info drs.DataReplicationInfo, seen time.Time) error {
	err := d.InTx(ctx, func(ctx context.Context, tx Tx) error {
		var kept serverRow
		err := tx.NewSelect().Model(&kept).Column("account", "region", "replication").Where("id = ?", id).Scan(ctx)
		if errors.Is(absent(err), ErrAbsent) {
			return nil
		}
		if err != nil {
			return err
		}
		follows := mayReport(kept.Replication.V.State, info.State)
		if !follows && seen.IsZero() {
			return nil
		}
		q := tx.NewUpdate().Model((*serverRow)(nil)).Where("id = ?", id)
		if !seen.IsZero() {
			q = q.Set("last_seen = ?", stampOf(seen))
		}
		if follows {
			q = q.Set("replication = ?", document[drs.DataReplicationInfo]{info})
		}
		if follows && slices.ContainsFunc(info.Disks, func(disk drs.ReplicatedDisk) bool { return disk.Replicated > 0 }) {
			q = q.Set("first_byte = CASE first_byte WHEN 0 THEN ? ELSE first_byte END", stampOf(time.Now()))
		}
		if _, err := q.Exec(ctx); err != nil || !follows {
			return err
		}
		account := drs.Account{ID: kept.Account, Region: kept.Region}
		if e := drs.StalledChange(account, id, kept.Replication.V, info, time.Now()); e != nil {
			return tx.Emit(ctx, *e)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("report replication of %s: %w", id, err)
	}
	return nil
}

// mayReport tells whether a report may lead from one state to another.
func mayReport(from, to drs.ReplicationState) bool {
	if from == drs.ReplicationStopped || from == drs.ReplicationDisconnected {
		return false
	}
	_, err := from.Next(to)
	return err == nil
}

// Configure changes the configurations of one server under f, and nothing else of
// it, and returns it; ErrAbsent when the account has no such server. What f looks
// up within the transaction holds when the change is made.
func (d *DB) Configure(ctx context.Context, account drs.Account, id drs.SourceServerID, f func(context.Context, Tx, *drs.SourceServer) error) (drs.SourceServer, error) {
	var server drs.SourceServer
	err := d.InTx(ctx, func(ctx context.Context, tx Tx) (err error) {
		if server, err = tx.SourceServer(ctx, account, id); err != nil {
			return err
		}
		if err := f(ctx, tx, &server); err != nil {
			return err
		}
		_, err = tx.NewUpdate().Model((*serverRow)(nil)).
			Set("replication_configuration = ?", document[drs.ReplicationConfiguration]{server.ReplicationConfiguration}).
			Set("launch_configuration = ?", document[drs.LaunchConfiguration]{server.LaunchConfiguration}).
			Where("id = ?", id).Exec(ctx)
		return err
	})
	return server, err
}

// SourceServers returns those of the servers that the account has.
func (tx Tx) SourceServers(ctx context.Context, account drs.Account, ids []drs.SourceServerID) (map[drs.SourceServerID]drs.SourceServer, error) {
	var rows []serverRow
	err := tx.NewSelect().Model(&rows).Where("account = ? AND region = ?", account.ID, account.Region).
		Where("id IN (?)", bun.List(ids)).Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("look up source servers: %w", err)
	}
	servers, err := resources(ctx, tx, rows)
	if err != nil {
		return nil, err
	}
	found := make(map[drs.SourceServerID]drs.SourceServer, len(servers))
	for _, s := range servers {
		found[s.ID] = s
	}
	return found, nil
}

// SetLastLaunch keeps the outcome of the servers' latest launch so far.
func (tx Tx) SetLastLaunch(ctx context.Context, launch *drs.LastLaunch, result drs.LastLaunchResult, servers ...drs.SourceServerID) error {
	_, err := tx.NewUpdate().Model((*serverRow)(nil)).
		Set("last_launch = ?", document[*drs.LastLaunch]{launch}).
		Set("last_launch_result = ?", string(result)).Where("id IN (?)", bun.List(servers)).Exec(ctx)
	if err != nil {
		return fmt.Errorf("set last launch of %d servers: %w", len(servers), err)
	}
	return nil
}

// SetRecoveryInstance names the machine of a server's latest launch; empty when
// it has none.
func (tx Tx) SetRecoveryInstance(ctx context.Context, id drs.SourceServerID, instance drs.RecoveryInstanceID) error {
	_, err := tx.NewUpdate().Model((*serverRow)(nil)).
		Set("recovery_instance = ?", string(instance)).Where("id = ?", id).Exec(ctx)
	if err != nil {
		return fmt.Errorf("set recovery instance of %s: %w", id, err)
	}
	return nil
}
