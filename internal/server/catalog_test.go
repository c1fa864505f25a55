package server

import (
	"errors"
	"path/filepath"
	"testing"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/replication"
)

// A machine that registers again keeps its source server, but not while an agent
// of it is connected: whoever asks then is another, or should wait.
func TestConnectedServerIsNotTakenOver(t *testing.T) {
	ctx := t.Context()
	d, err := db.Create(ctx, filepath.Join(t.TempDir(), "lifeboat.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	account := drs.Account{ID: "123456789012", Region: "us-east-1"}
	if err := d.Initialize(ctx, account); err != nil {
		t.Fatal(err)
	}
	online := map[drs.SourceServerID]bool{}
	register := catalog{DB: d, region: account.Region}.register(func(id drs.SourceServerID) bool { return online[id] }, nil)
	machine := replication.Registration{HardwareID: "machine:1", Inventory: drs.SourceProperties{Hostname: "mine"}}
	first, err := register(ctx, account, machine)
	if err != nil {
		t.Fatal(err)
	}

	online[first] = true
	thief := machine
	thief.Inventory.Hostname = "thief"
	var refused *drs.Error
	if id, err := register(ctx, account, thief); !errors.As(err, &refused) || refused.Kind != drs.KindConflict || refused.ResourceID != string(first) {
		t.Errorf("a connected server was given away: %s, %v", id, err)
	}
	if kept, err := d.SourceServer(ctx, account, first); err != nil || kept.Properties.Hostname != "mine" {
		t.Errorf("the refused machine left its mark: %+v, %v", kept.Properties, err)
	}
	other := replication.Registration{HardwareID: "machine:2"}
	if id, err := register(ctx, account, other); err != nil || id == first {
		t.Errorf("another machine: %s, %v", id, err)
	}

	online[first] = false
	if id, err := register(ctx, account, machine); err != nil || id != first {
		t.Errorf("the machine again: %s, %v; want %s", id, err, first)
	}
}
