package db_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

var account = drs.Account{ID: "123456789012", Region: "us-east-1"}

func open(t *testing.T) *db.DB {
	t.Helper()
	d, err := db.Create(t.Context(), filepath.Join(t.TempDir(), "a b?c.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func register(t *testing.T, d *db.DB, hardware string) drs.SourceServer {
	t.Helper()
	s, _, err := d.RegisterServer(t.Context(), db.Registration{
		Account: account, HardwareID: hardware, AgentVersion: "1.0.0",
		Properties: drs.SourceProperties{
			Hostname:          hardware,
			NetworkInterfaces: []drs.NetworkInterface{{MAC: "52:54:00:AA:BB:" + hardware[len(hardware)-2:]}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOpenRefusesWhatItDidNotMake(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing.db")
	if _, err := db.Open(t.Context(), missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Error("opening a missing file made one")
	}

	garbage := filepath.Join(dir, "garbage.db")
	content := []byte("this is no database, but it is long enough to look at, so it must be refused as it stands")
	if err := os.WriteFile(garbage, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Open(t.Context(), garbage); err == nil {
		t.Error("a file of garbage was opened")
	}
	if after, _ := os.ReadFile(garbage); string(after) != string(content) {
		t.Error("a refused file was changed")
	}
	if _, err := db.Create(t.Context(), garbage); !errors.Is(err, os.ErrExist) {
		t.Errorf("create over a file: %v", err)
	}
}

func TestRegisteringAgainKeepsTheServer(t *testing.T) {
	d := open(t)
	first := register(t, d, "machine-01")
	again, created, err := d.RegisterServer(t.Context(), db.Registration{
		Account: account, HardwareID: "machine-01", AgentVersion: "2.0.0",
		Properties: drs.SourceProperties{Hostname: "renamed"},
	})
	if err != nil || created {
		t.Fatalf("created %v, err %v", created, err)
	}
	if again.ID != first.ID || again.Properties.Hostname != "renamed" || again.AgentVersion != "2.0.0" {
		t.Errorf("got %+v", again)
	}
	other, created, err := d.RegisterServer(t.Context(), db.Registration{
		Account: drs.Account{ID: "999999999999", Region: account.Region}, HardwareID: "machine-01",
	})
	if err != nil || !created || other.ID == first.ID {
		t.Errorf("another account's machine: %v %v %v", other.ID, created, err)
	}
	if _, err := d.SourceServer(t.Context(), account, other.ID); !errors.Is(err, db.ErrAbsent) {
		t.Errorf("a server of another account was shown: %v", err)
	}
}

func TestPagesHoldEveryServerOnce(t *testing.T) {
	d := open(t)
	want := map[drs.SourceServerID]bool{}
	for i := range 7 {
		want[register(t, d, fmt.Sprintf("machine-%02d", i)).ID] = true
	}
	for limit := 1; limit <= 8; limit++ {
		seen := map[drs.SourceServerID]bool{}
		page := db.Page{Limit: limit}
		for {
			rows, next, err := d.SourceServers(t.Context(), account, db.SourceServerFilter{}, page)
			if err != nil {
				t.Fatal(err)
			}
			if len(rows) > limit {
				t.Fatalf("a page of %d has %d rows", limit, len(rows))
			}
			for _, s := range rows {
				if seen[s.ID] {
					t.Fatalf("%s twice with pages of %d", s.ID, limit)
				}
				seen[s.ID] = true
			}
			if next == "" {
				break
			}
			page.After = next
		}
		if len(seen) != len(want) {
			t.Errorf("pages of %d: %d of %d servers", limit, len(seen), len(want))
		}
	}
}

func TestServersAreFoundByMAC(t *testing.T) {
	d := open(t)
	register(t, d, "machine-01")
	want := register(t, d, "machine-02")
	rows, _, err := d.SourceServers(t.Context(), account, db.SourceServerFilter{HardwareID: "52:54:00:aa:bb:02"}, db.Page{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1 || rows[0].ID != want.ID {
		t.Errorf("got %d rows: %v", len(rows), rows)
	}
}

func TestFuzzyPointsAreNotOffered(t *testing.T) {
	d, ctx := open(t), t.Context()
	server := register(t, d, "machine-01").ID
	begin := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	var crash, fuzzy drs.RecoveryPoint
	for i, c := range []drs.Consistency{drs.CrashConsistent, drs.CrashConsistent, drs.Fuzzy} {
		p := drs.RecoveryPoint{
			ID: drs.NewRecoverySnapshotID(), SourceServer: server, Consistency: c,
			Expected: begin, Taken: begin.Add(time.Duration(i) * time.Second), Epoch: uint64(i), Freeze: time.Duration(i) * time.Millisecond,
		}
		for range 2 { // again must change nothing
			if err := d.AddPoint(ctx, p); err != nil {
				t.Fatal(err)
			}
		}
		if c == drs.Fuzzy {
			fuzzy = p
		} else {
			crash = p
		}
	}
	latest, err := d.LatestPoint(ctx, server)
	if err != nil || latest != crash {
		t.Errorf("latest: %+v, %v; want %+v", latest, err, crash)
	}
	named, err := d.Point(ctx, fuzzy.ID)
	if err != nil || named != fuzzy {
		t.Errorf("a fuzzy point by name: %+v, %v", named, err)
	}
	for _, c := range []struct {
		name   string
		filter db.PointFilter
		want   int
	}{
		{"default", db.PointFilter{}, 2},
		{"with fuzzy", db.PointFilter{IncludeFuzzy: true, Descending: true}, 3},
		{"from", db.PointFilter{From: begin.Add(time.Second)}, 1},
		{"to", db.PointFilter{To: begin}, 1},
	} {
		rows, _, err := d.Points(ctx, server, c.filter, db.Page{Limit: 10})
		if err != nil || len(rows) != c.want {
			t.Errorf("%s: %d points, want %d (%v)", c.name, len(rows), c.want, err)
		}
	}
	if err := d.ReplacePoints(ctx, server, []drs.RecoveryPoint{fuzzy}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.LatestPoint(ctx, server); !errors.Is(err, db.ErrAbsent) {
		t.Errorf("latest of a server with fuzzy points only: %v", err)
	}
}

func TestJobsMoveOnlyForward(t *testing.T) {
	d, ctx := open(t), t.Context()
	server := register(t, d, "machine-01").ID
	job := drs.Job{
		ID: drs.NewJobID(), Account: account, Type: drs.JobLaunch, Initiated: drs.StartedDrill, Status: drs.JobPending,
		Created: time.Now().UTC().Truncate(time.Microsecond), Tags: drs.Tags{"a": "b"},
		Servers: []drs.ParticipatingServer{{SourceServer: server, Status: drs.LaunchPending}},
	}
	must := func(f func(context.Context, db.Tx) error) {
		t.Helper()
		if err := d.InTx(ctx, f); err != nil {
			t.Fatal(err)
		}
	}
	must(func(ctx context.Context, tx db.Tx) error { return tx.InsertJob(ctx, job) })

	must(func(ctx context.Context, tx db.Tx) error {
		busy, err := tx.Busy(ctx, []drs.SourceServerID{server})
		if busy[server] != job.ID {
			t.Errorf("busy: %v", busy)
		}
		jobs, servers, err2 := tx.Running(ctx, account)
		if jobs != 1 || servers != 1 {
			t.Errorf("running: %d jobs, %d servers", jobs, servers)
		}
		return errors.Join(err, err2)
	})
	if err := d.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		return tx.SetJobStatus(ctx, job.ID, drs.JobCompleted)
	}); err == nil {
		t.Error("a pending job was completed")
	}
	must(func(ctx context.Context, tx db.Tx) error { return tx.SetJobStatus(ctx, job.ID, drs.JobStarted) })
	must(func(ctx context.Context, tx db.Tx) error {
		return tx.SetLaunchStatus(ctx, job.ID, server, "", drs.LaunchInProgress, "i-0123456789abcdef0")
	})
	must(func(ctx context.Context, tx db.Tx) error {
		return tx.SetLaunchStatus(ctx, job.ID, server, "i-0123456789abcdef0", drs.LaunchLaunched, "")
	})
	must(func(ctx context.Context, tx db.Tx) error { return tx.SetJobStatus(ctx, job.ID, drs.JobCompleted) })

	got, err := d.Job(ctx, account, job.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != drs.JobCompleted || got.Ended.IsZero() || got.Servers[0].Status != drs.LaunchLaunched ||
		got.Servers[0].Instance != "i-0123456789abcdef0" || got.Tags["a"] != "b" || !got.Created.Equal(job.Created) {
		t.Errorf("got %+v", got)
	}
	must(func(ctx context.Context, tx db.Tx) error {
		busy, err := tx.Busy(ctx, []drs.SourceServerID{server})
		if len(busy) != 0 {
			t.Errorf("busy after the end: %v", busy)
		}
		return err
	})
}

func TestAStepIsLoggedOnce(t *testing.T) {
	d, ctx := open(t), t.Context()
	job := drs.Job{ID: drs.NewJobID(), Account: account, Status: drs.JobPending, Created: time.Now(),
		Servers: []drs.ParticipatingServer{{SourceServer: drs.NewSourceServerID(), Status: drs.LaunchPending}}}
	err := d.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		err := tx.InsertJob(ctx, job)
		for _, step := range []string{"start", "launch", "start", "launch"} {
			err = errors.Join(err, tx.Log(ctx, step, drs.JobLogItem{
				Job: job.ID, Time: time.Now(), Event: drs.JobEvent(step), Conversion: &drs.Conversion{RootVolume: "/dev/vda"},
			}))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	log, _, err := d.JobLog(ctx, job.ID, db.Page{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	if len(log) != 2 || log[0].Event != "start" || log[1].Event != "launch" || log[1].Conversion.RootVolume != "/dev/vda" {
		t.Errorf("log: %+v", log)
	}
}

func TestTagsOfAnotherAccountAreAbsent(t *testing.T) {
	d, ctx := open(t), t.Context()
	server := register(t, d, "machine-01")
	mine := drs.Resource{Account: account, Type: drs.TypeSourceServer, ID: string(server.ID)}
	if err := d.ChangeTags(ctx, mine, func(tags drs.Tags) error { tags["k"] = "v"; return nil }); err != nil {
		t.Fatal(err)
	}
	tags, err := d.Tags(ctx, mine)
	if err != nil || tags["k"] != "v" {
		t.Errorf("tags %v, %v", tags, err)
	}
	foreign := mine
	foreign.Account.ID = "999999999999"
	if _, err := d.Tags(ctx, foreign); !errors.Is(err, db.ErrAbsent) {
		t.Errorf("tags of another account: %v", err)
	}
	if err := d.ChangeTags(ctx, drs.Resource{Account: account, Type: "nonsense", ID: "x"}, nil); !errors.Is(err, db.ErrAbsent) {
		t.Errorf("tags of an unknown type: %v", err)
	}
}

func TestInstances(t *testing.T) {
	d, ctx := open(t), t.Context()
	server := register(t, d, "machine-01").ID
	instance := drs.RecoveryInstance{
		ID: drs.NewRecoveryInstanceID(), Account: account, SourceServer: server, Drill: true,
		State: drs.InstancePending, Launched: time.Now(), Tags: drs.Tags{"kept": "yes"},
	}
	if err := d.InTx(ctx, func(ctx context.Context, tx db.Tx) error { return tx.InsertInstance(ctx, instance) }); err != nil {
		t.Fatal(err)
	}
	before, err := d.MoveInstance(ctx, instance.ID, drs.InstanceRunning, func(i *drs.RecoveryInstance) { i.Wanted = true })
	if err != nil || before.State != drs.InstancePending {
		t.Errorf("before: %+v, %v", before, err)
	}
	got, err := d.InstanceByID(ctx, instance.ID)
	if err != nil || got.State != drs.InstanceRunning || !got.Wanted || got.Tags["kept"] != "yes" || !got.Drill {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := d.MoveInstance(ctx, instance.ID, drs.InstanceShuttingDown, nil); err != nil {
		t.Error(err)
	}
	if _, err := d.MoveInstance(ctx, instance.ID, drs.InstanceRunning, nil); !errors.Is(err, db.ErrForbidden) {
		t.Errorf("an instance that is being removed runs again: %v", err)
	}
	if _, err := d.MoveInstance(ctx, "i-00000000000000000", drs.InstanceRunning, nil); !errors.Is(err, db.ErrAbsent) {
		t.Errorf("an unknown instance: %v", err)
	}
	rows, _, err := d.Instances(ctx, account, db.InstanceFilter{SourceServers: []drs.SourceServerID{server}}, db.Page{Limit: 5})
	if err != nil || len(rows) != 1 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	if err := d.InTx(ctx, func(ctx context.Context, tx db.Tx) error { return tx.DeleteInstance(ctx, instance.ID) }); err != nil {
		t.Fatal(err)
	}
	if _, err := d.InstanceByID(ctx, instance.ID); !errors.Is(err, db.ErrAbsent) {
		t.Errorf("after deletion: %v", err)
	}
}
