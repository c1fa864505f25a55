package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/ingest"
	"lifeboat/internal/protection"
	"lifeboat/internal/replication"
)

// catalog is the tables as the replication server sees them.
type catalog struct {
	*db.DB
	region string
	epoch  time.Duration // spacing of recovery points
	// committed is told of each point; nil: nobody is.
	committed func(drs.SourceServerID)
	quotas    drs.QuotasOf
}

// AddPoint implements ingest.Catalog.
func (c catalog) AddPoint(ctx context.Context, p drs.RecoveryPoint) error {
	if c.committed != nil {
		c.committed(p.SourceServer)
	}
	return c.DB.AddPoint(ctx, p)
}

// Admit implements ingest.Catalog.
func (c catalog) Admit(ctx context.Context, account string, id drs.SourceServerID) (ingest.Admission, error) {
	server, err := c.SourceServer(ctx, drs.Account{ID: account, Region: c.region}, id)
	if errors.Is(err, db.ErrAbsent) {
		return ingest.Admission{}, &drs.Error{
			Kind: drs.KindNotFound, ResourceType: drs.TypeSourceServer, ResourceID: string(id),
			Message: fmt.Sprintf("Source server %s does not exist any more: remove the agent's state directory and register again with a fresh install token.", id),
		}
	}
	if err != nil {
		return ingest.Admission{}, err
	}
	switch server.Replication.State {
	case drs.ReplicationStopped:
		return ingest.Admission{}, fmt.Errorf("source server %s: %w", id, ingest.ErrStopped)
	case drs.ReplicationDisconnected:
		return ingest.Admission{}, conflict(id, "%s.", protection.Disconnected(id))
	}
	return ingest.Admission{Replication: server.Replication, Settings: c.settings(server)}, nil
}

func (c catalog) settings(server drs.SourceServer) ingest.Settings {
	config := server.ReplicationConfiguration
	return ingest.Settings{EpochSpacing: c.epoch, ThrottleMbps: config.BandwidthThrottlingMbps, HoldNewDisks: !config.AutoReplicateNewDisks}
}

// register gives a machine its source server, a new one when the account may
// have another. A source server whose agent is connected is not given to a second
// one, which anybody with an install token and the hardware ID could then be.
func (c catalog) register(connected func(drs.SourceServerID) bool, issued func(token string) (time.Time, error),
	rejoin func(context.Context, drs.Account, drs.SourceServerID) (drs.SourceServer, error),
) func(context.Context, drs.Account, replication.Registration) (drs.SourceServerID, error) {
	return func(ctx context.Context, account drs.Account, r replication.Registration) (drs.SourceServerID, error) {
		ready, err := c.Initialized(ctx, account)
		if err != nil {
			return "", err
		}
		if !ready {
			return "", drs.Uninitialized()
		}
		known, err := c.known(ctx, account, r.HardwareID)
		if err != nil {
			return "", err
		}
		at, err := issued(r.Token)
		if err != nil {
			return "", err
		}
		if known.ID != "" {
			if err := takeover(known, connected(known.ID), at); err != nil {
				return "", err
			}
		}
		if known.Replication.State == drs.ReplicationDisconnected {
			// The agent was installed again: the server is protected again, from the start.
			if _, err := rejoin(ctx, account, known.ID); err != nil {
				return "", err
			}
			at = time.Now() // what the token may do was decided above
		}
		server, _, err := c.RegisterServer(ctx, db.Registration{
			Account: account, HardwareID: r.HardwareID, AgentVersion: r.AgentVersion, Properties: r.Inventory,
			Most: c.quotas.Of(account).ReplicatingServers, MostInAll: c.quotas.Of(account).SourceServers,
			Takeover: func(now drs.SourceServer) error { return takeover(now, connected(now.ID), at) },
		})
		return server.ID, err
	}
}

// known returns the account's source server with the hardware ID, or none.
func (c catalog) known(ctx context.Context, account drs.Account, hardwareID string) (drs.SourceServer, error) {
	page := db.Page{Limit: 100}
	for {
		servers, next, err := c.SourceServers(ctx, account, db.SourceServerFilter{HardwareID: hardwareID}, page)
		if err != nil {
			return drs.SourceServer{}, err
		}
		for _, server := range servers {
			if server.HardwareID == hardwareID { // the filter knows network cards, too
				return server, nil
			}
		}
		if next == "" {
			return drs.SourceServer{}, nil
		}
		page.After = next
	}
}

// expect tells the replication server whose agents should come.
func (c catalog) expect(ctx context.Context, s *ingest.Server) error {
	servers, err := c.AllServers(ctx)
	if err != nil {
		return err
	}
	for _, server := range servers {
		if !server.Replication.State.Ended() {
			s.Expect(server.ID, server.Replication)
		}
	}
	return nil
}

func conflict(id drs.SourceServerID, format string, args ...any) error {
	return drs.Conflict(drs.TypeSourceServer, string(id), format, args...)
}
