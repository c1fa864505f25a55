package protection_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/protection"
)

var account = drs.Account{ID: "123456789012", Region: "us-east-1"}

// silentAgents do what they are told, and nothing else.
type silentAgents struct{}

func (silentAgents) Reconfigured(drs.SourceServer)                      {}
func (silentAgents) Expect(drs.SourceServerID, drs.DataReplicationInfo) {}
func (silentAgents) Pause(drs.SourceServerID, string)                   {}
func (silentAgents) Restart(drs.SourceServerID, string)                 {}
func (silentAgents) Forget(drs.SourceServerID, string)                  {}

// faultVault knows what it holds, and refuses to delete as often as it is told.
type faultVault struct {
	mu      sync.Mutex
	held    map[drs.SourceServerID]bool // guarded by mu, as all below
	refuse  int
	dropped chan drs.SourceServerID
}

var errStore = errors.New("the store does not answer")

func (v *faultVault) CreateServer(_ context.Context, id drs.SourceServerID) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.held[id] = true
	return nil
}

func (v *faultVault) DropServer(_ context.Context, id drs.SourceServerID) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.refuse > 0 {
		v.refuse--
		return errStore
	}
	if v.held[id] {
		delete(v.held, id)
		v.dropped <- id
	}
	return nil
}

func (v *faultVault) LockedUntil(context.Context, drs.SourceServerID) (time.Time, error) {
	return time.Now().Add(-time.Hour), nil // a lock that has run out locks nothing
}

func (v *faultVault) holds(id drs.SourceServerID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.held[id]
}

type site struct {
	*protection.Service
	db    *db.DB
	vault *faultVault
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{vault: &faultVault{held: map[drs.SourceServerID]bool{}, dropped: make(chan drs.SourceServerID, 8)}}
	var err error
	if s.db, err = db.Create(t.Context(), filepath.Join(t.TempDir(), "db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.db.Close() })
	s.restart()
	return s
}

// restart makes the service anew, as a new process would.
func (s *site) restart() {
	s.Service = protection.New(protection.Config{DB: s.db, Agents: silentAgents{}, Vault: s.vault, Log: slog.New(slog.DiscardHandler)})
}

// run lets the service delete data until the test is done with it.
func (s *site) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func (s *site) protect(t *testing.T, name string) drs.SourceServerID {
	t.Helper()
	server, _, err := s.db.RegisterServer(t.Context(), db.Registration{Account: account, HardwareID: name})
	if err == nil {
		err = s.vault.CreateServer(t.Context(), server.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	return server.ID
}

// An order that was taken is carried out by the next process, when this one ends
// before it could.
func TestDataIsDeletedAfterRestart(t *testing.T) {
	s := newSite(t)
	stopped, deleted := s.protect(t, "one"), s.protect(t, "two")
	ctx := t.Context()
	_, err := s.Stop(ctx, account, stopped)
	if err == nil {
		_, err = s.Disconnect(ctx, account, deleted)
	}
	if err = errors.Join(err, s.Delete(ctx, account, deleted)); err != nil {
		t.Fatal(err)
	}
	if !s.vault.holds(stopped) || !s.vault.holds(deleted) {
		t.Fatal("data was deleted by nobody")
	}
	s.restart()
	stop := s.run(t)
	defer stop()
	for range 2 {
		<-s.vault.dropped
	}
	if s.vault.holds(stopped) || s.vault.holds(deleted) {
		t.Error("data is left")
	}
}

// What a vault refuses once is tried again: by the next order at the latest.
func TestVaultRefuses(t *testing.T) {
	s := newSite(t)
	id := s.protect(t, "one")
	ctx := t.Context()
	if _, err := s.Stop(ctx, account, id); err != nil {
		t.Fatal(err)
	}
	s.vault.refuse = 1
	if _, err := s.Start(ctx, account, id); !errors.Is(err, errStore) {
		t.Errorf("start while old data cannot be deleted: %v", err)
	}
	if server, err := s.db.SourceServer(ctx, account, id); err != nil || server.Replication.State != drs.ReplicationStopped {
		t.Errorf("a start that failed moved the server on: %+v, %v", server.Replication, err)
	}
	if _, err := s.Start(ctx, account, id); err != nil {
		t.Fatal(err)
	}
	if <-s.vault.dropped != id || !s.vault.holds(id) {
		t.Error("the new start did not begin with an empty place")
	}
}

// A machine keeps the data that it runs on, until it is gone.
func TestMachineKeepsData(t *testing.T) {
	s := newSite(t)
	id := s.protect(t, "one")
	ctx := t.Context()
	machine := drs.RecoveryInstance{
		ID: drs.NewRecoveryInstanceID(), Account: account, SourceServer: id, State: drs.InstanceRunning, Tags: drs.Tags{}, VaultServer: id,
	}
	if err := s.db.InTx(ctx, func(ctx context.Context, tx db.Tx) error { return tx.InsertInstance(ctx, machine) }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stop(ctx, account, id); err != nil {
		t.Fatal(err)
	}
	var refused *drs.Error
	if _, err := s.Start(ctx, account, id); !errors.As(err, &refused) || refused.Kind != drs.KindConflict || !s.vault.holds(id) {
		t.Errorf("start over the data of a machine: %v", err)
	}
	if err := s.db.InTx(ctx, func(ctx context.Context, tx db.Tx) error { return tx.DeleteInstance(ctx, machine.ID) }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Start(ctx, account, id); err != nil {
		t.Errorf("start when the machine is gone: %v", err)
	}
	<-s.vault.dropped
}

// Orders that come at once follow each other: of many starts one is taken.
func TestOrdersFollowEachOther(t *testing.T) {
	s := newSite(t)
	id := s.protect(t, "one")
	if _, err := s.Stop(t.Context(), account, id); err != nil {
		t.Fatal(err)
	}
	const many = 16
	results := make(chan error, many)
	for range many {
		go func() {
			_, err := s.Start(t.Context(), account, id)
			results <- err
		}()
	}
	taken := 0
	for range many {
		var refused *drs.Error
		switch err := <-results; {
		case err == nil:
			taken++
		case !errors.As(err, &refused) || refused.Kind != drs.KindConflict:
			t.Error(err)
		}
	}
	if taken != 1 || len(s.vault.dropped) != 1 {
		t.Errorf("%d starts were taken, data was deleted %d times", taken, len(s.vault.dropped))
	}
}
