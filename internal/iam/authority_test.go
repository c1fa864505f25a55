package iam

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/drs"
)

func newAuthority(t *testing.T) (*Authority, string) {
	t.Helper()
	dir := t.TempDir()
	a, err := CreateAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a, dir
}

func TestAuthority(t *testing.T) {
	made, dir := newAuthority(t)
	kept, err := LoadAuthority(dir)
	if err != nil || !kept.cert.Equal(made.cert) {
		t.Fatalf("kept another authority: %v", err)
	}
	if _, err := CreateAuthority(dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create again: %v", err)
	}
	if _, err := LoadAuthority(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("load from an empty directory: %v", err)
	}
	for _, name := range []string{authorityCertFile, authorityKeyFile} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// A half-created or damaged authority is refused by loading and by creating.
func TestAuthorityDamaged(t *testing.T) {
	_, foreign := newAuthority(t)
	cases := map[string]func(cert, key string) error{
		"no certificate": func(cert, _ string) error { return os.Remove(cert) },
		"no key":         func(_, key string) error { return os.Remove(key) },
		"empty key":      func(_, key string) error { return os.Truncate(key, 0) },
		"another key": func(_, key string) error {
			return os.Rename(filepath.Join(foreign, authorityKeyFile), key)
		},
		"cut certificate": func(cert, _ string) error { return os.Truncate(cert, 100) },
	}
	for name, damage := range cases {
		_, dir := newAuthority(t)
		if err := damage(filepath.Join(dir, authorityCertFile), filepath.Join(dir, authorityKeyFile)); err != nil {
			t.Fatal(err)
		}
		var damaged *DamagedError
		if _, err := LoadAuthority(dir); !errors.As(err, &damaged) {
			t.Errorf("%s: load: %v", name, err)
		}
		if _, err := CreateAuthority(dir); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: create: %v", name, err)
		}
	}
}

func TestServerCertificate(t *testing.T) {
	a, dir := newAuthority(t)
	now := time.Now()
	a.SetClock(func() time.Time { return now })
	issue := func(hosts ...string) tls.Certificate {
		t.Helper()
		c, err := a.ServerCertificate(dir, hosts)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := issue("Vault.example.org", "192.0.2.7", "0.0.0.0", "::", "127.0.0.1")
	for _, host := range []string{"localhost", "127.0.0.1", "::1", "10.0.2.2", "vault.example.org", "192.0.2.7"} {
		_, err := first.Leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), DNSName: host, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
		if err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if err := first.Leaf.VerifyHostname("0.0.0.0"); err == nil {
		t.Error("it is good for the address that means all")
	}
	if again := issue("vault.example.org", "192.0.2.7"); !again.Leaf.Equal(first.Leaf) {
		t.Error("the same hosts got another certificate")
	}
	second := issue("vault.example.org")
	if second.Leaf.Equal(first.Leaf) || second.Leaf.VerifyHostname("192.0.2.7") == nil {
		t.Error("fewer hosts got the same certificate")
	}
	now = now.Add(serverCertLife - serverCertRenew + time.Hour)
	third := issue("vault.example.org")
	if third.Leaf.Equal(second.Leaf) {
		t.Error("a certificate near its end was kept")
	}
	if err := os.WriteFile(filepath.Join(dir, serverFile), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if fourth := issue("vault.example.org"); fourth.Leaf.Equal(third.Leaf) {
		t.Error("impossible")
	}
}

// OpenSSL in its strict mode is what Python and Node may hold certificates
// against.
func TestStrictVerifiers(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	a, dir := newAuthority(t)
	if _, err := a.ServerCertificate(dir, nil); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(openssl, "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "localhost",
		"-CAfile", AuthorityCertFile(dir), filepath.Join(dir, serverFile)).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func request(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func ecKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// agentPair is an agent's certificate with its key.
func agentPair(t *testing.T, a *Authority, agent Agent, life time.Duration) tls.Certificate {
	t.Helper()
	key := ecKey(t, elliptic.P256())
	certPEM, err := a.IssueAgent(request(t, key), agent, life)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(certPEM)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key, Leaf: leaf}
}

func TestAgentCertificate(t *testing.T) {
	a, dir := newAuthority(t)
	foreign, _ := newAuthority(t)
	agent := Agent{Account: account.ID, SourceServer: drs.NewSourceServerID()}
	good := agentPair(t, a, agent, time.Hour)
	if got, err := a.VerifyAgent([]*x509.Certificate{good.Leaf}); err != nil || got != agent {
		t.Errorf("good: %v, %v", got, err)
	}
	server, err := a.ServerCertificate(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name  string
		chain []*x509.Certificate
		want  error
	}{
		{"none", nil, ErrCertificateForeign},
		{"of another authority", []*x509.Certificate{agentPair(t, foreign, agent, time.Hour).Leaf}, ErrCertificateForeign},
		{"of another authority, expired", []*x509.Certificate{agentPair(t, foreign, agent, -time.Hour).Leaf}, ErrCertificateForeign},
		{"expired", []*x509.Certificate{agentPair(t, a, agent, -time.Hour).Leaf}, ErrCertificateExpired},
		{"the server's", []*x509.Certificate{server.Leaf}, ErrCertificateForeign},
		{"the authority's", []*x509.Certificate{a.cert}, ErrCertificateForeign},
		{"signed by an agent's", []*x509.Certificate{childOf(t, good), good.Leaf}, ErrCertificateForeign},
	}
	for _, c := range cases {
		if got, err := a.VerifyAgent(c.chain); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
		}
	}
	// An agent's certificate must not pass for the server's.
	if _, err := good.Leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err == nil {
		t.Error("an agent can pose as the server")
	}
}

// childOf signs another agent's certificate with an agent's key.
func childOf(t *testing.T, parent tls.Certificate) *x509.Certificate {
	t.Helper()
	key := ecKey(t, elliptic.P256())
	template := *parent.Leaf
	der, err := x509.CreateCertificate(rand.Reader, &template, parent.Leaf, key.Public(), parent.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	child, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return child
}

func TestIssueAgentRefusals(t *testing.T) {
	a, _ := newAuthority(t)
	agent := Agent{Account: account.ID, SourceServer: drs.NewSourceServerID()}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	good := request(t, ecKey(t, elliptic.P256()))
	tampered, _ := pem.Decode(good)
	tampered.Bytes[len(tampered.Bytes)-1] ^= 1
	for name, csr := range map[string][]byte{
		"empty": nil, "not PEM": []byte("x"), "another block": encodeCert(a.cert.Raw),
		"P-224": request(t, ecKey(t, elliptic.P224())), "RSA 1024": request(t, weak),
		"not signed by its key": pem.EncodeToMemory(tampered),
	} {
		if _, err := a.IssueAgent(csr, agent, time.Hour); !errors.Is(err, ErrBadRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []Agent{{}, {Account: account.ID}, {Account: "1", SourceServer: agent.SourceServer}, {Account: account.ID, SourceServer: "s-x"}} {
		if _, err := a.IssueAgent(good, bad, time.Hour); err == nil {
			t.Errorf("issued to %+v", bad)
		}
	}
}

// The listener for agents lets in agents only, and tells the others why.
func TestAgentTLS(t *testing.T) {
	a, dir := newAuthority(t)
	foreign, foreignDir := newAuthority(t)
	server, err := a.ServerCertificate(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	posing, err := foreign.ServerCertificate(foreignDir, nil)
	if err != nil {
		t.Fatal(err)
	}
	agent := Agent{Account: account.ID, SourceServer: drs.NewSourceServerID()}
	good := &tls.Config{ServerName: "localhost", RootCAs: a.Pool(), Certificates: []tls.Certificate{agentPair(t, a, agent, time.Hour)}}
	with := func(f func(*tls.Config)) *tls.Config {
		c := good.Clone()
		f(c)
		return c
	}
	cases := []struct {
		name   string
		client *tls.Config
		server *tls.Config
		ok     bool
	}{
		{"agent", good, a.AgentTLS(server), true},
		{"no certificate", with(func(c *tls.Config) { c.Certificates = nil }), a.AgentTLS(server), false},
		{"expired", with(func(c *tls.Config) { c.Certificates = []tls.Certificate{agentPair(t, a, agent, -time.Hour)} }), a.AgentTLS(server), false},
		{"foreign", with(func(c *tls.Config) { c.Certificates = []tls.Certificate{agentPair(t, foreign, agent, time.Hour)} }), a.AgentTLS(server), false},
		{"TLS 1.2", with(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), a.AgentTLS(server), false},
		{"another server", good, foreign.AgentTLS(posing), false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, clientErr, serverErr := handshake(t, a, c.client, c.server)
			if c.ok != (clientErr == nil && serverErr == nil) {
				t.Fatalf("client: %v, server: %v", clientErr, serverErr)
			}
			if c.ok && got != agent {
				t.Errorf("it is %+v", got)
			}
			if c.name == "expired" && (clientErr == nil || !strings.Contains(clientErr.Error(), "expired certificate")) {
				t.Errorf("the expired agent is told %v", clientErr)
			}
		})
	}
}

// handshake connects two ends and returns whom the server sees. In TLS 1.3 the
// client learns of a refused certificate at its first read.
func handshake(t *testing.T, a *Authority, client, server *tls.Config) (agent Agent, clientErr, serverErr error) {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() {
		conn := tls.Client(near, client)
		err := conn.Handshake()
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
		near.Close()
		done <- err
	}()
	conn := tls.Server(far, server)
	serverErr = conn.Handshake()
	if serverErr == nil {
		agent, serverErr = a.VerifyAgent(conn.ConnectionState().PeerCertificates)
		if _, err := io.WriteString(conn, "x"); serverErr == nil {
			serverErr = err
		}
	}
	clientErr = <-done
	far.Close()
	return agent, clientErr, serverErr
}
