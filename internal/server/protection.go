package server

import (
	"context"
	"errors"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/iam/directory"
	"lifeboat/internal/iam/policy"
	"lifeboat/internal/ingest"
	"lifeboat/internal/protection"
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
type protectedVault struct {
	*vault.Vault
	records *recorder
}

// CreateServer implements protection.Vault.
func (v protectedVault) CreateServer(ctx context.Context, server drs.SourceServerID) error {
	if err := v.Vault.CreateServer(ctx, server); err != nil && !errors.Is(err, vault.ErrExists) {
		return err
	}
	return nil
}

// DropServer implements protection.Vault.
func (v protectedVault) DropServer(ctx context.Context, server drs.SourceServerID) error {
	return v.records.without(server, func() error {
		if err := v.Vault.DropServer(ctx, server); err != nil && !errors.Is(err, vault.ErrAbsent) {
			return err
		}
		return nil
	})
}

// LockedUntil implements protection.Vault.
func (v protectedVault) LockedUntil(ctx context.Context, server drs.SourceServerID) (until time.Time, err error) {
	until, err = v.Vault.LockedUntil(ctx, server)
	if errors.Is(err, vault.ErrAbsent) {
		return until, nil
	}
	return until, err
}

// trusts tells whether a staging account has the role that lets the target extend
// its source servers.
func (s *running) trusts(ctx context.Context, staging, target drs.Account) (bool, error) {
	role, err := s.directory.Role(ctx, staging.ID, protection.StagingRole(target))
	var refused *directory.Error
	if errors.As(err, &refused) && refused.Code == directory.CodeAbsent {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	trust, err := policy.ParseTrust(role.Trust)
	if err != nil {
		return false, err
	}
	return trust.Trusts(target.ID, nil, "sts:AssumeRole", policy.Context{}) != policy.NotTrusted, nil
}
