package ingest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
	"lifeboat/internal/ingest"
	"lifeboat/internal/replication"
	"lifeboat/internal/source/agent"
	"lifeboat/internal/source/inventory"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
)

var account = drs.Account{ID: "123456789012", Region: "us-east-1"}

// memCatalog behaves as the database does, and tells what it was told.
type memCatalog struct {
	mu       sync.Mutex
	settings ingest.Settings
	refusal  error
	asked    int // times that an agent was to be admitted
	info     map[drs.SourceServerID]drs.DataReplicationInfo
	states   map[drs.SourceServerID][]drs.ReplicationState // each change
	reports  map[drs.SourceServerID]int
	late     []string // reports that no rule allows
	points   map[drs.SourceServerID][]drs.RecoveryPoint
	props    map[drs.SourceServerID]drs.SourceProperties
	changed  chan struct{}
	// beforeReport, when set, is called before a report is taken in.
	beforeReport func(drs.DataReplicationInfo)
}

func newMemCatalog() *memCatalog {
	return &memCatalog{
		info:    map[drs.SourceServerID]drs.DataReplicationInfo{},
		states:  map[drs.SourceServerID][]drs.ReplicationState{},
		reports: map[drs.SourceServerID]int{},
		points:  map[drs.SourceServerID][]drs.RecoveryPoint{},
		props:   map[drs.SourceServerID]drs.SourceProperties{},
		changed: make(chan struct{}),
	}
}

func (c *memCatalog) Admit(_ context.Context, _ string, server drs.SourceServerID) (ingest.Admission, error) {
	var admission ingest.Admission
	var refusal error
	c.change(func() {
		c.asked++
		admission, refusal = ingest.Admission{Replication: c.info[server], Settings: c.settings}, c.refusal
	})
	return admission, refusal
}

func (c *memCatalog) UpdateProperties(_ context.Context, server drs.SourceServerID, p drs.SourceProperties) error {
	c.change(func() { c.props[server] = p })
	return nil
}

func (c *memCatalog) ReportReplication(_ context.Context, server drs.SourceServerID, info drs.DataReplicationInfo, _ time.Time) error {
	c.mu.Lock()
	before := c.beforeReport
	c.mu.Unlock()
	if before != nil {
		before(info)
	}
	c.change(func() {
		c.reports[server]++
		was, known := c.info[server]
		if _, err := was.State.Next(info.State); known && err != nil {
			c.late = append(c.late, err.Error())
			return
		}
		if states := c.states[server]; len(states) == 0 || states[len(states)-1] != info.State {
			c.states[server] = append(states, info.State)
		}
		c.info[server] = info
	})
	return nil
}

func (c *memCatalog) AddPoint(_ context.Context, p drs.RecoveryPoint) error {
	c.change(func() {
		known := func(q drs.RecoveryPoint) bool { return q.ID == p.ID }
		if !slices.ContainsFunc(c.points[p.SourceServer], known) {
			c.points[p.SourceServer] = append(c.points[p.SourceServer], p)
		}
	})
	return nil
}

func (c *memCatalog) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

// await waits until the condition, called under the lock, holds.
func (c *memCatalog) await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		c.mu.Lock()
		ok, changed := holds(), c.changed
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			c.mu.Lock()
			defer c.mu.Unlock()
			t.Fatalf("waited %s for %s; states %v, info %+v", patience, what, c.states, c.info)
		}
	}
}

// patience is how long a test waits before it calls something hung, on a machine that
// others keep busy, too.
const patience = 3 * time.Minute

// rig is a replication server over real TLS on a real vault, and what its agents need.
type rig struct {
	t         testing.TB
	dir       string
	authority *iam.Authority
	cert      tls.Certificate
	vault     *vault.Vault
	catalog   *memCatalog
	server    *ingest.Server
	proxy     *proxy // what agents connect to
	api       *http.Server
	apiAddr   string
	registrar atomic.Pointer[http.Handler]
	backend   string // address of the server itself
	stop      func()
	log       *slog.Logger
	wrap      func(ingest.Vault) ingest.Vault
	configure func(*ingest.Config) // of the server at its next start; nil: as it is
}

func testLog(t testing.TB) *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) { return os.Stderr.Write(p) }

func newRig(t testing.TB, wrap func(ingest.Vault) ingest.Vault) *rig {
	t.Helper()
	return newRigIn(t, t.TempDir(), wrap)
}

func newRigIn(t testing.TB, dir string, wrap func(ingest.Vault) ingest.Vault) *rig {
	t.Helper()
	r := &rig{t: t, dir: dir, catalog: newMemCatalog(), log: testLog(t), wrap: wrap}
	v, authority := openData(t, r.dir)
	r.vault, r.authority = v, authority
	var err error
	if r.cert, err = authority.ServerCertificate(r.dir, nil); err != nil {
		t.Fatal(err)
	}
	r.proxy = newProxy(t)
	r.start()
	t.Cleanup(func() {
		r.stop()
		r.api.Close()
		r.vault.Close()
		if r.catalog.late != nil {
			t.Errorf("reports against the rules: %v", r.catalog.late)
		}
	})
	return r
}

// openData opens what a server keeps in dir, and makes it the first time.
func openData(t testing.TB, dir string) (*vault.Vault, *iam.Authority) {
	t.Helper()
	ctx := context.Background()
	vaultDir, keyFile, caDir := filepath.Join(dir, "vault"), filepath.Join(dir, "key"), filepath.Join(dir, "ca")
	if _, err := os.Stat(keyFile); errors.Is(err, fs.ErrNotExist) {
		keys, err := vault.CreateKeyFile(keyFile)
		if err != nil {
			t.Fatal(err)
		}
		store, err := blob.CreateDir(vaultDir)
		if err != nil {
			t.Fatal(err)
		}
		v, err := vault.Create(ctx, store, keys, vault.Options{})
		if err != nil {
			t.Fatal(err)
		}
		os.Mkdir(caDir, 0o700)
		authority, err := iam.CreateAuthority(caDir)
		if err != nil {
			t.Fatal(err)
		}
		return v, authority
	}
	keys, err := vault.LoadKeyFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	store, err := blob.OpenDir(vaultDir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Open(ctx, store, keys, vault.Options{})
	if err != nil {
		t.Fatal(err)
	}
	authority, err := iam.LoadAuthority(caDir)
	if err != nil {
		t.Fatal(err)
	}
	return v, authority
}

func identify(authority *iam.Authority) func([]*x509.Certificate) (string, drs.SourceServerID, error) {
	return func(chain []*x509.Certificate) (string, drs.SourceServerID, error) {
		who, err := authority.VerifyAgent(chain)
		return who.Account, who.SourceServer, err
	}
}

// make gives a server its place in the vault, as its registration does.
func (r *rig) make(t *testing.T, server drs.SourceServerID) {
	t.Helper()
	if err := r.vault.CreateServer(t.Context(), server); err != nil {
		t.Fatal(err)
	}
}

// start runs the replication server, and the API with the registration.
func (r *rig) start() {
	r.t.Helper()
	backend := ingest.OnVault(r.vault)
	if r.wrap != nil {
		backend = r.wrap(backend)
	}
	config := ingest.Config{
		Vault: backend, Catalog: r.catalog, TLS: r.authority.AgentTLS(r.cert), Identify: identify(r.authority),
		Software: "test", LostAfter: time.Second, Logger: r.log,
	}
	if r.configure != nil {
		r.configure(&config)
	}
	r.server = ingest.New(config)
	l := listen(r.t)
	r.backend = l.Addr().String()
	r.proxy.target(r.backend)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.server.Serve(ctx, l); err != nil {
			r.t.Error(err)
		}
	}()
	r.stop = func() { cancel(); <-done }
	if r.api == nil {
		api := listen(r.t)
		r.apiAddr = api.Addr().String()
		r.register(registrar(r.authority, r.vault, r.proxy.address()))
		handle := func(w http.ResponseWriter, q *http.Request) { (*r.registrar.Load()).ServeHTTP(w, q) }
		r.api = &http.Server{Handler: http.HandlerFunc(handle), ErrorLog: slog.NewLogLogger(r.log.Handler(), slog.LevelDebug)}
		go r.api.Serve(tls.NewListener(api, &tls.Config{Certificates: []tls.Certificate{r.cert}}))
	}
}

// direct makes agents that register from now on replicate without the proxy.
func (r *rig) direct() { r.register(registrar(r.authority, r.vault, r.backend)) }

// register changes what answers registrations.
func (r *rig) register(h http.Handler) { r.registrar.Store(&h) }

const goodToken = "good token"

func registrar(authority *iam.Authority, v *vault.Vault, address string) http.Handler {
	return ingest.Registrar{
		CheckToken: func(token string) (drs.Account, error) {
			if token != goodToken {
				return drs.Account{}, iam.ErrTokenExpired
			}
			return account, nil
		},
		Register: func(_ context.Context, _ drs.Account, r replication.Registration) (drs.SourceServerID, error) {
			sum := sha256.Sum256([]byte(r.HardwareID))
			return drs.SourceServerID("s-" + hex.EncodeToString(sum[:])[:17]), nil
		},
		CreateServer: func(ctx context.Context, server drs.SourceServerID) error {
			if err := v.CreateServer(ctx, server); !errors.Is(err, vault.ErrExists) {
				return err
			}
			return nil
		},
		IssueAgent: func(_ context.Context, csr []byte, account string, server drs.SourceServerID) ([]byte, error) {
			return authority.IssueAgent(csr, iam.Agent{Account: account, SourceServer: server}, iam.AgentCertificateLife)
		},
		CA: authority.CertPEM(), Address: address,
	}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// config is an agent of one image on this rig.
func (r *rig) config(state, disk string) agent.Config {
	ca := filepath.Join(r.dir, "ca.pem")
	if err := os.WriteFile(ca, r.authority.CertPEM(), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return agent.Config{
		Server: "https://" + r.apiAddr, CAFile: ca, Token: goodToken, State: state, Disks: []string{disk},
		Epoch: 100 * time.Millisecond, Logger: r.log,
		Overrides: inventory.Overrides{Hostname: "source"},
	}
}

// running is an agent in this process.
type running struct {
	cancel context.CancelFunc
	err    chan error
}

func runAgent(cfg agent.Config) *running {
	ctx, cancel := context.WithCancel(context.Background())
	a := &running{cancel, make(chan error, 1)}
	go func() { a.err <- agent.Run(ctx, cfg) }()
	return a
}

func (a *running) stop(t testing.TB) {
	t.Helper()
	a.cancel()
	select {
	case err := <-a.err:
		if err != nil {
			t.Errorf("agent: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the agent does not stop")
	}
}

// server is the one source server that the vault has.
func (r *rig) only() drs.SourceServerID {
	r.t.Helper()
	servers, err := r.vault.Servers(context.Background())
	if err != nil || len(servers) != 1 {
		r.t.Fatalf("servers in the vault: %v, %v", servers, err)
	}
	return servers[0]
}

// takePoint asks for a point, for as long as no agent is connected.
func (r *rig) takePoint(server drs.SourceServerID) drs.RecoveryPoint {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		p, err := r.server.TakePoint(ctx, server)
		if err == nil {
			return p
		}
		if !errors.Is(err, ingest.ErrAgentNotConnected) && !errors.Is(err, ingest.ErrNoPoint) || ctx.Err() != nil {
			r.t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // polls the next session; nothing is assumed of when
	}
}

// content reads a whole volume of a point.
func content(t testing.TB, v *vault.Vault, server drs.SourceServerID, point drs.RecoverySnapshotID, volume int) []byte {
	t.Helper()
	image, err := v.OpenPoint(context.Background(), server, point)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	reader, err := image.Volume(image.Volumes()[volume].ID)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, reader.Size())
	if _, err := reader.ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return got
}

// wantContent compares a point with a file, byte for byte.
func wantContent(t testing.TB, v *vault.Vault, p drs.RecoveryPoint, path string) {
	t.Helper()
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := content(t, v, p.SourceServer, p.ID, 0)
	if len(got) != len(want) {
		t.Fatalf("point %s has %d bytes, the disk %d", p.ID, len(got), len(want))
	}
	for off := 0; off < len(want); off += 4096 {
		end := min(off+4096, len(want))
		if !bytes.Equal(got[off:end], want[off:end]) {
			t.Fatalf("point %s differs from the disk in the block at %d", p.ID, off)
		}
	}
}

// image makes a sparse disk image with text, random bytes and zeros.
func image(t testing.TB, size int64, rng *rand.ChaCha8) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	random := make([]byte, min(size/8, 1<<20))
	rng.Read(random)
	text := bytes.Repeat([]byte("all work and no play makes a dull disk\n"), int(min(size/8, 1<<20))/39)
	for _, part := range []struct {
		p   []byte
		off int64
	}{{text, 0}, {random, size / 3}, {text, size / 2}, {random[:len(random)/2], size - int64(len(random)/2)}} {
		if _, err := f.WriteAt(part.p, part.off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func write(t testing.TB, path string, p []byte, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

func seed(t testing.TB) *rand.ChaCha8 {
	return seeded(t, rand.Uint64())
}

func seeded(t testing.TB, n uint64) *rand.ChaCha8 {
	t.Logf("seed %d", n)
	var key [32]byte
	for i := range 8 {
		key[i] = byte(n >> (8 * i))
	}
	return rand.NewChaCha8(key)
}
