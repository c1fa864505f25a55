package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	drsapi "github.com/aws/aws-sdk-go-v2/service/drs"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

func TestServers(t *testing.T) {
	s := newSite(t)
	web, db1 := s.addServer("web"), s.addServer("db1")
	must(t, s.db.ReportReplication(t.Context(), web.ID, drs.DataReplicationInfo{
		State: drs.ReplicationStalled, AsOf: time.Now().Add(-time.Hour),
		Disks: []drs.ReplicatedDisk{{Device: "/dev/vda", Total: 100, Replicated: 100}},
		Error: &drs.DataReplicationErr{Code: drs.AgentNotSeen, Raw: "Start the agent."},
	}, time.Now()))
	sync := s.addServer("new")
	must(t, s.db.ReportReplication(t.Context(), sync.ID, drs.DataReplicationInfo{State: drs.ReplicationInitiating}, time.Time{}))
	must(t, s.db.ReportReplication(t.Context(), sync.ID, drs.DataReplicationInfo{
		State: drs.ReplicationInitialSync, Disks: []drs.ReplicatedDisk{{Device: "/dev/vda", Total: 200, Replicated: 84}},
	}, time.Now()))

	servers, err := s.client.Servers(t.Context())
	must(t, err)
	if len(servers) != 3 || servers[0].ID != string(db1.ID) || servers[1].Hostname != "new" || servers[2].Hostname != "web" {
		t.Fatalf("got %+v, want db1, new and web", servers)
	}
	if d := servers[0]; !d.Recoverable || d.LagSeconds == nil || *d.LagSeconds != 0 || d.CPUs != 2 || d.Bytes() != 4<<30 || d.LastSeen == nil {
		t.Errorf("db1 = %+v, want it recoverable without lag", d)
	}
	if n := servers[1]; n.Recoverable || n.SyncedPercent == nil || *n.SyncedPercent != 42 {
		t.Errorf("new = %+v, want an initial sync of 42 %%", n)
	}
	if w := servers[2]; !w.Recoverable || w.Problem == nil || w.Problem.Message != "Start the agent." || *w.LagSeconds < 3599 {
		t.Errorf("web = %+v, want it stalled and an hour behind", w)
	}
}

func TestPoints(t *testing.T) {
	s := newSite(t)
	server, other := s.addServer("db1"), s.addServer("web")
	start := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	var all []drs.RecoveryPoint
	for n := range 1050 { // more than a page
		at := start.Add(time.Duration(n) * time.Second)
		all = append(all, drs.RecoveryPoint{
			ID: drs.NewRecoverySnapshotID(), SourceServer: server.ID, Expected: at, Taken: at, Consistency: drs.CrashConsistent,
		})
	}
	must(t, s.db.ReplacePoints(t.Context(), server.ID, all))
	fuzzy := s.addPoint(server, start.Add(time.Minute+time.Millisecond), drs.Fuzzy)
	s.addPoint(other, start, drs.CrashConsistent)
	newest := all[len(all)-1]

	points, more, err := s.client.Points(t.Context(), string(server.ID), PointQuery{})
	must(t, err)
	if len(points) != len(all) || more || points[0].ID != string(newest.ID) || !points[0].Taken.Equal(newest.Taken) {
		t.Fatalf("got %d points, more %v, first %+v; want all %d, newest first", len(points), more, points[0], len(all))
	}
	if points[0].Consistency != "crash" {
		t.Errorf("consistency %q is lost on the way", points[0].Consistency)
	}
	if points, more, err = s.client.Points(t.Context(), string(server.ID), PointQuery{Limit: 7}); err != nil || len(points) != 7 || !more {
		t.Errorf("limit 7: %d points, more %v, %v", len(points), more, err)
	}
	points, _, err = s.client.Points(t.Context(), string(server.ID), PointQuery{Fuzzy: true})
	must(t, err)
	if !slices.ContainsFunc(points, func(p Point) bool { return p.ID == string(fuzzy.ID) && p.Fuzzy() }) || len(points) != len(all)+1 {
		t.Errorf("with fuzzy: %d points, want the fuzzy one among %d", len(points), len(all)+1)
	}
}

func TestFindPoint(t *testing.T) {
	s := newSite(t)
	db1, empty := s.addServer("db1"), s.addServer("empty")
	start := time.Now().Add(-time.Hour).Truncate(time.Second)
	early := s.addPoint(db1, start.Add(123456*time.Microsecond), drs.CrashConsistent)
	late := s.addPoint(db1, start.Add(time.Minute), drs.FilesystemConsistent)
	fuzzy := s.addPoint(db1, start.Add(2*time.Minute), drs.Fuzzy)
	foreign := s.addPoint(s.addServer("web"), start, drs.CrashConsistent)
	server, err := s.client.FindServer(t.Context(), "db1")
	must(t, err)

	for name, want := range map[string]drs.RecoverySnapshotID{
		LatestPoint: late.ID, string(early.ID): early.ID, string(early.ID[:12]): early.ID, string(fuzzy.ID): fuzzy.ID,
	} {
		if got, err := s.client.FindPoint(t.Context(), server, name); err != nil || got.ID != string(want) {
			t.Errorf("FindPoint(%s) = %s, %v; want %s", name, got.ID, err, want)
		}
	}
	for _, name := range []string{string(foreign.ID), "pit-", "yesterday"} {
		_, err := s.client.FindPoint(t.Context(), server, name)
		wantRefusal(t, err, "no recovery point", "lifeboat points db1")
	}
	none, err := s.client.FindServer(t.Context(), string(empty.ID))
	must(t, err)
	_, err = s.client.FindPoint(t.Context(), none, LatestPoint)
	wantRefusal(t, err, "no consistent recovery point")

	// A point is found by the time that was shown for it, in seconds or milliseconds.
	for text, want := range map[string]drs.RecoverySnapshotID{
		start.UTC().Format(time.RFC3339):                                                    early.ID,
		early.Taken.UTC().Format("2006-01-02T15:04:05.000Z"):                                early.ID,
		start.Add(59 * time.Second).UTC().Format(time.RFC3339):                              early.ID,
		late.Taken.UTC().Format(time.RFC3339):                                               late.ID,
		time.Now().UTC().Add(-time.Second).Truncate(time.Second).UTC().Format(time.RFC3339): late.ID,
	} {
		at, err := ParseMoment(text, time.Now())
		must(t, err)
		if got, err := s.client.NewestPoint(t.Context(), server, &at); err != nil || got.ID != string(want) {
			t.Errorf("newest point at %s = %s, %v; want %s", text, got.ID, err, want)
		}
	}
	before := start.Add(-time.Second)
	_, err = s.client.NewestPoint(t.Context(), server, &before)
	wantRefusal(t, err, "at or before")
}

func TestPlanAndStart(t *testing.T) {
	s := newSite(t)
	db1, web := s.addServer("db1"), s.addServer("web")
	start := time.Now().Add(-time.Hour).Truncate(time.Second)
	p1 := s.addPoint(db1, start, drs.CrashConsistent)
	s.addPoint(db1, start.Add(30*time.Minute), drs.CrashConsistent)
	p2 := s.addPoint(web, start.Add(-time.Minute), drs.CrashConsistent)
	old := s.addInstance(db1, drs.NewJobID(), drs.Tags{})
	s.addInstance(db1, drs.NewJobID(), drs.Tags{protectionTag: "true"})

	at := start.Add(time.Second)
	plan, err := s.client.Plan(t.Context(), Order{Servers: []string{"db1", "web"}, At: &at, Drill: true})
	must(t, err)
	if len(plan.Servers) != 2 || plan.Servers[0].Point.ID != string(p1.ID) || plan.Servers[1].Point.ID != string(p2.ID) {
		t.Fatalf("plan %+v, want each server's newest point by then", plan)
	}
	if gone := plan.Removes(); len(gone) != 1 || gone[0].ID != string(old.ID) {
		t.Errorf("plan removes %+v, want only %s", gone, old.ID)
	}
	job, err := s.client.Start(t.Context(), plan)
	must(t, err)
	stored, err := s.db.Job(t.Context(), home, drs.JobID(job.ID))
	must(t, err)
	if stored.Initiated != drs.StartedDrill || stored.Servers[0].Snapshot != p1.ID || stored.Servers[1].Snapshot != p2.ID {
		t.Errorf("the server got %+v, want what was planned", stored)
	}
	if job.Kind != KindDrill || job.Servers[0].Hostname != "db1" {
		t.Errorf("job %+v, want a drill of db1 and web", job)
	}
	_, err = s.client.Start(t.Context(), plan)
	wantRefusal(t, err, "is in a job", "ConflictException")

	plan, err = s.client.Plan(t.Context(), Order{Servers: []string{"web"}})
	must(t, err)
	if plan.Servers[0].Point != nil {
		t.Errorf("plan %+v, want a point on demand", plan)
	}
}

// seen records what a watcher is told.
type seen struct {
	lines      []string
	away, back int
	progress   func(Job)
}

func (w *seen) Line(l LogLine) { w.lines = append(w.lines, l.Event+" "+l.Hostname+l.Note+l.Error) }
func (w *seen) Progress(j Job) {
	if w.progress != nil {
		w.progress(j)
	}
}
func (w *seen) Away(error) { w.away++ }
func (w *seen) Back()      { w.back++ }

func TestFollow(t *testing.T) {
	s := newSite(t)
	db1, web := s.addServer("db1"), s.addServer("web")
	plan, err := s.client.Plan(t.Context(), Order{Servers: []string{"db1", "web"}})
	must(t, err)
	started, err := s.client.Start(t.Context(), plan)
	must(t, err)
	id := drs.JobID(started.ID)
	log := func(tx db.Tx, event drs.JobEvent, server drs.SourceServerID, note, problem string) error {
		return tx.Log(t.Context(), string(event)+string(server), drs.JobLogItem{
			Job: id, Time: time.Now(), Event: event, SourceServer: server, Note: note, RawError: problem,
		})
	}
	instance := s.addInstance(db1, id, drs.Tags{})
	// The job moves on each time that it is looked at.
	steps := []func(context.Context, db.Tx) error{
		func(ctx context.Context, tx db.Tx) error {
			return errors.Join(tx.SetJobStatus(ctx, id, drs.JobStarted), log(tx, drs.EventJobStart, "", "", ""))
		},
		func(ctx context.Context, tx db.Tx) error {
			return errors.Join(log(tx, drs.EventSnapshotEnd, db1.ID, "crash-consistent", ""),
				tx.SetLaunchStatus(ctx, id, db1.ID, "", drs.LaunchInProgress, ""),
				tx.SetLaunchStatus(ctx, id, web.ID, "", drs.LaunchInProgress, ""))
		},
		func(ctx context.Context, tx db.Tx) error {
			return errors.Join(log(tx, drs.EventLaunchFailed, web.ID, "", "No room. Free some."),
				tx.SetLaunchStatus(ctx, id, web.ID, "", drs.LaunchFailed, ""),
				tx.SetLaunchStatus(ctx, id, db1.ID, "", drs.LaunchLaunched, instance.ID))
		},
		func(ctx context.Context, tx db.Tx) error {
			return errors.Join(log(tx, drs.EventJobEnd, "", "", ""), tx.SetJobStatus(ctx, id, drs.JobCompleted))
		},
	}
	w := &seen{progress: func(Job) {
		if len(steps) > 0 {
			s.tx(steps[0])
			steps = steps[1:]
		}
	}}
	job, err := s.client.Follow(t.Context(), started.ID, w)
	must(t, err)
	want := "JOB_START |SNAPSHOT_END db1crash-consistent|LAUNCH_FAILED webNo room. Free some.|JOB_END "
	if got := strings.Join(w.lines, "|"); got != want {
		t.Errorf("lines\n%s\nwant\n%s", got, want)
	}
	if job.Failed() != 1 || job.Servers[1].Error != "No room. Free some." {
		t.Errorf("job %+v, want web to have failed for want of room", job)
	}
	if d := job.Servers[0]; d.Instance != string(instance.ID) || d.InstanceState != "RUNNING" || d.PointTaken == nil {
		t.Errorf("db1 %+v, want its running instance and point", d)
	}
}

func TestFollowOutlivesTheServer(t *testing.T) {
	s := newSite(t)
	s.addServer("db1")
	plan, err := s.client.Plan(t.Context(), Order{Servers: []string{"db1"}})
	must(t, err)
	started, err := s.client.Start(t.Context(), plan)
	must(t, err)

	t.Run("gone for good", func(t *testing.T) {
		gone := *s.client
		gone.api = gone.toClosedPort(t)
		now := time.Now()
		gone.now = func() time.Time { now = now.Add(time.Minute); return now }
		w := &seen{}
		_, err := gone.Follow(t.Context(), started.ID, w)
		var unreachable *UnreachableError
		if !errors.As(err, &unreachable) || w.away != 1 {
			t.Errorf("got %v after %d notices, want an *UnreachableError after one", err, w.away)
		}
	})
	t.Run("away and back", func(t *testing.T) {
		c := *s.client
		o := c.api.Options()
		o.Retryer = aws.NopRetryer{}
		c.api = drsapi.New(o)
		away := &flaky{site: s, job: drs.JobID(started.ID)}
		away.progress = func(Job) { s.down.Store(true) }
		if _, err := c.Follow(t.Context(), started.ID, away); err != nil || away.away != 1 || away.back != 1 {
			t.Errorf("got %v after %d times away and %d back, want the end after one of each", err, away.away, away.back)
		}
	})
	started, err = s.client.Start(t.Context(), plan) // the first has completed
	must(t, err)
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := fmt.Errorf("enough")
		_, err := s.client.Follow(ctx, started.ID, &seen{progress: func(Job) { cancel(stop) }})
		if !errors.Is(err, stop) {
			t.Errorf("got %v, want what ended the watching", err)
		}
	})
}

// flaky brings the server back once it was missed; by then the job has ended.
type flaky struct {
	seen
	site *site
	job  drs.JobID
}

func (w *flaky) Away(err error) {
	w.seen.Away(err)
	w.site.tx(func(ctx context.Context, tx db.Tx) error {
		return errors.Join(tx.SetJobStatus(ctx, w.job, drs.JobStarted), tx.SetJobStatus(ctx, w.job, drs.JobCompleted))
	})
	w.progress = nil
	w.site.down.Store(false)
}
