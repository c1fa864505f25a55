package db

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

// ServerRecord is what the row of a source server tells that can be found out nowhere
// else; the rest comes back by itself. It is kept in the vault as JSON, so that the
// tables can be made again: a field may be added, none renamed. The members that are
// JSON themselves pass through as they are.
type ServerRecord struct {
	ID                       drs.SourceServerID `json:"id"`
	Account                  string             `json:"account"`
	Region                   string             `json:"region"`
	HardwareID               string             `json:"hardwareId"`
	AgentVersion             string             `json:"agentVersion"`
	Added                    time.Time          `json:"added"`
	FirstByte                time.Time          `json:"firstByte"`
	Properties               json.RawMessage    `json:"properties"`
	ReplicationConfiguration json.RawMessage    `json:"replicationConfiguration"`
	LaunchConfiguration      json.RawMessage    `json:"launchConfiguration"`
	Tags                     json.RawMessage    `json:"tags"`
	// Ended is STOPPED or DISCONNECTED where replication was ended on purpose.
	Ended drs.ReplicationState `json:"ended,omitempty"`
	// LastLaunch and its result tell when the server was last drilled or recovered.
	LastLaunch       json.RawMessage      `json:"lastLaunch,omitempty"`
	LastLaunchResult drs.LastLaunchResult `json:"lastLaunchResult,omitempty"`
	// StagingAccount and StagingServer are of a server that stands for one of another account.
	StagingAccount string             `json:"stagingAccount,omitempty"`
	StagingServer  drs.SourceServerID `json:"stagingServer,omitempty"`
	// Instances are the recoveries, no drills, whose writes lie beside the server's in the vault.
	Instances []InstanceRecord `json:"instances,omitempty"`
}

type recordRow struct {
	bun.BaseModel `bun:"table:source_servers"`

	ID                       string
	Account                  string
	Region                   string
	HardwareID               string
	AgentVersion             string
	Added                    stamp
	FirstByte                stamp
	Properties               string
	ReplicationConfiguration string
	LaunchConfiguration      string
	Tags                     string
	State                    string
	LastLaunch               string
	LastLaunchResult         string
	StagingAccount           string
	StagingServer            string
}

const selectRecords = `SELECT id, account, region, hardware_id, agent_version, added, first_byte, properties,
	replication_configuration, launch_configuration, tags, json_extract(replication, '$.state') AS state,
	last_launch, last_launch_result, staging_account, staging_server
	FROM source_servers `

// ServerRecord returns the record of one source server, or ErrAbsent.
func (d *DB) ServerRecord(ctx context.Context, id drs.SourceServerID) (ServerRecord, error) {
	var row recordRow
	if err := d.read.NewRaw(selectRecords+"WHERE id = ?", id).Scan(ctx, &row); err != nil {
		return ServerRecord{}, fmt.Errorf("look up source server %s: %w", id, absent(err))
	}
	record := row.record()
	instances, err := d.InstanceRecords(ctx)
	if err != nil {
		return ServerRecord{}, err
	}
	for _, i := range instances {
		if i.VaultServer == id && !i.Drill {
			record.Instances = append(record.Instances, i)
		}
	}
	return record, nil
}

func (r recordRow) record() ServerRecord {
	out := ServerRecord{
		ID: drs.SourceServerID(r.ID), Account: r.Account, Region: r.Region, HardwareID: r.HardwareID, AgentVersion: r.AgentVersion,
		Added: r.Added.Time(), FirstByte: r.FirstByte.Time(), Properties: json.RawMessage(r.Properties),
		ReplicationConfiguration: json.RawMessage(r.ReplicationConfiguration),
		LaunchConfiguration:      json.RawMessage(r.LaunchConfiguration), Tags: json.RawMessage(r.Tags),
		StagingAccount: r.StagingAccount, StagingServer: drs.SourceServerID(r.StagingServer),
	}
	if r.LastLaunch != "null" {
		out.LastLaunch = json.RawMessage(r.LastLaunch)
	}
	if result := drs.LastLaunchResult(r.LastLaunchResult); result != drs.LastLaunchNotStarted {
		out.LastLaunchResult = result
	}
	switch state := drs.ReplicationState(r.State); state {
	case drs.ReplicationStopped, drs.ReplicationDisconnected:
		out.Ended = state
	}
	return out
}

// DecodeServerRecord reads a record that was kept as JSON, and checks that a server
// can be made of it.
func DecodeServerRecord(text []byte) (ServerRecord, error) {
	var r ServerRecord
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("read server record: %w", err)
	}
	_, err := r.Server()
	return r, err
}

// Server is the source server that a record tells of, as it is before its agent is heard.
func (r ServerRecord) Server() (drs.SourceServer, error) {
	s := drs.SourceServer{
		ID: r.ID, Account: drs.Account{ID: r.Account, Region: r.Region}, HardwareID: r.HardwareID, AgentVersion: r.AgentVersion,
		LifeCycle:        drs.LifeCycle{AddedToService: r.Added, FirstByte: r.FirstByte},
		LastLaunchResult: drs.LastLaunchNotStarted,
		Replication:      drs.DataReplicationInfo{State: drs.ReplicationInitiating, Begun: time.Now().UTC()},
	}
	if r.Ended != "" {
		s.Replication.State = r.Ended
	}
	if r.StagingServer != "" {
		s.Staging = drs.Staging{Account: drs.Account{ID: r.StagingAccount, Region: r.Region}, Server: r.StagingServer}
	}
	if _, err := drs.ParseSourceServerID(string(r.ID)); err != nil {
		return s, fmt.Errorf("read server record: %w", err)
	}
	if r.Account == "" || r.Region == "" || r.HardwareID == "" {
		return s, errors.New("read server record: it names no account, region or hardware ID")
	}
	if s.Replication.State != drs.ReplicationInitiating && s.Replication.State != drs.ReplicationStopped && s.Replication.State != drs.ReplicationDisconnected {
		return s, fmt.Errorf("read server record: replication cannot have ended as %q", r.Ended)
	}
	for _, part := range []struct {
		text json.RawMessage
		into any
	}{
		{r.Properties, &s.Properties}, {r.ReplicationConfiguration, &s.ReplicationConfiguration},
		{r.LaunchConfiguration, &s.LaunchConfiguration}, {r.Tags, &s.Tags},
	} {
		if err := json.Unmarshal(part.text, part.into); err != nil {
			return s, fmt.Errorf("read server record: %w", err)
		}
	}
	if s.Tags == nil {
		s.Tags = drs.Tags{}
	}
	return s, r.launched(&s)
}

// launched tells of the latest launch. The job of one that was going on is gone.
func (r ServerRecord) launched(s *drs.SourceServer) error {
	if len(r.LastLaunch) > 0 {
		if err := json.Unmarshal(r.LastLaunch, &s.LifeCycle.LastLaunch); err != nil {
			return fmt.Errorf("read server record: %w", err)
		}
	}
	switch r.LastLaunchResult {
	case "":
	case drs.LastLaunchPending:
		s.LastLaunchResult = drs.LastLaunchFailed
	default:
		s.LastLaunchResult = r.LastLaunchResult
	}
	if l := s.LifeCycle.LastLaunch; l != nil && (l.Status == drs.LaunchPending || l.Status == drs.LaunchInProgress) {
		l.Status = drs.LaunchFailed
	}
	return nil
}

// RestoreServer makes a source server from its record. When another one of its account
// has its hardware ID already, it gets one that no machine has: of two servers only
// one can be the machine that registers again.
func (tx Tx) RestoreServer(ctx context.Context, r ServerRecord) (drs.SourceServer, error) {
	s, err := r.Server()
	if err != nil {
		return s, err
	}
	n, err := tx.NewSelect().Model((*serverRow)(nil)).
		Where("account = ? AND region = ? AND hardware_id = ?", r.Account, r.Region, r.HardwareID).Count(ctx)
	if err != nil {
		return s, fmt.Errorf("restore source server %s: %w", r.ID, err)
	}
	if n > 0 {
		s.HardwareID = "former:" + string(r.ID)
	}
	row := serverRow{
		ID: string(s.ID), Account: s.Account.ID, Region: s.Account.Region, HardwareID: s.HardwareID, AgentVersion: s.AgentVersion,
		Added: stampOf(s.LifeCycle.AddedToService), FirstByte: stampOf(s.LifeCycle.FirstByte),
		LastLaunch: document[*drs.LastLaunch]{s.LifeCycle.LastLaunch}, LastLaunchResult: string(s.LastLaunchResult),
		StagingAccount: s.Staging.Account.ID, StagingServer: string(s.Staging.Server),
		Properties:               document[drs.SourceProperties]{s.Properties},
		Replication:              document[drs.DataReplicationInfo]{s.Replication},
		ReplicationConfiguration: document[drs.ReplicationConfiguration]{s.ReplicationConfiguration},
		LaunchConfiguration:      document[drs.LaunchConfiguration]{s.LaunchConfiguration},
		Tags:                     document[drs.Tags]{s.Tags},
	}
	if _, err := tx.NewInsert().Model(&row).Exec(ctx); err != nil {
		return s, fmt.Errorf("restore source server %s: %w", r.ID, err)
	}
	return s, nil
}
