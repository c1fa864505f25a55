package server

import (
	"crypto/x509"
	"errors"
	"math/big"
	"path/filepath"
	"testing"
	"time"

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
	issued := time.Now()
	register := catalog{DB: d, region: account.Region}.register(func(id drs.SourceServerID) bool { return online[id] },
		func(string) (time.Time, error) { return issued, nil }, nil)
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

	// Once it has data, a token that is older than the agent's last word is not
	// enough; a fresh one is.
	seen := drs.DataReplicationInfo{State: drs.ReplicationInitialSync, Disks: []drs.ReplicatedDisk{{Device: "a", Total: 2, Replicated: 1}}}
	if err := d.ReportReplication(ctx, first, seen, issued.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if id, err := register(ctx, account, thief); !errors.As(err, &refused) || refused.Kind != drs.KindConflict {
		t.Errorf("an old token took over %s: %v", id, err)
	}
	if kept, err := d.SourceServer(ctx, account, first); err != nil || kept.Properties.Hostname != "mine" {
		t.Errorf("the refused machine left its mark: %+v, %v", kept.Properties, err)
	}
	issued = issued.Add(2 * time.Minute)
	if id, err := register(ctx, account, machine); err != nil || id != first {
		t.Errorf("with a fresh token: %s, %v; want %s", id, err, first)
	}
}

// The certificate that was issued last is the only one that is good, and none is
// once its server is gone.
func TestRevoked(t *testing.T) {
	ctx := t.Context()
	d, err := db.Create(ctx, filepath.Join(t.TempDir(), "lifeboat.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	account := drs.Account{ID: "123456789012", Region: "us-east-1"}
	server, _, err := d.RegisterServer(ctx, db.Registration{Account: account, HardwareID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	check := revoked(d)
	certificate := func(serial int64) *x509.Certificate { return &x509.Certificate{SerialNumber: big.NewInt(serial)} }
	if err := check(ctx, server.ID, certificate(1)); err != nil {
		t.Errorf("before any is kept: %v", err)
	}
	for serial := int64(1); serial < 3; serial++ {
		if err := d.SetAgentCertificate(ctx, server.ID, big.NewInt(serial).String()); err != nil {
			t.Fatal(err)
		}
	}
	if err := check(ctx, server.ID, certificate(2)); err != nil {
		t.Errorf("the latest: %v", err)
	}
	var refused *drs.Error
	if err := check(ctx, server.ID, certificate(1)); !errors.As(err, &refused) || refused.Kind != drs.KindAccessDenied {
		t.Errorf("the one before: %v", err)
	}
	// A renewal: both are good until the one that was issued last is shown.
	number := func(n int64) string { return big.NewInt(n).String() }
	if err := d.OfferAgentCertificate(ctx, server.ID, number(1), number(3)); !errors.Is(err, db.ErrAbsent) {
		t.Errorf("a renewal by a certificate that is not good: %v", err)
	}
	for offer := int64(3); offer < 5; offer++ { // the first one never arrived
		if err := d.OfferAgentCertificate(ctx, server.ID, number(2), number(offer)); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		serial int64
		good   bool
	}{{3, false}, {2, true}, {4, true}, {2, false}, {4, true}} {
		if err := check(ctx, server.ID, certificate(step.serial)); (err == nil) != step.good {
			t.Errorf("certificate %d: %v, good must be %v", step.serial, err, step.good)
		}
	}
	// A registration ends the one that was offered, too.
	if err := errors.Join(d.OfferAgentCertificate(ctx, server.ID, number(4), number(5)), d.SetAgentCertificate(ctx, server.ID, number(6))); err != nil {
		t.Fatal(err)
	}
	if check(ctx, server.ID, certificate(5)) == nil || check(ctx, server.ID, certificate(6)) != nil {
		t.Error("another registration does not end a renewal")
	}
	gone := catalog{DB: d, region: account.Region}
	if _, err := gone.Admit(ctx, account.ID, "s-00000000000000000"); !errors.As(err, &refused) || refused.Kind != drs.KindNotFound {
		t.Errorf("of a deleted server: %v", err)
	}
}
