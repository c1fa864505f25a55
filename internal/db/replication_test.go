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
