package recovery_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/recovery"
	"lifeboat/internal/recovery/convert"
	"lifeboat/internal/recovery/machine"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
)

var account = drs.Account{ID: "123456789012", Region: "us-east-1"}

// idleMachines are machines that exist and execute nothing.
type idleMachines struct {
	mu     sync.Mutex
	specs  map[drs.RecoveryInstanceID]machine.Spec // guarded by mu
	starts int                                     // guarded by mu
	refuse error                                   // what Start says; guarded by mu
}

func (m *idleMachines) Start(_ context.Context, s machine.Spec) (machine.Started, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.starts++
	if m.refuse != nil {
		return machine.Started{}, m.refuse
	}
	m.specs[s.ID] = s
	return machine.Started{FirstInstruction: time.Now(), Accelerator: "none"}, nil
}

func (m *idleMachines) State(_ context.Context, id drs.RecoveryInstanceID) (machine.Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.specs[id]; ok {
		return machine.Status{ID: id, State: machine.Running}, nil
	}
	return machine.Status{ID: id, State: machine.Absent}, nil
}

func (m *idleMachines) Stop(context.Context, drs.RecoveryInstanceID, time.Duration) error { return nil }

func (m *idleMachines) Destroy(_ context.Context, id drs.RecoveryInstanceID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.specs, id)
	return nil
}

func (m *idleMachines) ConsolePath(drs.RecoveryInstanceID) string { return "" }

func (m *idleMachines) Accelerator(context.Context) (string, string, error) { return "none", "", nil }

func (m *idleMachines) running() []machine.Spec {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []machine.Spec
	for _, s := range m.specs {
		all = append(all, s)
	}
	return all
}

// agents answer for the agents of servers; those that are not there are not
// connected.
type agents map[drs.SourceServerID]func(context.Context) (drs.RecoveryPoint, error)

var errNotConnected = errors.New("no agent of this source server is connected")

func (a agents) TakePoint(ctx context.Context, id drs.SourceServerID) (drs.RecoveryPoint, error) {
	if take, ok := a[id]; ok {
		return take(ctx)
	}
	return drs.RecoveryPoint{}, errNotConnected
}

// site is a service with real tables and a real vault.
type site struct {
	*recovery.Service
	db       *db.DB
	vault    *vault.Vault
	machines *idleMachines
	agents   agents
	config   recovery.Config
	stop     func()
}

// patience is when a test gives up, on a machine of whatever load.
const patience = 5 * time.Minute

// settle waits until it is as it should be; records and machines are polled.
func settle(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{machines: &idleMachines{specs: map[drs.RecoveryInstanceID]machine.Spec{}}, agents: agents{}}
	var err error
	if s.db, err = db.Create(t.Context(), filepath.Join(dir, "db")); err != nil {
		t.Fatal(err)
	}
	store, err := blob.CreateDir(filepath.Join(dir, "vault"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := vault.CreateKeyFile(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	if s.vault, err = vault.Create(t.Context(), store, keys, vault.Options{}); err != nil {
		t.Fatal(err)
	}
	s.config = recovery.Config{
		DB: s.db, Vault: s.vault, Points: s.agents, Machines: s.machines, Host: convert.Host{CPUs: 4, Memory: 8 << 30},
		Dir: filepath.Join(dir, "instances"), Socket: filepath.Join(dir, "disks.sock"),
		LogKey:       func(drs.RecoveryInstanceID) ([]byte, error) { return bytes.Repeat([]byte{7}, 32), nil },
		DrillNetwork: machine.Isolated, RecoveryNetwork: machine.UserNAT,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	s.run(t)
	t.Cleanup(func() {
		s.stop()
		if err := errors.Join(s.vault.Close(), s.db.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// run begins a service on the site, as a new process would.
func (s *site) run(t *testing.T) {
	t.Helper()
	var err error
	if s.Service, err = recovery.New(t.Context(), s.config); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

// protect adds a server with one disk and one point in the vault.
func (s *site) protect(t *testing.T, name string) (drs.SourceServerID, drs.RecoveryPoint) {
	t.Helper()
	server, _, err := s.db.RegisterServer(t.Context(), db.Registration{
		Account: account, HardwareID: name,
		Properties: drs.SourceProperties{Hostname: name, CPUs: []drs.CPU{{Cores: 2}}, RAMBytes: 1 << 30, BootMode: drs.BootBIOS},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.vault.CreateServer(t.Context(), server.ID); err != nil {
		t.Fatal(err)
	}
	return server.ID, s.point(t, server.ID, drs.CrashConsistent)
}

// point commits one more point of a server.
func (s *site) point(t *testing.T, server drs.SourceServerID, c drs.Consistency) drs.RecoveryPoint {
	t.Helper()
	w, err := s.vault.Writer(t.Context(), server, vault.MainBranch)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	epoch, err := w.Begin(t.Context(), []vault.Volume{{ID: 0, Device: "/dev/vda", Size: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	block := bytes.Repeat([]byte(server), 4096/len(server)+1)[:4096]
	err = epoch.Append(vault.Frame{Extents: []vault.Extent{{Block: 3, Count: 1}}, RawLen: 4096, Payload: block})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	p := drs.RecoveryPoint{
		ID: drs.NewRecoverySnapshotID(), SourceServer: server, Expected: now, Taken: now, Consistency: c, Method: drs.QuietPass,
	}
	head, err := epoch.Commit(t.Context(), &p)
	if err != nil {
		t.Fatal(err)
	}
	p.Epoch = head.Number
	if err := s.db.AddPoint(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return p
}

func ask(servers ...drs.SourceServerID) drs.StartRecovery {
	r := drs.StartRecovery{Tags: drs.Tags{}}
	for _, id := range servers {
		r.Servers = append(r.Servers, drs.StartRecoveryServer{SourceServer: id})
	}
	return r
}

// finish waits until a job is completed and returns it with its log.
func (s *site) finish(t *testing.T, id drs.JobID) (drs.Job, []drs.JobLogItem) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		job, err := s.db.JobByID(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if job.Status == drs.JobCompleted {
			log, _, err := s.db.JobLog(t.Context(), id, db.Page{Limit: 10_000})
			if err != nil {
				t.Fatal(err)
			}
			return job, log
		}
		if time.Now().After(deadline) {
			t.Fatalf("job is still %s: %+v", job.Status, job.Servers)
		}
		time.Sleep(5 * time.Millisecond) // a table cannot be waited on
	}
}

func events(log []drs.JobLogItem) string {
	var names []string
	for _, l := range log {
		names = append(names, string(l.Event))
	}
	return strings.Join(names, " ")
}

func (s *site) launch(t *testing.T, r drs.StartRecovery) (drs.Job, []drs.JobLogItem) {
	t.Helper()
	job, err := s.StartRecovery(t.Context(), account, r)
	if err != nil {
		t.Fatal(err)
	}
	return s.finish(t, job.ID)
}

func (s *site) instances(t *testing.T) []drs.RecoveryInstance {
	t.Helper()
	all, err := s.db.AllInstances(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestWhichPointIsUsed(t *testing.T) {
	s := newSite(t)
	server, old := s.protect(t, "one")
	newest := s.point(t, server, drs.CrashConsistent)
	s.point(t, server, drs.Fuzzy)

	for _, c := range []struct {
		name  string
		agent func(context.Context) (drs.RecoveryPoint, error)
		ask   drs.RecoverySnapshotID
		want  func() drs.RecoverySnapshotID
		log   string
	}{
		{"agent away: the newest consistent one", nil, "", func() drs.RecoverySnapshotID { return newest.ID },
			"SNAPSHOT_START SNAPSHOT_FAIL USING_PREVIOUS_SNAPSHOT"},
		{"one that is named", nil, old.ID, func() drs.RecoverySnapshotID { return old.ID }, "USING_PREVIOUS_SNAPSHOT"},
		{"agent there: one of this moment", func(context.Context) (drs.RecoveryPoint, error) {
			newest = s.point(t, server, drs.CrashConsistent)
			return newest, nil
		}, "", func() drs.RecoverySnapshotID { return newest.ID }, "SNAPSHOT_START SNAPSHOT_END"},
		{"agent takes a fuzzy one: the newest consistent one", func(context.Context) (drs.RecoveryPoint, error) {
			return s.point(t, server, drs.Fuzzy), nil
		}, "", func() drs.RecoverySnapshotID { return newest.ID }, "SNAPSHOT_START SNAPSHOT_FAIL USING_PREVIOUS_SNAPSHOT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			delete(s.agents, server)
			if c.agent != nil {
				s.agents[server] = c.agent
			}
			r := ask(server)
			r.Drill, r.Servers[0].Snapshot = true, c.ask
			_, log := s.launch(t, r)
			got := strings.TrimPrefix(events(log), "JOB_START CLEANUP_START CLEANUP_END ")
			got = strings.TrimPrefix(got, "JOB_START ")
			if want := c.log + " CONVERSION_START CONVERSION_END LAUNCH_START JOB_END"; got != want {
				t.Errorf("log %s\nwant %s", got, want)
			}
			if all := s.instances(t); len(all) != 1 || all[0].Point != c.want() {
				t.Errorf("instances %+v, want one of %s", all, c.want())
			}
		})
	}
}

func TestDrillsAreIsolatedAndRecoveriesAreNot(t *testing.T) {
	s := newSite(t)
	server, _ := s.protect(t, "one")
	for _, drill := range []bool{true, false} {
		r := ask(server)
		r.Drill = drill
		s.launch(t, r)
		running := s.machines.running()
		want := map[bool]machine.Network{true: machine.Isolated, false: machine.UserNAT}[drill]
		if len(running) != 1 || running[0].NICs[0].Network != want {
			t.Errorf("drill %v: %+v", drill, running)
		}
		if err := running[0].Check(); err != nil {
			t.Error(err)
		}
	}
}

func TestAProtectedInstanceIsKept(t *testing.T) {
	s := newSite(t)
	server, _ := s.protect(t, "one")
	s.launch(t, ask(server))
	first := s.instances(t)[0]
	err := s.db.ChangeTags(t.Context(), drs.Resource{Account: account, Type: drs.TypeRecoveryInstance, ID: string(first.ID)},
		func(tags drs.Tags) error { tags[recovery.TerminationProtection] = "true"; return nil })
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.launch(t, ask(server))
		all := s.instances(t)
		if len(all) != 2 || all[0].ID != first.ID {
			t.Errorf("instances: %+v", all)
		}
	}
	if n := len(s.machines.running()); n != 2 {
		t.Errorf("%d machines run", n)
	}
}

func TestAFailedLaunchLeavesNothing(t *testing.T) {
	s := newSite(t)
	good, _ := s.protect(t, "good")
	bad, _ := s.protect(t, "bad")
	s.machines.refuse = errors.New("the emulator is not installed: apt-get install qemu-system-x86")
	job, log := s.launch(t, ask(bad))
	if job.Servers[0].Status != drs.LaunchFailed || !strings.HasSuffix(events(log), "LAUNCH_START LAUNCH_FAILED JOB_END") {
		t.Errorf("%+v\n%s", job.Servers, events(log))
	}
	if raw := log[len(log)-2].RawError; !strings.Contains(raw, "apt-get install") {
		t.Errorf("the cause is not told: %q", raw)
	}
	if all := s.instances(t); len(all) != 0 {
		t.Errorf("instances left: %+v", all)
	}
	if left, _ := filepath.Glob(filepath.Join(s.config.Dir, "*")); len(left) != 0 {
		t.Errorf("files left: %v", left)
	}
	branches, err := s.vault.Branches(t.Context(), bad)
	if err != nil || fmt.Sprint(branches) != "[main]" {
		t.Errorf("branches left: %v, %v", branches, err)
	}
	server, err := s.db.SourceServer(t.Context(), account, bad)
	if err != nil || server.LastLaunchResult != drs.LastLaunchFailed || server.RecoveryInstance != "" {
		t.Errorf("server: %s %q, %v", server.LastLaunchResult, server.RecoveryInstance, err)
	}

	s.machines.refuse = nil
	if job, _ := s.launch(t, ask(good, bad)); job.Servers[0].Status != drs.LaunchLaunched || job.Servers[1].Status != drs.LaunchLaunched {
		t.Errorf("after the cause is gone: %+v", job.Servers)
	}
}

// A damaged recovery point fails its own server's launch with the damage named,
// and no other.
func TestADamagedPointIsNamed(t *testing.T) {
	s := newSite(t)
	good, _ := s.protect(t, "good")
	bad, _ := s.protect(t, "bad")
	err := filepath.Walk(filepath.Join(filepath.Dir(s.config.Dir), "vault"), func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() || !strings.Contains(path, string(bad)) {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		content[len(content)/2] ^= 1
		return os.WriteFile(path, content, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	s.stop()
	s.reopenVault(t)
	s.run(t)
	job, log := s.launch(t, ask(bad, good))
	if job.Servers[0].Status != drs.LaunchFailed || job.Servers[1].Status != drs.LaunchLaunched {
		t.Errorf("%+v", job.Servers)
	}
	told := false
	for _, l := range log {
		told = told || l.SourceServer == bad && strings.Contains(l.RawError, "damaged")
	}
	if !told {
		t.Errorf("the damage is not told: %+v", log)
	}
}

func (s *site) reopenVault(t *testing.T) {
	t.Helper()
	s.reopenVaultAs(t, func(store blob.Store) blob.Store { return store })
}

// reopenVaultAs opens the vault anew, on its store as another one.
func (s *site) reopenVaultAs(t *testing.T, as func(blob.Store) blob.Store) {
	t.Helper()
	dir := filepath.Dir(s.config.Dir)
	if err := s.vault.Close(); err != nil {
		t.Fatal(err)
	}
	store, err := blob.OpenDir(filepath.Join(dir, "vault"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := vault.LoadKeyFile(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	if s.vault, err = vault.Open(t.Context(), as(store), keys, vault.Options{}); err != nil {
		t.Fatal(err)
	}
	s.config.Vault = s.vault
}

func TestQuotas(t *testing.T) {
	s := newSite(t)
	s.stop()
	s.config.Quotas = func(drs.Account) drs.Quotas {
		return drs.Quotas{ServersPerJob: 2, ConcurrentJobs: 1, ServersInAllJobs: 2}
	}
	s.run(t)
	one, _ := s.protect(t, "one")
	two, _ := s.protect(t, "two")
	three, _ := s.protect(t, "three")
	refused := func(code drs.QuotaCode, servers ...drs.SourceServerID) {
		t.Helper()
		_, err := s.StartRecovery(t.Context(), account, ask(servers...))
		var e *drs.Error
		if !errors.As(err, &e) || e.Kind != drs.KindQuotaExceeded || e.Quota != code {
			t.Errorf("got %v, want quota %s", err, code)
		}
	}
	refused(drs.QuotaServersPerJob, one, two, three)

	hold := make(chan struct{})
	s.agents[one] = func(ctx context.Context) (drs.RecoveryPoint, error) {
		<-hold
		return drs.RecoveryPoint{}, errNotConnected
	}
	job, err := s.StartRecovery(t.Context(), account, ask(one))
	if err != nil {
		t.Fatal(err)
	}
	refused(drs.QuotaConcurrentJobs, two)
	var e *drs.Error
	if _, err := s.StartRecovery(t.Context(), account, ask(two, one)); !errors.As(err, &e) || e.Kind != drs.KindConflict {
		t.Errorf("a server in a job: %v", err)
	}
	close(hold)
	s.finish(t, job.ID)
	if _, err := s.StartRecovery(t.Context(), account, ask(two)); err != nil {
		t.Error(err)
	}
}

// A job is interrupted by the end of its process while it waits for a point, and
// goes on in the next.
func TestAJobGoesOnInTheNextProcess(t *testing.T) {
	s := newSite(t)
	server, _ := s.protect(t, "one")
	asked := make(chan struct{})
	s.agents[server] = func(ctx context.Context) (drs.RecoveryPoint, error) {
		close(asked)
		<-ctx.Done()
		return drs.RecoveryPoint{}, ctx.Err()
	}
	job, err := s.StartRecovery(t.Context(), account, ask(server))
	if err != nil {
		t.Fatal(err)
	}
	<-asked
	s.stop()
	if now, err := s.db.JobByID(t.Context(), job.ID); err != nil || now.Status != drs.JobStarted {
		t.Errorf("interrupted job: %+v, %v", now, err)
	}
	delete(s.agents, server)
	s.run(t)
	done, log := s.finish(t, job.ID)
	if done.Servers[0].Status != drs.LaunchLaunched {
		t.Errorf("%+v", done.Servers)
	}
	if got := events(log); got != "JOB_START SNAPSHOT_START SNAPSHOT_FAIL USING_PREVIOUS_SNAPSHOT CONVERSION_START CONVERSION_END LAUNCH_START JOB_END" {
		t.Errorf("log: %s", got)
	}
}

func TestTerminate(t *testing.T) {
	s := newSite(t)
	one, _ := s.protect(t, "one")
	two, _ := s.protect(t, "two")
	launched, _ := s.launch(t, ask(one, two))
	var ids []drs.RecoveryInstanceID
	for _, i := range s.instances(t) {
		ids = append(ids, i.ID)
	}

	var e *drs.Error
	for name, bad := range map[string][]drs.RecoveryInstanceID{
		"unknown": {ids[0], "i-00000000000000000"}, "twice": {ids[0], ids[0]},
	} {
		if _, err := s.TerminateRecoveryInstances(t.Context(), account, bad); !errors.As(err, &e) || e.Kind != drs.KindConflict {
			t.Errorf("%s: %v", name, err)
		}
	}
	stranger := drs.Account{ID: "999999999999", Region: account.Region}
	if _, err := s.TerminateRecoveryInstances(t.Context(), stranger, ids); !errors.As(err, &e) || e.Kind != drs.KindConflict {
		t.Errorf("another account: %v", err)
	}

	job, err := s.TerminateRecoveryInstances(t.Context(), account, ids)
	if err != nil {
		t.Fatal(err)
	}
	done, log := s.finish(t, job.ID)
	for _, p := range done.Servers {
		if p.Status != drs.LaunchTerminated || p.Instance == "" {
			t.Errorf("%+v", p)
		}
	}
	if n := strings.Count(events(log), "CLEANUP_END"); n != 2 {
		t.Errorf("log: %s", events(log))
	}
	if left := s.instances(t); len(left) != 0 || len(s.machines.running()) != 0 {
		t.Errorf("left: %+v", left)
	}
	before, err := s.db.JobByID(t.Context(), launched.ID)
	if err != nil || before.Servers[0].Status != drs.LaunchTerminated {
		t.Errorf("the launch job says %+v, %v", before.Servers, err)
	}
	server, err := s.db.SourceServer(t.Context(), account, one)
	if err != nil || server.RecoveryInstance != "" || server.LifeCycle.LastLaunch.Status != drs.LaunchTerminated ||
		server.LastLaunchResult != drs.LastLaunchSucceeded {
		t.Errorf("server: %+v, %v", server.LifeCycle.LastLaunch, err)
	}
}

// One job takes all the servers that the API allows.
func TestTwoHundredServersInOneJob(t *testing.T) {
	s := newSite(t)
	var servers []drs.SourceServerID
	for n := range 200 {
		id, _ := s.protect(t, fmt.Sprintf("server-%03d", n))
		servers = append(servers, id)
	}
	begin := time.Now()
	job, err := s.StartRecovery(t.Context(), account, ask(servers...))
	if err != nil {
		t.Fatal(err)
	}
	answered := time.Since(begin)
	done, _ := s.finish(t, job.ID)
	t.Logf("answered after %s, all launched after %s", answered, time.Since(begin))
	for _, p := range done.Servers {
		if p.Status != drs.LaunchLaunched {
			t.Fatalf("%+v", p)
		}
	}
	if n := len(s.machines.running()); n != len(servers) {
		t.Errorf("%d machines run", n)
	}
}
