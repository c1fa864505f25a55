package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/ingest"
	"lifeboat/internal/replication"
)

// catalog is the tables as the replication server sees them.
type catalog struct {
	*db.DB
	region string
	epoch  time.Duration // spacing of recovery points
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
	switch state := server.Replication.State; state {
	case drs.ReplicationStopped, drs.ReplicationDisconnected:
		return ingest.Admission{}, conflict(id, "Replication of source server %s is %s: start it again, or uninstall the agent.", id, state)
	}
	return ingest.Admission{Replication: server.Replication, Settings: c.settings(server)}, nil
}

func (c catalog) settings(server drs.SourceServer) ingest.Settings {
	return ingest.Settings{EpochSpacing: c.epoch, ThrottleMbps: server.ReplicationConfiguration.BandwidthThrottlingMbps}
}

// register gives a machine its source server, a new one when the account may
// have another.
func (c catalog) register(ctx context.Context, account drs.Account, r replication.Registration) (drs.SourceServerID, error) {
	ready, err := c.Initialized(ctx, account)
	if err != nil {
		return "", err
	}
	if !ready {
		return "", drs.Uninitialized()
	}
	server, _, err := c.RegisterServer(ctx, db.Registration{
		Account: account, HardwareID: r.HardwareID, AgentVersion: r.AgentVersion, Properties: r.Inventory,
		Most: drs.DefaultQuotas.ReplicatingServers,
	})
	return server.ID, err
}

// expect tells the replication server whose agents should come.
func (c catalog) expect(ctx context.Context, s *ingest.Server) error {
	servers, err := c.AllServers(ctx)
	if err != nil {
		return err
	}
	for _, server := range servers {
		switch server.Replication.State {
		case drs.ReplicationStopped, drs.ReplicationDisconnected:
		default:
			s.Expect(server.ID, server.Replication)
		}
	}
	return nil
}

func conflict(id drs.SourceServerID, format string, args ...any) error {
	return drs.Conflict(drs.TypeSourceServer, string(id), format, args...)
}
