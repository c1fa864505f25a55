package ingest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/ingest"
	"lifeboat/internal/replication"
)

// stuckVault opens branches only while it is not held, whatever becomes of the context.
type stuckVault struct {
	ingest.Vault
	mu   sync.Mutex
	held chan struct{} // nil: it is not held
}

func (v *stuckVault) hold() (release func()) {
	held := make(chan struct{})
	v.mu.Lock()
	defer v.mu.Unlock()
	v.held = held
	return sync.OnceFunc(func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.held = nil
		close(held)
	})
}

func (v *stuckVault) OpenBranch(ctx context.Context, server drs.SourceServerID) (ingest.Branch, error) {
	v.mu.Lock()
	held := v.held
	v.mu.Unlock()
	if held != nil {
		<-held
	}
	return v.Vault.OpenBranch(ctx, server)
}

// logBuffer is a log that a test reads.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) await(t *testing.T, texts ...string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for _, text := range texts {
		for {
			l.mu.Lock()
			got := l.b.String()
			l.mu.Unlock()
			if strings.Contains(got, text) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the log does not say %q:\n%s", text, got)
			}
			time.Sleep(10 * time.Millisecond) // a log gives no signal
		}
	}
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// An agent whose branch the vault does not open is told so, and so are the API's users;
// when the vault answers again, it comes in by itself.
func TestAgentIsNotLeftWaitingForTheVault(t *testing.T) {
	t.Parallel()
	stuck := &stuckVault{}
	r := newRig(t, func(v ingest.Vault) ingest.Vault { stuck.Vault = v; return stuck })
	r.stop()
	var serverLog, agentLog logBuffer
	r.configure = func(c *ingest.Config) { c.AdmitWithin, c.Logger = 300*time.Millisecond, serverLog.logger() }
	r.start()
	release := stuck.hold()
	t.Cleanup(release) // before the rig stops its server, which waits for its sessions
	config := r.config(t.TempDir(), image(t, 4<<20, seed(t)))
	config.Logger = agentLog.logger()
	a := runAgent(config)
	agentLog.await(t, "the server waits for the vault to open this server's branch since 300ms", "connects again by itself")
	serverLog.await(t, "an agent is sent away, to come again")
	r.catalog.await(t, "why it stalls", func() bool {
		for _, info := range r.catalog.info {
			return info.State == drs.ReplicationStalled && info.Error != nil && strings.Contains(info.Error.Raw, "the vault to open this server's branch")
		}
		return false
	})
	// The next sessions wait for the one that hangs in the vault: none overtakes it.
	agentLog.await(t, "the server waits for the session before to end, which has a write in the vault")
	release()
	r.catalog.await(t, "a point", func() bool { return len(r.catalog.points) == 1 })
	a.stop(t)
}

// A commit that hangs keeps the next session out, and says so.
func TestAgentIsNotLeftWaitingForTheSessionBefore(t *testing.T) {
	t.Parallel()
	f := &faultVault{}
	r := newRig(t, faulty(f))
	r.stop()
	r.configure = func(c *ingest.Config) { c.AdmitWithin = 300 * time.Millisecond }
	r.start()
	disk := image(t, 4<<20, seed(t))
	config, log := r.config(t.TempDir(), disk), &logBuffer{}
	config.Logger = log.logger()
	a := runAgent(config)
	r.catalog.await(t, "a point", func() bool { return len(r.catalog.points) == 1 })
	hang, hangs := make(chan struct{}), make(chan struct{}, 8)
	f.set(nil, func(do func() error) error {
		hangs <- struct{}{}
		<-hang
		return do()
	})
	release := sync.OnceFunc(func() { f.set(nil, nil); close(hang) })
	t.Cleanup(release)
	write(t, disk, []byte("more"), 8192)
	<-hangs
	r.proxy.cut()
	r.proxy.mend()
	log.await(t, "the server waits for the session before to end, which has a write in the vault since 300ms")
	release()
	server := r.only()
	wantContent(t, r.vault, r.takePoint(server), disk)
	a.stop(t)
}

// While it waits, an agent hears that the server lives: one that opens its branch for
// longer than a silence is not left.
func TestHeartbeatsBeforeTheWelcome(t *testing.T) {
	t.Parallel()
	stuck := &stuckVault{}
	r := newRig(t, func(v ingest.Vault) ingest.Vault { stuck.Vault = v; return stuck })
	r.make(t, someServer)
	release := stuck.hold()
	t.Cleanup(release)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.authority.CertPEM())
	conn, err := replication.Dial(t.Context(), r.backend, &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{certificate(t, r.authority, someServer, time.Hour)}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	waited := 0
	welcome, err := conn.Greet(replication.Hello{Software: "by hand"}, func() { waited++; release() })
	if err != nil || waited == 0 || welcome.HeadNumber == 0 {
		t.Errorf("welcome %+v after %d heartbeats, %v", welcome, waited, err)
	}
}

// Peers that stop talking at any step keep no agent out.
func TestSilentPeersKeepNobodyOut(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	disk := image(t, 4<<20, seed(t))
	state := t.TempDir()
	a := runAgent(r.config(state, disk))
	r.catalog.await(t, "a point", func() bool { return len(r.catalog.points) == 1 })
	a.stop(t)
	server := r.only()

	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.authority.CertPEM())
	config := &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{certificate(t, r.authority, server, time.Hour)}}
	for range 4 {
		raw, err := net.Dial("tcp", r.backend) // says nothing at all
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		silent, err := replication.Dial(t.Context(), r.backend, config) // says no hello
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}
	deaf, err := replication.Dial(t.Context(), r.backend, config) // is welcome, and then gone
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	if _, err := deaf.Greet(replication.Hello{Software: "deaf"}, nil); err != nil {
		t.Fatal(err)
	}
	a = runAgent(r.config(state, disk))
	write(t, disk, []byte("more"), 8192)
	wantContent(t, r.vault, r.takePoint(server), disk)
	a.stop(t)
}

// hangingPeer takes connections and goes so far with them, and no further.
func hangingPeer(t *testing.T, further func(net.Conn)) string {
	l := listen(t)
	var conns []net.Conn
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns = append(conns, c)
			if further != nil {
				go further(c)
			}
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-ended
		for _, c := range conns {
			c.Close()
		}
	})
	return l.Addr().String()
}

// A server that hangs at any step is given up, with a word about which, and tried again.
func TestAgentGivesUpAServerThatHangs(t *testing.T) {
	t.Parallel()
	for _, step := range []struct {
		name, says string
		further    func(r *rig, c net.Conn)
	}{
		{"before TLS", "TLS with", nil},
		{"before the welcome", "does not say whether this agent may come in", func(r *rig, c net.Conn) {
			conn, _, err := replication.Accept(context.Background(), c, r.authority.AgentTLS(r.cert))
			if err == nil {
				_, _, _ = conn.AwaitHello() // and no word more
			}
		}},
	} {
		t.Run(step.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			address := hangingPeer(t, func(c net.Conn) {
				if step.further != nil {
					step.further(r, c)
				}
			})
			r.register(registrar(r.authority, r.vault, address))
			log := &logBuffer{}
			config := r.config(t.TempDir(), image(t, 4<<20, seed(t)))
			config.Logger = log.logger()
			a := runAgent(config)
			log.await(t, step.says, "retry_in")
			a.stop(t)
		})
	}
	t.Run("before it registers", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, nil)
		config := r.config(t.TempDir(), image(t, 4<<20, seed(t)))
		config.Server = "https://" + hangingPeer(t, nil)
		a := runAgent(config)
		defer a.cancel()
		select {
		case err := <-a.err:
			if err == nil || !strings.Contains(err.Error(), "takes the connection and does not answer: check that --server names a Lifeboat server") {
				t.Errorf("ended with %v", err)
			}
		case <-time.After(patience):
			t.Error("it waits for ever")
		}
	})
}

// A registration that was lost on the way is sent again.
func TestRegistrationIsSentAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	whole := registrar(r.authority, r.vault, r.backend)
	var calls atomic.Int64
	r.register(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if calls.Add(1) < 3 {
			panic(http.ErrAbortHandler) // the connection ends without a word
		}
		whole.ServeHTTP(w, request)
	}))
	log := &logBuffer{}
	config := r.config(t.TempDir(), image(t, 4<<20, seed(t)))
	config.Logger = log.logger()
	a := runAgent(config)
	log.await(t, "sent again", "tries_left=1")
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	a.stop(t)
}
