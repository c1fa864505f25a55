package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/drsapi"
	"lifeboat/internal/iam"
	"lifeboat/internal/protection"
	"lifeboat/internal/recovery"
	"lifeboat/internal/recovery/plan"
)

var home = drs.Account{ID: "111122223333", Region: "eu-west-1"}

// site is a real API over TLS with a real database; only what runs jobs is the
// test itself, through the site's methods.
type site struct {
	t      *testing.T
	db     *db.DB
	server *httptest.Server
	client *Client
	down   atomic.Bool // connections are dropped without an answer
	mux    *http.ServeMux
}

// also serves something beside the API.
func (s *site) also(path string, h http.Handler) { s.mux.Handle(path, h) }

func newSite(t *testing.T) *site {
	t.Helper()
	s, dir := &site{t: t}, t.TempDir()
	var err error
	s.db, err = db.Create(t.Context(), filepath.Join(dir, "lifeboat.db"))
	must(t, err)
	t.Cleanup(func() { s.db.Close() })
	must(t, s.db.Initialize(t.Context(), home))
	key := iam.NewAccessKey(home)
	api, err := drsapi.New(drsapi.Config{
		DB: s.db, Recovery: jobs{db: s.db}, Protection: protection.New(protection.Config{DB: s.db, Log: slog.New(slog.DiscardHandler)}),
		Networks: &recovery.Service{}, // nobody asks it here
		Plans:    plan.New(s.db, nil, slog.New(slog.DiscardHandler), nil),
		PageKey:  bytes.Repeat([]byte("k"), 32), Log: slog.New(slog.DiscardHandler),
		Verifier: &iam.Verifier{Service: "drs", Region: home.Region, Keys: iam.NewKeyring(key)},
	})
	must(t, err)
	authority, err := iam.CreateAuthority(dir)
	must(t, err)
	certificate, err := authority.ServerCertificate(dir, nil)
	must(t, err)
	s.mux = http.NewServeMux()
	s.mux.Handle("/", api)
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.down.Load() {
			panic(http.ErrAbortHandler)
		}
		s.mux.ServeHTTP(w, r)
	}))
	s.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	pem, err := os.ReadFile(iam.AuthorityCertFile(dir))
	must(t, err)
	s.client, err = New(Access{
		Endpoint: s.server.URL, Authority: pem, Region: home.Region, KeyID: key.ID, Secret: key.Secret.Reveal(),
	})
	must(t, err)
	s.client.poll = time.Millisecond
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tx changes what the server knows.
func (s *site) tx(f func(context.Context, db.Tx) error) {
	s.t.Helper()
	must(s.t, s.db.InTx(context.Background(), f))
}

// addServer registers a protected machine that is up to date.
func (s *site) addServer(hostname string) drs.SourceServer {
	s.t.Helper()
	server, _, err := s.db.RegisterServer(s.t.Context(), db.Registration{
		Account: home, HardwareID: string(drs.NewSourceServerID()), AgentVersion: "1",
		Properties: drs.SourceProperties{
			Hostname: hostname, FQDN: hostname + ".example.org", OS: "linux 6.1.0", RAMBytes: 2 << 30,
			CPUs: []drs.CPU{{Cores: 2}}, Disks: []drs.Disk{{Device: "/dev/vda", Bytes: 4 << 30}},
		},
	})
	must(s.t, err)
	must(s.t, s.db.ReportReplication(s.t.Context(), server.ID, drs.DataReplicationInfo{
		State: drs.ReplicationContinuous, AsOf: time.Now(),
		Disks: []drs.ReplicatedDisk{{Device: "/dev/vda", Total: 4 << 30, Replicated: 4 << 30}},
	}, time.Now()))
	return server
}

func (s *site) addPoint(server drs.SourceServer, taken time.Time, c drs.Consistency) drs.RecoveryPoint {
	s.t.Helper()
	p := drs.RecoveryPoint{
		ID: drs.NewRecoverySnapshotID(), SourceServer: server.ID, Expected: taken, Taken: taken, Consistency: c,
	}
	must(s.t, s.db.AddPoint(s.t.Context(), p))
	return p
}

func (s *site) addInstance(server drs.SourceServer, job drs.JobID, tags drs.Tags) drs.RecoveryInstance {
	s.t.Helper()
	i := drs.RecoveryInstance{
		ID: drs.NewRecoveryInstanceID(), Account: home, SourceServer: server.ID, Job: job, Drill: true, Tags: tags,
		State: drs.InstanceRunning, Launched: time.Now(), PointTaken: time.Now().Add(-time.Minute),
		Properties: drs.InstanceProperties{Hostname: server.Properties.Hostname, CPUs: server.Properties.CPUs, RAMBytes: 2 << 30},
	}
	s.tx(func(ctx context.Context, tx db.Tx) error { return tx.InsertInstance(ctx, i) })
	return i
}

// jobs records jobs as package recovery does, and does none of their work.
type jobs struct {
	*recovery.Service // nil: no test gets to the rest of it
	db                *db.DB
}

func (j jobs) StartRecovery(ctx context.Context, account drs.Account, r drs.StartRecovery) (drs.Job, error) {
	job := drs.Job{
		ID: drs.NewJobID(), Account: account, Type: drs.JobLaunch, Initiated: drs.StartedRecovery,
		Status: drs.JobPending, Created: time.Now(), Tags: r.Tags,
	}
	if r.Drill {
		job.Initiated = drs.StartedDrill
	}
	for _, want := range r.Servers {
		job.Servers = append(job.Servers, drs.ParticipatingServer{SourceServer: want.SourceServer, Snapshot: want.Snapshot, Status: drs.LaunchPending})
	}
	return job, j.db.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		busy, err := tx.Busy(ctx, []drs.SourceServerID{r.Servers[0].SourceServer})
		if err == nil && len(busy) > 0 {
			return drs.Conflict(drs.TypeSourceServer, string(r.Servers[0].SourceServer), "The server is in a job. Wait for its end.")
		}
		if err != nil {
			return err
		}
		return tx.InsertJob(ctx, job)
	})
}

func (j jobs) TerminateRecoveryInstances(ctx context.Context, account drs.Account, ids []drs.RecoveryInstanceID) (drs.Job, error) {
	job := drs.Job{
		ID: drs.NewJobID(), Account: account, Type: drs.JobTerminate, Initiated: drs.TerminatedInstances,
		Status: drs.JobPending, Created: time.Now(), Tags: drs.Tags{},
	}
	for _, id := range ids {
		i, err := j.db.InstanceByID(ctx, id)
		if err != nil {
			return drs.Job{}, err
		}
		job.Servers = append(job.Servers, drs.ParticipatingServer{SourceServer: i.SourceServer, Instance: id, Status: drs.LaunchPending})
	}
	return job, j.db.InTx(ctx, func(ctx context.Context, tx db.Tx) error { return tx.InsertJob(ctx, job) })
}
