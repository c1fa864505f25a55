package ingest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
	"lifeboat/internal/ingest"
	"lifeboat/internal/replication"
	"lifeboat/internal/source/agent"
)

// refusedWith expects that an agent does not start, for a reason that names the
// next step.
func refusedWith(t *testing.T, cfg agent.Config, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := agent.Run(ctx, cfg)
	if err == nil {
		t.Fatal("the agent ran")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func TestRegistrationRefusals(t *testing.T) {
	r := newRig(t, nil)
	disk := image(t, 4<<20, seed(t))
	other, err := iam.CreateAuthority(mkdir(t, "other"))
	if err != nil {
		t.Fatal(err)
	}
	otherCA := filepath.Join(t.TempDir(), "ca.pem")
	os.WriteFile(otherCA, other.CertPEM(), 0o600)
	nobody := listen(t)
	nobody.Close()

	for _, test := range []struct {
		name   string
		change func(*agent.Config)
		want   []string
	}{
		{"token", func(c *agent.Config) { c.Token = "old" }, []string{"expired", "lifeboat env"}},
		{"no token", func(c *agent.Config) { c.Token = "" }, []string{"lifeboat env", "--token"}},
		{"unreachable", func(c *agent.Config) { c.Server = "https://" + nobody.Addr().String() }, []string{"cannot be reached", "check"}},
		{"untrusted", func(c *agent.Config) { c.CAFile = otherCA }, []string{"not signed by", "--ca-cert"}},
		{"no CA file", func(c *agent.Config) { c.CAFile = otherCA + "x" }, []string{"--ca-cert", "no such file"}},
		{"not https", func(c *agent.Config) { c.Server = "http://" + r.apiAddr }, []string{"https"}},
		{"no disk", func(c *agent.Config) { c.Disks = []string{disk + "x"} }, []string{"gone", "no such file"}},
		{"directory", func(c *agent.Config) { c.Disks = []string{filepath.Dir(disk)} }, []string{"neither a block device nor a disk image"}},
		{"twice", func(c *agent.Config) { c.Disks = []string{disk, disk} }, []string{"twice"}},
		{"tracker", func(c *agent.Config) { c.Tracker = "magic" }, []string{"magic", "--tracker scan"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := r.config(filepath.Join(t.TempDir(), "state"), disk)
			test.change(&cfg)
			refusedWith(t, cfg, test.want...)
			if _, err := os.Stat(filepath.Join(cfg.State, "identity.json")); err == nil {
				t.Error("a refused agent has an identity")
			}
		})
	}
	if servers, err := r.vault.Servers(context.Background()); err != nil || len(servers) != 0 {
		t.Errorf("refused agents made servers: %v, %v", servers, err)
	}
}

func mkdir(t *testing.T, name string) string {
	dir := filepath.Join(t.TempDir(), name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Refusals of the account reach the user in the server's words.
func TestRegistrationOfUninitializedAccount(t *testing.T) {
	r := newRig(t, nil)
	handler := registrar(r.authority, r.vault, r.backend).(ingest.Registrar)
	handler.Register = func(context.Context, drs.Account, replication.Registration) (drs.SourceServerID, error) {
		return "", drs.Uninitialized()
	}
	r.register(handler)
	refusedWith(t, r.config(t.TempDir(), image(t, 4<<20, seed(t))), "not initialized", "InitializeService")
}

func TestRegistrarChecksWhatItIsSent(t *testing.T) {
	r := newRig(t, nil)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.authority.CertPEM())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	good := replication.Registration{
		Token: goodToken, HardwareID: "machine:1", CSR: csr(t),
		Inventory: drs.SourceProperties{Hostname: "h", Disks: []drs.Disk{{Device: "/dev/sda", Bytes: 1 << 20}}},
	}
	post := func(body []byte) (int, string) {
		reply, err := client.Post("https://"+r.apiAddr+replication.RegisterPath, "application/json", strings.NewReader(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		defer reply.Body.Close()
		text, _ := io.ReadAll(reply.Body)
		return reply.StatusCode, string(text)
	}
	for _, test := range []struct {
		name   string
		change func(*replication.Registration)
		status int
		want   string
	}{
		{"good", func(*replication.Registration) {}, 201, "s-"},
		{"token", func(r *replication.Registration) { r.Token = "x" }, 401, "expired"},
		{"csr", func(r *replication.Registration) { r.CSR = "x" }, 400, "CERTIFICATE REQUEST"},
		{"hardware", func(r *replication.Registration) { r.HardwareID = "" }, 400, "hardwareID"},
		{"no disks", func(r *replication.Registration) { r.Inventory.Disks = nil }, 400, "inventory.disks"},
		{"negative", func(r *replication.Registration) { r.Inventory.Disks[0].Bytes = -1 }, 400, "size"},
	} {
		t.Run(test.name, func(t *testing.T) {
			reg := good
			reg.Inventory.Disks = append([]drs.Disk(nil), good.Inventory.Disks...)
			test.change(&reg)
			body, _ := json.Marshal(reg)
			if status, text := post(body); status != test.status || !strings.Contains(text, test.want) {
				t.Errorf("%d %s", status, text)
			}
		})
	}
	if status, _ := post([]byte("{")); status != 400 {
		t.Errorf("broken JSON: %d", status)
	}
	if status, _ := post(make([]byte, replication.MaxRegistration+1)); status != 413 {
		t.Errorf("too large: %d", status)
	}
}

func newAgentKey(t *testing.T) (*ecdsa.PrivateKey, string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func csr(t *testing.T) string { _, csr := newAgentKey(t); return csr }

// certificate issues an agent certificate by hand.
func certificate(t *testing.T, a *iam.Authority, server drs.SourceServerID, life time.Duration) tls.Certificate {
	t.Helper()
	key, request := newAgentKey(t)
	chain, err := a.IssueAgent([]byte(request), iam.Agent{Account: account.ID, SourceServer: server}, life)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// greet opens a session by hand and returns the server's welcome.
func (r *rig) greet(t *testing.T, cert ...tls.Certificate) (*replication.Conn, *replication.Welcome, error) {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.authority.CertPEM())
	conn, err := replication.Dial(context.Background(), r.backend, &tls.Config{RootCAs: pool, Certificates: cert})
	if err != nil {
		return nil, nil, err
	}
	t.Cleanup(func() { conn.Close() })
	welcome, err := conn.Greet(replication.Hello{Software: "by hand"}, nil)
	return conn, welcome, err
}

const someServer drs.SourceServerID = "s-00000000000000001"

func TestCertificates(t *testing.T) {
	r := newRig(t, nil)
	r.make(t, someServer)
	foreign, err := iam.CreateAuthority(mkdir(t, "foreign"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.greet(t, certificate(t, r.authority, someServer, time.Hour)); err != nil {
		t.Errorf("good certificate: %v", err)
	}
	for name, cert := range map[string][]tls.Certificate{
		"none":    nil,
		"expired": {certificate(t, r.authority, someServer, -time.Minute)},
		"foreign": {certificate(t, foreign, someServer, time.Hour)},
		"server":  {r.cert},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := r.greet(t, cert...); err == nil || !replication.IsRemoteAlert(err) {
				t.Errorf("want a TLS alert, got %v", err)
			}
		})
	}
	// An old protocol is no way in either.
	config := &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, NextProtos: []string{replication.ALPN}}
	if conn, err := tls.Dial("tcp", r.backend, config); err == nil {
		conn.Close()
		t.Error("TLS 1.2 was accepted")
	}
}

// An agent whose certificate runs out says so and stops.
func TestAgentWithExpiredCertificate(t *testing.T) {
	r := newRig(t, nil)
	r.authority.SetClock(func() time.Time { return time.Now().Add(-iam.AgentCertificateLife - time.Hour) })
	refusedWith(t, r.config(t.TempDir(), image(t, 4<<20, seed(t))), "expired", "clock says", "fresh install token")
}

// A certificate opens its own server only: whatever volumes are named, they are
// that server's.
func TestAgentTouchesOnlyItsServer(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	disk := image(t, 4<<20, seed(t))
	a := runAgent(r.config(t.TempDir(), disk))
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	victim := r.only()
	a.stop(t)
	point := r.catalog.points[victim][0]

	r.make(t, someServer)
	conn, welcome, err := r.greet(t, certificate(t, r.authority, someServer, time.Hour))
	if err != nil || welcome.HeadNumber != 1 {
		t.Fatalf("welcome %+v, %v", welcome, err)
	}
	for _, m := range []replication.Message{
		&replication.Disks{Disks: []replication.Disk{{Device: disk, Size: 4 << 20}}},
		&replication.Begin{Epoch: 1},
		&replication.Zero{Volume: 0, Block: 0, Count: 1024},
		&replication.Commit{Epoch: 1, Point: true, Consistency: replication.ConsistencyCrash, Taken: time.Now()},
	} {
		if err := conn.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	for {
		m, err := conn.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if v, ok := m.(*replication.Volumes); ok && v.Volumes[0].Known {
			t.Error("a new server knows a disk")
		}
		if _, ok := m.(*replication.Ack); ok {
			break
		}
	}
	points, err := r.vault.Points(context.Background(), victim)
	if err != nil || len(points) != 1 {
		t.Fatalf("the other server's points: %v, %v", points, err)
	}
	wantContent(t, r.vault, point, disk)
}

// What breaks the protocol ends the session and nothing else.
func TestProtocolViolations(t *testing.T) {
	r := newRig(t, nil)
	r.make(t, someServer)
	disks := &replication.Disks{Disks: []replication.Disk{{Device: "/dev/sda", Size: 1 << 20}}}
	block := func(b uint64) *replication.Data {
		return &replication.Data{Extents: []replication.Extent{{Block: b, Count: 1}}, RawLen: 4096, Payload: make([]byte, 4096)}
	}
	for name, messages := range map[string][]replication.Message{
		"begin without disks":   {&replication.Begin{Epoch: 1}},
		"data outside an epoch": {disks, block(0)},
		"data past the end":     {disks, &replication.Begin{Epoch: 1}, block(256)},
		"zeros past the end":    {disks, &replication.Begin{Epoch: 1}, &replication.Zero{Block: 255, Count: 2}},
		"foreign volume":        {disks, &replication.Begin{Epoch: 1}, &replication.Zero{Volume: 7, Count: 1}},
		"commit of another":     {disks, &replication.Begin{Epoch: 1}, &replication.Commit{Epoch: 2}},
		"epoch again":           {disks, &replication.Begin{Epoch: 1}, &replication.Begin{Epoch: 1}},
		"digests of nothing":    {disks, &replication.DigestRequest{Volume: 0, First: 1 << 60, Count: 8192}},
		"disk twice":            {&replication.Disks{Disks: []replication.Disk{{Device: "/dev/sda", Size: 1}, {Device: "/dev/sda", Size: 1}}}},
		"empty disk":            {&replication.Disks{Disks: []replication.Disk{{Device: "/dev/sda"}}}},
		"server's message":      {&replication.Ack{Epoch: 1}},
		"second hello":          {&replication.Hello{MinVersion: 1, MaxVersion: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			conn, _, err := r.greet(t, certificate(t, r.authority, someServer, time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range messages {
				conn.Send(m) // the server may have left by now
			}
			for {
				_, err := conn.Receive()
				if err == nil {
					continue
				}
				var told *replication.Error
				if !errors.As(err, &told) || told.Code != replication.CodeProtocol {
					t.Errorf("told %v", err)
				}
				return
			}
		})
	}
}

// Of two agents with one identity the newer goes on and the older is told.
func TestTwoAgentsWithOneIdentity(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	disk := image(t, 8<<20, seed(t))
	cfg := r.config(t.TempDir(), disk)
	older := runAgent(cfg)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()

	refusedWith(t, cfg, "in use by another agent") // the same state directory

	clone := cfg
	clone.State = t.TempDir()
	raw, err := os.ReadFile(filepath.Join(cfg.State, "identity.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(clone.State, "identity.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	newer := runAgent(clone)
	defer newer.stop(t)
	select {
	case err := <-older.err:
		if !errors.Is(err, agent.ErrSuperseded) {
			t.Errorf("the older agent ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the older agent was not told")
	}
	wantContent(t, r.vault, r.takePoint(server), disk)
}

// A machine that lost its state directory registers again and stays the same
// server; a damaged directory is refused, not replaced.
func TestStateDirectory(t *testing.T) {
	r := newRig(t, nil)
	disk := image(t, 4<<20, seed(t))
	cfg := r.config(filepath.Join(t.TempDir(), "new"), disk)
	a := runAgent(cfg)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	a.stop(t)

	again := cfg
	again.State = t.TempDir()
	a = runAgent(again)
	r.takePoint(server)
	a.stop(t)
	if r.only() != server {
		t.Error("the same machine became another server")
	}

	file := filepath.Join(cfg.State, "identity.json")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("identity file: %v, %v", info.Mode(), err)
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(good, &fields); err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(filepath.Join(again.State, "identity.json"))
	if err != nil {
		t.Fatal(err)
	}
	var foreign map[string]any
	json.Unmarshal(other, &foreign)
	for name, change := range map[string]func() []byte{
		"empty":       func() []byte { return nil },
		"cut":         func() []byte { return good[:len(good)/2] },
		"not its key": func() []byte { m := clone(fields); m["key"] = foreign["key"]; b, _ := json.Marshal(m); return b },
		"not its id": func() []byte {
			m := clone(fields)
			m["sourceServerID"] = string(someServer)
			b, _ := json.Marshal(m)
			return b
		},
		"no CA":       func() []byte { m := clone(fields); m["ca"] = ""; b, _ := json.Marshal(m); return b },
		"more fields": func() []byte { m := clone(fields); m["x"] = 1; b, _ := json.Marshal(m); return b },
	} {
		t.Run(name, func(t *testing.T) {
			bad := change()
			os.WriteFile(file, bad, 0o600)
			refusedWith(t, cfg, "damaged", "fresh install token")
			if now, err := os.ReadFile(file); err != nil || string(now) != string(bad) {
				t.Error("the damaged file was touched")
			}
		})
	}
	os.Remove(file)
	os.WriteFile(filepath.Join(cfg.State, "identity.json.bak"), good, 0o600)
	refusedWith(t, cfg, "damaged", "identity.json.bak")
	os.Remove(filepath.Join(cfg.State, "identity.json.bak"))
	os.WriteFile(file, good, 0o600)

	// The history of one disk is not continued with another.
	wrong := cfg
	wrong.Disks = []string{image(t, 4<<20, seed(t))}
	refusedWith(t, wrong, disk, "--state")
}

func clone(m map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

// Two images on one host are two servers.
func TestImagesOnOneHostAreServersOfTheirOwn(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	for range 2 {
		a := runAgent(r.config(t.TempDir(), image(t, 4<<20, seed(t))))
		defer a.stop(t)
	}
	r.catalog.await(t, "two servers", func() bool { return len(r.catalog.points) == 2 })
}

// A server that the catalogue does not admit is refused for good.
func TestServerThatMayNotReplicate(t *testing.T) {
	r := newRig(t, nil)
	r.catalog.refusal = drs.Conflict(drs.TypeSourceServer, string(someServer), "Replication of the server is stopped. Call StartReplication first.")
	refusedWith(t, r.config(t.TempDir(), image(t, 4<<20, seed(t))), "StartReplication")
}

// A server that moved to another port is found again.
func TestServerMoves(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	disk := image(t, 4<<20, seed(t))
	r.direct()
	a := runAgent(r.config(t.TempDir(), disk))
	defer a.stop(t)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server, old := r.only(), r.backend
	r.stop()
	r.start()
	if r.backend == old {
		t.Fatal("the server did not move")
	}
	r.direct()
	wantContent(t, r.vault, r.takePoint(server), disk)
}

// A branch that the vault has lost is told of, and not made anew in silence.
func TestLostBranchIsNotMadeAnew(t *testing.T) {
	r := newRig(t, nil)
	_, _, err := r.greet(t, certificate(t, r.authority, someServer, time.Hour))
	if err == nil || !strings.Contains(err.Error(), "lost") || !strings.Contains(err.Error(), "restore") {
		t.Errorf("got %v", err)
	}
	if servers, err := r.vault.Servers(t.Context()); err != nil || len(servers) != 0 {
		t.Errorf("servers in the vault: %v, %v", servers, err)
	}
}

// An agent that is pointed at another server than its own says so, and does not
// go on with its own as if it had been obeyed.
func TestAgentOfAnotherServer(t *testing.T) {
	mine, other := newRig(t, nil), newRig(t, nil)
	state, disk := t.TempDir(), image(t, 4<<20, seed(t))
	a := runAgent(mine.config(state, disk))
	mine.catalog.await(t, "the first point", func() bool { return len(mine.catalog.points) == 1 })
	a.stop(t)
	refusedWith(t, other.config(state, disk), "not the server that this agent is registered at", "empty --state")
}
