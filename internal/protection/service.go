// Package protection carries out what users order about the protection of source
// servers: stop, start and retry replication, disconnect, delete, extend to
// another account.
//
// An order is first recorded, then carried out: the agent is told, the data in the
// vault is deleted. What was recorded is carried out however often the process is
// killed in between. Orders about one server follow each other; what is allowed in
// which state stands in package drs.
//
// Data is deleted only when no machine runs on it. Until then a server that was
// stopped or disconnected shows no recovery points, and its vault data waits.
package protection

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// Config names what a Service works with; all is required but Trusts and Quotas.
type Config struct {
	DB     *db.DB
	Agents Agents
	Vault  Vault
	// Trusts tells whether a staging account lets another one extend its source
	// servers. nil: none does.
	Trusts func(ctx context.Context, staging, target drs.Account) (bool, error)
	Quotas drs.QuotasOf
	Log    *slog.Logger
}

// Agents are the agents of source servers, connected or not.
type Agents interface {
	// Reconfigured tells a connected agent what its server's configuration says.
	Reconfigured(drs.SourceServer)
	// Expect says that the server's agent should come.
	Expect(drs.SourceServerID, drs.DataReplicationInfo)
	// Pause ends the agent's session and returns when nothing writes to the server's
	// data any more. The agent goes on asking whether it may replicate.
	Pause(server drs.SourceServerID, why string)
	// Restart ends the agent's session; it begins another.
	Restart(server drs.SourceServerID, why string)
	// Forget is Pause for an agent that shall not ask again.
	Forget(server drs.SourceServerID, why string)
}

// Vault is where the data of source servers lies.
type Vault interface {
	// CreateServer makes the server's place where there is none.
	CreateServer(ctx context.Context, server drs.SourceServerID) error
	// DropServer deletes all that there is of the server; again does nothing.
	DropServer(ctx context.Context, server drs.SourceServerID) error
	// LockedUntil is the last date until which some point of the server may not be
	// deleted, which may be past; zero: there is none.
	LockedUntil(ctx context.Context, server drs.SourceServerID) (time.Time, error)
}

// Service is safe for concurrent use.
type Service struct {
	Config
	orders keyed
	wake   chan struct{} // capacity 1: there is data to delete
}

// New makes a service; Run makes it delete data.
func New(c Config) *Service {
	return &Service{Config: c, orders: keyed{held: map[drs.SourceServerID]*slot{}}, wake: make(chan struct{}, 1)}
}

// Reconfigured passes on a changed replication configuration.
func (s *Service) Reconfigured(server drs.SourceServer) { s.Agents.Reconfigured(server) }

// keyed makes orders about one server follow each other.
type keyed struct {
	mu   sync.Mutex
	held map[drs.SourceServerID]*slot // guarded by mu
}

type slot struct {
	turn    chan struct{} // capacity 1
	waiting int           // guarded by keyed.mu
}

// hold waits for the server's turn; release must be called.
func (k *keyed) hold(ctx context.Context, id drs.SourceServerID) (release func(), err error) {
	k.mu.Lock()
	at := k.held[id]
	if at == nil {
		at = &slot{turn: make(chan struct{}, 1)}
		k.held[id] = at
	}
	at.waiting++
	k.mu.Unlock()
	leave := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if at.waiting--; at.waiting == 0 {
			delete(k.held, id)
		}
	}
	select {
	case at.turn <- struct{}{}:
		return func() { <-at.turn; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// conflict refuses an order because of the server's state.
func conflict(id drs.SourceServerID, format string, args ...any) error {
	return drs.Conflict(drs.TypeSourceServer, string(id), format, args...)
}

// server reads the account's server, or refuses.
func (s *Service) server(ctx context.Context, tx db.Tx, account drs.Account, id drs.SourceServerID) (drs.SourceServer, error) {
	server, err := tx.SourceServer(ctx, account, id)
	if errors.Is(err, db.ErrAbsent) {
		return server, drs.NotFound(drs.TypeSourceServer, string(id))
	}
	return server, err
}
