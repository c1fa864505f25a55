package server

import (
	"context"
	"errors"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/ingest"
	"lifeboat/internal/vault"
)

// protectedAgents are the agents as package protection sees them.
type protectedAgents struct {
	*ingest.Server
	catalog catalog
}

// Reconfigured implements protection.Agents.
func (a protectedAgents) Reconfigured(server drs.SourceServer) {
	a.Reconfigure(server.ID, a.catalog.settings(server))
}

// protectedVault is the vault as package protection sees it.
type protectedVault struct{ *vault.Vault }

// CreateServer implements protection.Vault.
func (v protectedVault) CreateServer(ctx context.Context, server drs.SourceServerID) error {
	if err := v.Vault.CreateServer(ctx, server); err != nil && !errors.Is(err, vault.ErrExists) {
		return err
	}
	return nil
}

// dropper is what a vault offers that can delete the data of servers.
type dropper interface {
	DropServer(ctx context.Context, server drs.SourceServerID) error
}

// DropServer implements protection.Vault.
func (v protectedVault) DropServer(ctx context.Context, server drs.SourceServerID) error {
	d, ok := any(v.Vault).(dropper)
	if !ok {
		return drs.Conflict(drs.TypeSourceServer, string(server), "The vault cannot delete the data of source servers yet.")
	}
	if err := d.DropServer(ctx, server); err != nil && !errors.Is(err, vault.ErrAbsent) {
		return err
	}
	return nil
}

// LockedUntil implements protection.Vault.
func (v protectedVault) LockedUntil(context.Context, drs.SourceServerID) (time.Time, error) {
	return time.Time{}, nil
}
