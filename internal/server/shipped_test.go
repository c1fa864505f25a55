package server

import (
	"slices"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// An instance whose directory lost its record, and that the vault knows, comes back with the
// disks that are there: nobody is told to delete them.
func TestAnInstanceOfTheVaultKeepsItsDisks(t *testing.T) {
	s := newSite(t)
	newest := s.points[len(s.points)-1]
	var records []db.InstanceRecord
	for _, state := range []drs.InstanceState{drs.InstanceRunning, drs.InstanceRunning, drs.InstanceShuttingDown, drs.InstanceRunning} {
		id := drs.NewRecoveryInstanceID()
		records = append(records, db.InstanceRecord{ID: id, Account: "123456789012", Region: "r", SourceServer: s.server.ID, VaultServer: s.server.ID,
			State: state, Wanted: true, Launched: time.Now(), Point: newest.ID, PointTaken: newest.Taken})
		if len(records) == 4 {
			continue // its branch is gone
		}
		if err := s.vault.Fork(t.Context(), s.server.ID, newest.ID, string(id)); err != nil {
			t.Fatal(err)
		}
	}
	here, gone := string(records[0].ID), string(records[1].ID)
	out := Rebuilt{Instances: []string{}, Lost: []string{"i-0123456789abcdef0", here}}
	if err := restoreShipped(t.Context(), s.vault, s.db, records, &out); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(out.Instances, []string{here}) || !slices.Equal(out.Shipped, []string{gone}) || len(out.Lost) != 1 {
		t.Errorf("came back: %q with disks, %q without, %q unknown", out.Instances, out.Shipped, out.Lost)
	}
	for id, want := range map[string]drs.InstanceState{here: drs.InstanceRunning, gone: drs.InstanceStopped} {
		if i, err := s.db.InstanceByID(t.Context(), drs.RecoveryInstanceID(id)); err != nil || i.State != want {
			t.Errorf("%s is %s, want %s: %v", id, i.State, want, err)
		}
	}
}
