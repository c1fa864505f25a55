package db_test

import (
	"testing"
	"time"

	"lifeboat/internal/drs"
)

// A source whose clock was set back has a point of a later commit and an earlier
// time: that one is the newest.
func TestLatestPointIsTheLastCommitted(t *testing.T) {
	d, ctx := open(t), t.Context()
	server := register(t, d, "machine-01").ID
	now := time.Now().UTC().Truncate(time.Microsecond)
	var last drs.RecoveryPoint
	for epoch, taken := range map[uint64]time.Time{7: now.Add(24 * time.Hour), 900: now, 12: now.Add(time.Hour)} {
		p := drs.RecoveryPoint{
			ID: drs.NewRecoverySnapshotID(), SourceServer: server, Consistency: drs.CrashConsistent, Expected: taken, Taken: taken, Epoch: epoch,
		}
		if err := d.AddPoint(ctx, p); err != nil {
			t.Fatal(err)
		}
		if epoch == 900 {
			last = p
		}
	}
	if got, err := d.LatestPoint(ctx, server); err != nil || got != last {
		t.Errorf("latest: %+v, %v; want %+v", got, err, last)
	}
}

// Reports change the state by the rules only: a late one undoes nothing, but the
// agent was seen.
func TestLateReportsKeepTheState(t *testing.T) {
	d, ctx := open(t), t.Context()
	seen := time.Now().UTC().Truncate(time.Microsecond)
	for _, test := range []struct{ kept, late, want drs.ReplicationState }{
		{drs.ReplicationContinuous, drs.ReplicationBacklog, drs.ReplicationBacklog},
		{drs.ReplicationContinuous, drs.ReplicationInitialSync, drs.ReplicationContinuous},
		{drs.ReplicationInitialSync, drs.ReplicationBacklog, drs.ReplicationInitialSync},
		{drs.ReplicationStopped, drs.ReplicationContinuous, drs.ReplicationStopped},
		{drs.ReplicationStopped, drs.ReplicationInitiating, drs.ReplicationStopped},
		{drs.ReplicationStopped, drs.ReplicationDisconnected, drs.ReplicationStopped},
		{drs.ReplicationDisconnected, drs.ReplicationStalled, drs.ReplicationDisconnected},
	} {
		t.Run(string(test.kept)+" to "+string(test.late), func(t *testing.T) {
			server := register(t, d, t.Name()).ID
			asOf := seen.Add(-time.Hour)
			if err := d.ReportReplication(ctx, server, drs.DataReplicationInfo{State: test.kept, AsOf: asOf}, time.Time{}); err != nil {
				t.Fatal(err)
			}
			if err := d.ReportReplication(ctx, server, drs.DataReplicationInfo{State: test.late, AsOf: seen}, seen); err != nil {
				t.Fatal(err)
			}
			got, err := d.SourceServer(ctx, account, server)
			if err != nil || got.Replication.State != test.want {
				t.Errorf("state %s, want %s (%v)", got.Replication.State, test.want, err)
			}
			if kept := got.Replication.AsOf.Equal(asOf); kept != (test.want != test.late) {
				t.Errorf("as of %s", got.Replication.AsOf)
			}
			if !got.LifeCycle.LastSeen.Equal(seen) {
				t.Errorf("last seen %s, want %s", got.LifeCycle.LastSeen, seen)
			}
		})
	}
	if err := d.ReportReplication(ctx, drs.NewSourceServerID(), drs.DataReplicationInfo{State: drs.ReplicationContinuous}, seen); err != nil {
		t.Errorf("a report of a server that is gone: %v", err)
	}
}
