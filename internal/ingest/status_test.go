package ingest

import (
	"log/slog"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/replication"
	"lifeboat/internal/vault"
)

// What the API shows of a server, from its first session over a cut line, a backlog and
// a rescan, in the numbers that DRS has.
func TestStatusInTheAPIsShapes(t *testing.T) {
	const total = 1000 << 20
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	s := newStatus(slog.New(slog.DiscardHandler), "s-1")
	tell := func(phase replication.Phase, scanned, backlog int64) {
		s.progress(&replication.Progress{Phase: phase, Disks: []replication.DiskProgress{{Scanned: scanned, Backlog: backlog}}}, now)
	}
	want := func(when string, state drs.ReplicationState, replicated, rescanned, backlogged int64, eta time.Duration) {
		t.Helper()
		info := s.info()
		d := info.Disks[0]
		if info.State != state || d.Total != total || d.Replicated != replicated || d.Rescanned != rescanned || d.Backlogged != backlogged {
			t.Errorf("%s: %s %+v, want %s %d, %d, %d", when, info.State, d, state, replicated, rescanned, backlogged)
		}
		if eta == 0 && !info.ETA.IsZero() || eta > 0 && !info.ETA.Equal(now.Add(eta)) {
			t.Errorf("%s: ends at %v, now is %v", when, info.ETA, now)
		}
	}
	session := func(head vault.Head) {
		s.begin(s.info(), now)
		s.opened(head)
		s.disks([]replication.Disk{{Device: "/dev/vda", Size: total}}, make([]bool, 8))
	}
	session(vault.Head{})
	want("begun", drs.ReplicationInitialSync, 0, 0, 0, 0)
	tell(replication.PhaseScanning, 0, 0)
	now = now.Add(10 * time.Second)
	tell(replication.PhaseScanning, 250<<20, 50<<20)
	want("a quarter", drs.ReplicationInitialSync, 200<<20, 0, 50<<20, 30*time.Second)
	now = now.Add(time.Minute)
	s.sealing()
	point := drs.RecoveryPoint{ID: "pit-1", Taken: now, Consistency: drs.CrashConsistent, Epoch: 2}
	s.sealed(point)
	want("the first point", drs.ReplicationContinuous, total, total, 0, 0)
	tell(replication.PhaseScanning, total, 0) // was on its way when the point was made
	want("late news", drs.ReplicationContinuous, total, total, 0, 0)

	now = now.Add(time.Hour) // the line is cut, writes go on
	session(vault.Head{Number: 2, LastPoint: &point})
	want("back", drs.ReplicationInitiating, total, 0, 0, 0)
	tell(replication.PhaseBacklog, 0, 400<<20)
	want("what came meanwhile", drs.ReplicationBacklog, total, total, 400<<20, 0)
	now = now.Add(10 * time.Second)
	tell(replication.PhaseBacklog, 0, 300<<20)
	want("a quarter sent", drs.ReplicationBacklog, total, total, 300<<20, 30*time.Second)
	tell(replication.PhaseBacklog, 0, 500<<20)
	want("it grows", drs.ReplicationBacklog, total, total, 500<<20, 0)
	point.Taken = now
	s.sealed(point)
	want("all sent", drs.ReplicationContinuous, total, total, 0, 0)

	tell(replication.PhaseScanning, 0, 0) // the tracker lost sight
	want("a rescan", drs.ReplicationRescan, total, 0, 0, 0)
	now = now.Add(10 * time.Second)
	tell(replication.PhaseScanning, 500<<20, 0)
	want("half of it", drs.ReplicationRescan, total, 500<<20, 0, 10*time.Second)
	s.progress(&replication.Progress{Phase: replication.PhaseStalled, Text: "disk /dev/vda is gone", NextStep: "attach it again",
		Disks: []replication.DiskProgress{{}}}, now)
	info := s.info()
	if info.State != drs.ReplicationStalled || info.Error == nil || info.Error.Code != drs.FailedToStartDataTransfer ||
		info.Error.Raw != "disk /dev/vda is gone. Next: attach it again." {
		t.Errorf("stalled: %s %+v", info.State, info.Error)
	}
	tell(replication.PhaseScanning, 1, 0)
	want("it flows again", drs.ReplicationRescan, total, 1, 0, 0)
	if err := s.info().Error; err != nil {
		t.Errorf("still %v", err)
	}
}

// A server whose clock ran ahead showed data of the future. When the clock is right again,
// the next point says so at once, and not when that future has come.
func TestStatusAfterAClockThatRanAhead(t *testing.T) {
	s := newStatus(slog.New(slog.DiscardHandler), "s-1")
	now := time.Now()
	s.begin(drs.DataReplicationInfo{State: drs.ReplicationContinuous, AsOf: now.AddDate(10, 0, 0)}, now)
	point := drs.RecoveryPoint{ID: "pit-1", Taken: now.Add(-time.Second), Consistency: drs.CrashConsistent, Epoch: 2}
	s.opened(vault.Head{Number: 2, LastPoint: &point})
	if info := s.info(); !info.AsOf.Equal(point.Taken) {
		t.Errorf("opened: everything until %s, want %s", info.AsOf, point.Taken)
	}
	s.begin(drs.DataReplicationInfo{State: drs.ReplicationContinuous, AsOf: now.AddDate(10, 0, 0)}, now)
	s.sealed(point)
	if info := s.info(); !info.AsOf.Equal(point.Taken) {
		t.Errorf("sealed: everything until %s, want %s", info.AsOf, point.Taken)
	}
}
