package drsapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsdrs "github.com/aws/aws-sdk-go-v2/service/drs"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
	"lifeboat/internal/protection"
	"lifeboat/internal/recovery"
	"lifeboat/internal/recovery/plan"
)

var (
	home  = drs.Account{ID: "111122223333", Region: "eu-west-1"}
	other = drs.Account{ID: "444455556666", Region: "eu-west-1"}
)

// site is a served API with its database, and a key for each of two accounts.
type site struct {
	t        testing.TB
	db       *db.DB
	recovery *jobStarter
	plans    *plan.Service // executions stand still until somebody runs it
	agents   *agentLog
	vault    *memVault
	server   *httptest.Server
	witness  *witness
	revoked  atomic.Bool // other does not trust home any more
	dir      string      // holds ca.pem
	keys     map[drs.Account]iam.AccessKey
	log      *bytes.Buffer
	api      *API
}

// newSite serves the API over TLS, with a certificate of a fresh authority; home
// is initialized, other is not.
func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), keys: map[drs.Account]iam.AccessKey{}, log: &bytes.Buffer{}}
	var err error
	if s.db, err = db.Create(t.Context(), filepath.Join(s.dir, "lifeboat.db")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.db.Close() })
	if err := s.db.Initialize(t.Context(), home); err != nil {
		t.Fatal(err)
	}
	for _, account := range []drs.Account{home, other} {
		s.keys[account] = iam.NewAccessKey(account)
	}
	s.recovery = newJobStarter(s.db)
	s.agents, s.vault = &agentLog{}, newMemVault()
	guard := protection.New(protection.Config{
		DB: s.db, Agents: s.agents, Vault: s.vault, Log: slog.New(slog.DiscardHandler),
		Trusts: func(_ context.Context, staging, target drs.Account) (bool, error) {
			return staging == other && target == home && !s.revoked.Load(), nil
		},
	})
	networks, err := recovery.New(t.Context(), recovery.Config{DB: s.db, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s.plans = plan.New(s.db, s.recovery, slog.New(slog.DiscardHandler), nil)
	life, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = guard.Run(life) })
	t.Cleanup(func() { end(); running.Wait() })
	s.api, err = New(Config{
		DB: s.db, Recovery: s.recovery, Protection: guard, Plans: s.plans, Networks: networks, PageKey: bytes.Repeat([]byte("k"), 32),
		Verifier: &iam.Verifier{Service: "drs", Region: home.Region, Keys: iam.NewKeyring(s.keys[home], s.keys[other])},
		Log:      slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	authority, err := iam.CreateAuthority(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := authority.ServerCertificate(s.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.witness = &witness{t: t, api: s.api, model: readModel(t)}
	s.server = httptest.NewUnstartedServer(s.witness)
	s.server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	s.server.EnableHTTP2 = true
	s.server.StartTLS()
	t.Cleanup(s.server.Close)
	// Trust the authority alone, as clients do.
	s.server.Client().Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: authority.Pool()}
	return s
}

// sdk is a client of the AWS SDK.
func (s *site) sdk(account drs.Account) *awsdrs.Client {
	key := s.keys[account]
	return awsdrs.New(awsdrs.Options{
		Region: account.Region, BaseEndpoint: aws.String(s.server.URL), HTTPClient: s.server.Client(),
		Credentials: credentials.NewStaticCredentialsProvider(key.ID, key.Secret.Reveal(), ""),
		Retryer:     aws.NopRetryer{},
	})
}

// reply is what came back over the wire.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// object is the body as JSON.
func (r reply) object(t *testing.T) map[string]any {
	t.Helper()
	out := map[string]any{}
	if err := json.Unmarshal(r.body, &out); err != nil {
		t.Fatalf("body %q: %v", r.body, err)
	}
	return out
}

// code is the exception of a refusal; all places that name it must agree.
func (r reply) code(t *testing.T) string {
	t.Helper()
	body := r.object(t)
	name := r.header.Get("X-Amzn-Errortype")
	if body["__type"] != name {
		t.Errorf("__type %v differs from the header %q", body["__type"], name)
	}
	if code, ok := body["code"]; ok && code != name {
		t.Errorf("code %v differs from the header %q", code, name)
	}
	if body["message"] == "" || body["message"] == nil {
		t.Errorf("%s has no message", name)
	}
	if r.header.Get("X-Amzn-Requestid") == "" {
		t.Error("no request ID")
	}
	return name
}

func (s *site) send(account drs.Account, method, target, body string) reply {
	s.t.Helper()
	r, err := http.NewRequest(method, s.server.URL+target, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	s.sign(account, r, body)
	return s.do(r)
}

func (s *site) sign(account drs.Account, r *http.Request, body string) {
	s.t.Helper()
	r.Header.Set("Content-Type", "application/json")
	signOnly(s.t, s, account, r, body)
}

// signOnly signs a request as it stands.
func signOnly(t testing.TB, s *site, account drs.Account, r *http.Request, body string) {
	t.Helper()
	key := s.keys[account]
	credentials := aws.Credentials{AccessKeyID: key.ID, SecretAccessKey: key.Secret.Reveal()}
	hash := fmt.Sprintf("%x", sha256Of(body))
	if err := v4.NewSigner().SignHTTP(t.Context(), credentials, r, hash, "drs", account.Region, time.Now()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) do(r *http.Request) reply {
	s.t.Helper()
	answer, err := s.server.Client().Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{answer.StatusCode, answer.Header, text}
}

// addServer registers a source server with two disks.
func (s *site) addServer(account drs.Account, name string) drs.SourceServer {
	s.t.Helper()
	server, _, err := s.db.RegisterServer(s.t.Context(), db.Registration{
		Account: account, HardwareID: "hw-" + name, AgentVersion: "1.2.3",
		Properties: drs.SourceProperties{
			LastUpdated: time.Now(), Hostname: name, FQDN: name + ".example.org", OS: "linux 6.1.0", Architecture: "x86_64",
			CPUs: []drs.CPU{{Cores: 2, ModelName: "Test CPU"}}, RAMBytes: 2 << 30,
			NetworkInterfaces: []drs.NetworkInterface{{MAC: "02:00:00:00:00:0" + name[len(name)-1:], IPs: []string{"10.0.0.5"}, Primary: true}},
			Disks:             []drs.Disk{{Device: "/dev/vda", Bytes: 4 << 30}, {Device: "/dev/vdb", Bytes: 1 << 30}},
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return server
}

// addPoint gives a server a recovery point.
func (s *site) addPoint(server drs.SourceServerID, at time.Time, c drs.Consistency) drs.RecoveryPoint {
	s.t.Helper()
	p := drs.RecoveryPoint{
		ID: drs.NewRecoverySnapshotID(), SourceServer: server, Expected: at, Taken: at.Add(2 * time.Second),
		Consistency: c, Method: drs.QuietPass,
	}
	if err := s.db.AddPoint(s.t.Context(), p); err != nil {
		s.t.Fatal(err)
	}
	return p
}

// addInstance gives a server a running recovery instance.
func (s *site) addInstance(server drs.SourceServer, job drs.JobID) drs.RecoveryInstance {
	s.t.Helper()
	i := drs.RecoveryInstance{
		ID: drs.NewRecoveryInstanceID(), Account: server.Account, SourceServer: server.ID, Job: job, Drill: true,
		State: drs.InstanceRunning, Launched: time.Now(), PointTaken: time.Now(), Tags: drs.Tags{},
		Properties: drs.InstanceProperties{
			LastUpdated: time.Now(), Hostname: server.Properties.Hostname, OS: server.Properties.OS, RAMBytes: 1 << 30,
			CPUs: server.Properties.CPUs, Disks: server.Properties.Disks, NetworkInterfaces: server.Properties.NetworkInterfaces,
		},
	}
	err := s.db.InTx(s.t.Context(), func(ctx context.Context, tx db.Tx) error { return tx.InsertInstance(ctx, i) })
	if err != nil {
		s.t.Fatal(err)
	}
	return i
}

// jobStarter keeps jobs in the database and leaves them pending: the API's view
// of package recovery. fail makes it refuse, panic makes it break.
type jobStarter struct {
	*recovery.Service // for what needs tables alone
	db                *db.DB
	fail              error
	panic             any
}

func (j *jobStarter) StartRecovery(ctx context.Context, account drs.Account, request drs.StartRecovery) (job drs.Job, err error) {
	if j.panic != nil {
		panic(j.panic)
	}
	err = j.db.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		job, err = j.StartRecoveryIn(ctx, tx, account, request)
		return err
	})
	return job, err
}

// CheckRecoveryIn and StartRecoveryIn are what plans ask for.
func (j *jobStarter) CheckRecoveryIn(ctx context.Context, tx db.Tx, account drs.Account, request drs.StartRecovery) error {
	for _, server := range request.Servers {
		if _, err := tx.SourceServer(ctx, account, server.SourceServer); errors.Is(err, db.ErrAbsent) {
			return drs.Conflict(drs.TypeSourceServer, string(server.SourceServer), "Source server %s does not exist.", server.SourceServer)
		}
	}
	return nil
}

func (j *jobStarter) StartRecoveryIn(ctx context.Context, tx db.Tx, account drs.Account, request drs.StartRecovery) (drs.Job, error) {
	if j.fail != nil {
		return drs.Job{}, j.fail
	}
	if err := j.CheckRecoveryIn(ctx, tx, account, request); err != nil {
		return drs.Job{}, err
	}
	job := drs.Job{
		ID: drs.NewJobID(), Account: account, Type: drs.JobLaunch, Initiated: drs.StartedRecovery, Status: drs.JobPending,
		Created: time.Now(), Tags: request.Tags,
	}
	if request.Drill {
		job.Initiated = drs.StartedDrill
	}
	for _, server := range request.Servers {
		job.Servers = append(job.Servers, drs.ParticipatingServer{
			SourceServer: server.SourceServer, Snapshot: server.Snapshot, Status: drs.LaunchPending,
		})
	}
	return job, tx.InsertJob(ctx, job)
}

func (j *jobStarter) TerminateRecoveryInstances(ctx context.Context, account drs.Account, ids []drs.RecoveryInstanceID) (drs.Job, error) {
	if j.fail != nil {
		return drs.Job{}, j.fail
	}
	job := drs.Job{
		ID: drs.NewJobID(), Account: account, Type: drs.JobTerminate, Initiated: drs.TerminatedInstances, Status: drs.JobPending, Created: time.Now(),
	}
	for _, id := range ids {
		instance, err := j.db.InstanceByID(ctx, id)
		if err != nil || instance.Account != account {
			return drs.Job{}, drs.Conflict(drs.TypeRecoveryInstance, string(id), "Recovery instance %s does not exist.", id)
		}
		job.Servers = append(job.Servers, drs.ParticipatingServer{SourceServer: instance.SourceServer, Instance: id, Status: drs.LaunchPending})
	}
	return job, j.insert(ctx, job)
}

func (j *jobStarter) insert(ctx context.Context, job drs.Job) error {
	return j.db.InTx(ctx, func(ctx context.Context, tx db.Tx) error { return tx.InsertJob(ctx, job) })
}

func newJobStarter(d *db.DB) *jobStarter {
	return &jobStarter{Service: &recovery.Service{Config: recovery.Config{DB: d}}, db: d}
}

// agentLog takes the place of the replication server and notes what it is told.
type agentLog struct {
	mu   sync.Mutex
	told []string // guarded by mu
}

func (a *agentLog) note(what string, id drs.SourceServerID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told = append(a.told, what+" "+string(id))
}

func (a *agentLog) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	told := a.told
	a.told = nil
	return told
}

func (a *agentLog) Reconfigured(s drs.SourceServer) {
	a.note(fmt.Sprint("throttle ", s.ReplicationConfiguration.BandwidthThrottlingMbps), s.ID)
}
func (a *agentLog) Expect(id drs.SourceServerID, _ drs.DataReplicationInfo) { a.note("expect", id) }
func (a *agentLog) Pause(id drs.SourceServerID, _ string)                   { a.note("pause", id) }
func (a *agentLog) Restart(id drs.SourceServerID, _ string)                 { a.note("restart", id) }
func (a *agentLog) Forget(id drs.SourceServerID, _ string)                  { a.note("forget", id) }

// memVault knows which servers it holds data of.
type memVault struct {
	mu     sync.Mutex
	change sync.Cond                   // of held; its lock is mu
	held   map[drs.SourceServerID]bool // guarded by mu, as all below
	locked time.Time
	drops  int
}

func newMemVault() *memVault {
	v := &memVault{held: map[drs.SourceServerID]bool{}}
	v.change.L = &v.mu
	return v
}

// awaitDrop returns when the vault holds nothing of the server.
func (v *memVault) awaitDrop(id drs.SourceServerID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for v.held[id] {
		v.change.Wait()
	}
}

func (v *memVault) CreateServer(_ context.Context, id drs.SourceServerID) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.held[id] = true
	return nil
}

func (v *memVault) DropServer(_ context.Context, id drs.SourceServerID) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.held, id)
	v.drops++
	v.change.Broadcast()
	return nil
}

func (v *memVault) LockedUntil(context.Context, drs.SourceServerID) (time.Time, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.locked, nil
}

func (v *memVault) has(id drs.SourceServerID) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.held[id]
}
