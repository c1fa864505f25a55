package ingest_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
	"lifeboat/internal/ingest"
)

// registerOfSerials accepts the certificate shown last and the one issued last, as
// the database does.
type registerOfSerials struct {
	mu               sync.Mutex
	current, offered string
	fail             error // what issuing ends with, once
	issued           int
}

func (g *registerOfSerials) configure(authority *iam.Authority) func(*ingest.Config) {
	return func(c *ingest.Config) {
		c.Revoked = func(_ context.Context, _ drs.SourceServerID, certificate *x509.Certificate) error {
			g.mu.Lock()
			defer g.mu.Unlock()
			switch shown := certificate.SerialNumber.String(); {
			case g.current == "" || shown == g.current:
				g.current = shown
			case shown == g.offered:
				g.current, g.offered = shown, ""
			default:
				return &drs.Error{Kind: drs.KindAccessDenied, Message: "not the last one"}
			}
			return nil
		}
		c.Renew = func(_ context.Context, server drs.SourceServerID, _ *x509.Certificate, csr []byte) ([]byte, error) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.issued++
			if err := g.fail; err != nil {
				g.fail = nil
				return nil, err
			}
			text, err := authority.IssueAgent(csr, iam.Agent{Account: account.ID, SourceServer: server}, iam.AgentCertificateLife)
			if err != nil {
				return nil, err
			}
			block, _ := pem.Decode(text)
			certificate, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, err
			}
			g.offered = certificate.SerialNumber.String()
			return text, nil
		}
	}
}

func (g *registerOfSerials) serials() (current, offered string, issued int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.current, g.offered, g.issued
}

func kept(t *testing.T, state string) (certificate string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(state, "identity.json"))
	if err != nil {
		t.Fatal(err)
	}
	var id struct{ Certificate string }
	if err := json.Unmarshal(raw, &id); err != nil {
		t.Fatal(err)
	}
	return id.Certificate
}

// until polls what another goroutine does, which gives no signal.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}

// An agent renews its certificate well before it expires, without a break in its
// replication, and whichever of the two certificates a crash leaves it is good.
func TestCertificateIsRenewed(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	var serials registerOfSerials
	r.stop()
	r.configure = serials.configure(r.authority)
	r.start()
	state := t.TempDir()
	cfg := r.config(state, image(t, 8<<20, seed(t)))
	var ahead atomic.Int64
	cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }

	a := runAgent(cfg)
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	first := kept(t, state)
	raw, err := os.ReadFile(filepath.Join(state, "identity.json"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, issued := serials.serials(); issued != 0 {
		t.Errorf("%d certificates issued to an agent with a fresh one", issued)
	}

	// The server cannot, at first; the agent asks again, an hour later.
	serials.mu.Lock()
	serials.fail = errors.New("the database is read-only")
	serials.mu.Unlock()
	ahead.Store(int64(300 * 24 * time.Hour))
	until(t, "a request", func() bool { _, _, issued := serials.serials(); return issued == 1 })
	ahead.Add(int64(61 * time.Minute))
	until(t, "the next certificate on the disk", func() bool { return kept(t, state) != first })
	if current, offered, _ := serials.serials(); current == "" || offered == "" || current == offered {
		t.Errorf("certificates %q and %q are good", current, offered)
	}
	r.takePoint(server) // the session goes on
	a.stop(t)

	// As if the machine had crashed before the new one was on its disk.
	renewed, err := os.ReadFile(filepath.Join(state, "identity.json"))
	if err != nil {
		t.Fatal(err)
	}
	identity := filepath.Join(state, "identity.json")
	if err := os.WriteFile(identity, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	ahead.Store(0)
	a = runAgent(cfg)
	r.takePoint(server)
	a.stop(t)

	// And after: from then on the old one is good for nothing.
	if err := os.WriteFile(identity, renewed, 0o600); err != nil {
		t.Fatal(err)
	}
	a = runAgent(cfg)
	r.takePoint(server)
	a.stop(t)
	if err := os.WriteFile(identity, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	refusedWith(t, cfg, "not the last one")
}
