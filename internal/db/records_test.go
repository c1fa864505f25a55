package db_test

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// A server that is made again from its record is the one that it was.
func TestRecordsBringServersBack(t *testing.T) {
	d, ctx := open(t), t.Context()
	server := register(t, d, "machine-01")
	resource := drs.Resource{Account: account, Type: drs.TypeSourceServer, ID: string(server.ID)}
	if err := d.ChangeTags(ctx, resource, func(tags drs.Tags) error { tags["team"] = "hr"; return nil }); err != nil {
		t.Fatal(err)
	}
	want, err := d.SourceServer(ctx, account, server.ID)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := d.ServerRecord(ctx, server.ID)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(kept)
	if err != nil {
		t.Fatal(err)
	}

	again, err := db.Create(ctx, filepath.Join(t.TempDir(), "again.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	restore := func(r db.ServerRecord) drs.SourceServer {
		t.Helper()
		var s drs.SourceServer
		if err := again.InTx(ctx, func(ctx context.Context, tx db.Tx) (err error) {
			s, err = tx.RestoreServer(ctx, r)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	record, err := db.DecodeServerRecord(text)
	if err != nil {
		t.Fatal(err)
	}
	restore(record)
	got, err := again.SourceServer(ctx, account, server.ID)
	if err != nil {
		t.Fatal(err)
	}
	// What an agent tells again is not kept.
	got.LifeCycle.LastSeen, got.Replication = want.LifeCycle.LastSeen, want.Replication
	if !reflect.DeepEqual(got, want) {
		t.Errorf("came back as %+v,\nwant %+v", got, want)
	}
	// A second server that claims to be the same machine is kept, too.
	other := record
	other.ID = drs.NewSourceServerID()
	if s := restore(other); s.HardwareID == record.HardwareID {
		t.Error("two servers are one machine")
	}
}

// Points are compared, not replaced; those in use are not retired.
func TestPointsInUseAreNotRetired(t *testing.T) {
	begin := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	d, ctx := open(t), t.Context()
	server := register(t, d, "machine-01").ID
	var points []drs.RecoveryPoint
	var ids []drs.RecoverySnapshotID
	for i := range 4 {
		p := drs.RecoveryPoint{ID: drs.NewRecoverySnapshotID(), SourceServer: server, Consistency: drs.CrashConsistent,
			Expected: begin, Taken: begin.Add(time.Duration(i) * time.Second), Epoch: uint64(i + 1)}
		points, ids = append(points, p), append(ids, p.ID)
	}
	if err := d.ReplacePoints(ctx, server, points); err != nil {
		t.Fatal(err)
	}
	job := drs.Job{ID: drs.NewJobID(), Account: account, Type: drs.JobLaunch, Initiated: drs.StartedDrill, Status: drs.JobPending,
		Created: begin, Tags: drs.Tags{}, Servers: []drs.ParticipatingServer{{SourceServer: server, Snapshot: ids[1], Status: drs.LaunchPending}}}
	if err := d.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		if err := tx.InsertJob(ctx, job); err != nil {
			return err
		}
		return tx.InsertInstance(ctx, drs.RecoveryInstance{ID: "i-0123456789abcdef0", Account: account, SourceServer: server, Job: job.ID,
			State: drs.InstanceRunning, Point: ids[2], Tags: drs.Tags{}})
	}); err != nil {
		t.Fatal(err)
	}
	gone, err := d.RetirePoints(ctx, ids)
	if err != nil || len(gone) != 2 || gone[0] != ids[0] || gone[1] != ids[3] {
		t.Errorf("retired %v, %v; want the first and the last of %v", gone, err, ids)
	}
	for i, id := range ids {
		_, err := d.Point(ctx, id)
		if kept := i == 1 || i == 2; kept != (err == nil) || err != nil && !errors.Is(err, db.ErrAbsent) {
			t.Errorf("point %d: %v", i, err)
		}
	}
	if err := d.ReplacePoints(ctx, server, points); err != nil { // as the next start would
		t.Fatal(err)
	}
	if all, _, err := d.Points(ctx, server, db.PointFilter{}, db.Page{Limit: 10}); err != nil || len(all) != 4 {
		t.Errorf("%d points, %v", len(all), err)
	}
}

func FuzzServerRecord(f *testing.F) {
	f.Add([]byte("{}"))
	f.Add([]byte(`{"id":"s-0123456789abcdef0","account":"1","region":"r","hardwareId":"h","properties":{},"replicationConfiguration":{"pitPolicy":[{}]},"launchConfiguration":{},"tags":{"a":"b"},"ended":"STOPPED"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := db.DecodeServerRecord(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.DecodeServerRecord(again); err != nil {
			t.Fatalf("%s: decoded, and not again: %v", text, err)
		}
	})
}

// TestPointOfEpoch asks a database that is in use, through a reader beside its server.
func TestPointOfEpoch(t *testing.T) {
	file, ctx := filepath.Join(t.TempDir(), "lifeboat.db"), t.Context()
	d, err := db.Create(ctx, file)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	server := register(t, d, "machine-01").ID
	taken := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	p := drs.RecoveryPoint{ID: drs.NewRecoverySnapshotID(), SourceServer: server, Consistency: drs.CrashConsistent, Expected: taken, Taken: taken, Epoch: 7}
	if err := d.AddPoint(ctx, p); err != nil {
		t.Fatal(err)
	}
	reader, err := db.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for _, from := range []*db.DB{d, reader} {
		if id, err := from.PointOfEpoch(ctx, server, 7); err != nil || id != p.ID {
			t.Errorf("epoch 7: %q, %v; want %s", id, err, p.ID)
		}
		if id, err := from.PointOfEpoch(ctx, server, 8); !errors.Is(err, db.ErrAbsent) {
			t.Errorf("epoch 8: %q, %v; want none", id, err)
		}
	}
	if _, err := db.OpenReader(file + ".none"); err == nil {
		t.Error("a database that is not there was opened")
	}
}

// FuzzInstanceRecord: what is taken for a record of an instance names all it must.
func FuzzInstanceRecord(f *testing.F) {
	f.Add([]byte("{}"))
	f.Add([]byte(`{"id":"i-0123456789abcdef0","account":"1","region":"r","sourceServer":"s-0123456789abcdef0","state":"RUNNING","launched":"2026-01-01T00:00:00Z","tags":{"a":"b"}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := db.DecodeInstanceRecord(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.DecodeInstanceRecord(again); err != nil {
			t.Fatalf("what was decoded cannot be decoded again: %v", err)
		}
	})
}
