package nbd_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/recovery/nbd"
)

// authority issues certificates for one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{}
	a.cert, a.key = a.sign(t, x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

func (a *authority) sign(t testing.TB, template x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, parentKey := a.cert, a.key
	if parent == nil {
		parent, parentKey = &template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// pair is a certificate with its key, for one use.
func (a *authority) pair(t testing.TB, name string, use x509.ExtKeyUsage) tls.Certificate {
	t.Helper()
	cert, key := a.sign(t, x509.Certificate{
		Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use},
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
	})
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *authority) serverTLS(t testing.TB) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{a.pair(t, "server", x509.ExtKeyUsageServerAuth)},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool(),
	}
}

// clientDir writes a client's certificates as QEMU and libnbd want them.
func (a *authority) clientDir(t testing.TB, name string) string {
	t.Helper()
	pair := a.pair(t, name, x509.ExtKeyUsageClientAuth)
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for file, block := range map[string]*pem.Block{
		"ca-cert.pem":     {Type: "CERTIFICATE", Bytes: a.cert.Raw},
		"client-cert.pem": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		"client-key.pem":  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// startTLS serves on a TCP port of this machine and returns its address.
func startTLS(t testing.TB, cfg nbd.Config) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, nbd.New(cfg), ln)
	return ln.Addr().String()
}

func secureURI(address, name, dir string) string {
	return "nbds://" + address + "/" + name + "?tls-certificates=" + dir
}

// Real clients over TLS on TCP: libnbd's with the URI alone, QEMU's with its own
// objects. Both speak from several connections where they want.
func TestClientsOverTLS(t *testing.T) {
	need(t, "nbdinfo", "nbdcopy", "qemu-io", "qemu-img")
	ca := newAuthority(t)
	dir := ca.clientDir(t, "client")
	src, dst := newFileDevice(t, 16<<20), newFileDevice(t, 16<<20)
	want := fillSparse(t, src)
	address := startTLS(t, nbd.Config{TLS: ca.serverTLS(t), Open: exports(map[string]*nbd.Export{
		"src": {Device: src, ReadOnly: true}, "dst": {Device: dst, Shared: true},
	})})

	var info struct{ TLS bool }
	out := run(t, "nbdinfo", "--json", "--no-content", secureURI(address, "src", dir))
	if err := json.Unmarshal([]byte(out), &info); err != nil || !info.TLS {
		t.Errorf("nbdinfo: TLS %v, %v in %s", info.TLS, err, out)
	}
	run(t, "nbdcopy", "--flush", secureURI(address, "src", dir), secureURI(address, "dst", dir))
	sameFile(t, dst.Name(), want, src.size)

	host, port, _ := net.SplitHostPort(address)
	creds := "tls-creds-x509,id=tls0,endpoint=client,dir=" + dir
	opts := fmt.Sprintf("driver=nbd,server.type=inet,server.host=%s,server.port=%s,export=dst,tls-creds=tls0", host, port)
	run(t, "qemu-io", "--object", creds, "--image-opts", opts,
		"-c", "write -P 0x5a 1M 3M", "-c", "write -f -P 0x5b 5M 4k", "-c", "write -z 2M 1M", "-c", "discard 8M 1M", "-c", "flush",
		"-c", "read -P 0x5a 1M 1M", "-c", "read -P 0 2M 1M", "-c", "read -P 0x5b 5M 4k")
	run(t, "qemu-img", "compare", "--object", creds, "--image-opts", opts, "driver=raw,file.filename="+dst.Name())
}

// Whoever does not come with a certificate of the authority is served nothing.
func TestTLSRefusesStrangers(t *testing.T) {
	need(t, "nbdinfo", "qemu-img")
	ca, other := newAuthority(t), newAuthority(t)
	address := startTLS(t, nbd.Config{TLS: ca.serverTLS(t), Open: func(context.Context, string) (*nbd.Export, error) {
		t.Error("a stranger asked for an export")
		return nil, nbd.ErrUnknownExport
	}})
	bare := t.TempDir()
	if err := os.WriteFile(filepath.Join(bare, "ca-cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, argv := range map[string][]string{
		"plain libnbd":                    {"nbdinfo", "nbd://" + address + "/x"},
		"plain QEMU":                      {"qemu-img", "info", "nbd://" + address + "/x"},
		"a list in the clear":             {"nbdinfo", "--list", "nbd://" + address},
		"no certificate":                  {"nbdinfo", secureURI(address, "x", bare)},
		"certificate of somebody else":    {"nbdinfo", secureURI(address, "x", other.clientDir(t, "client"))},
		"a list with a foreign authority": {"nbdinfo", "--list", secureURI(address, "", other.clientDir(t, "client"))},
	} {
		out, err := exec.CommandContext(patience(t), argv[0], argv[1:]...).CombinedOutput()
		if err == nil {
			t.Errorf("%s was served: %s", what, out)
		}
	}
}

// TestTLSNegotiation pins what the protocol says of options around STARTTLS.
func TestTLSNegotiation(t *testing.T) {
	const policy, invalid, tlsReqd = 1<<31 + 2, 1<<31 + 3, 1<<31 + 5
	ca := newAuthority(t)
	d := newFileDevice(t, 1<<20)
	var asked string
	address := startTLS(t, nbd.Config{TLS: ca.serverTLS(t), Open: func(ctx context.Context, name string) (*nbd.Export, error) {
		if chain := nbd.PeerCertificates(ctx); len(chain) > 0 {
			asked = chain[0].Subject.CommonName
		}
		return &nbd.Export{Device: d}, nil
	}})
	connect := func() *client {
		nc, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		nc.SetDeadline(time.Now().Add(3 * time.Minute))
		c := &client{t, nc}
		c.take(18)
		c.put(uint32(3))
		return c
	}
	upgrade := func(c *client) *client {
		if k := c.ask(5, nil); k != 1 {
			t.Fatalf("STARTTLS: %#x", k)
		}
		return &client{t, tls.Client(c.Conn, &tls.Config{
			RootCAs: ca.pool(), ServerName: "localhost", Certificates: []tls.Certificate{ca.pair(t, "somebody", x509.ExtKeyUsageClientAuth)},
		})}
	}

	c := connect()
	for _, opt := range []uint32{3, 6, 7, 8, 9, 10, 4711} {
		if k := c.ask(opt, infoData("x")); k != tlsReqd {
			t.Errorf("option %d in the clear: %#x", opt, k)
		}
	}
	if k := c.ask(5, []byte{1}); k != invalid {
		t.Errorf("STARTTLS with data: %#x", k)
	}
	s := upgrade(c)
	if k := s.ask(5, nil); k != invalid {
		t.Errorf("STARTTLS twice: %#x", k)
	}
	s.enter("x", true)
	if asked != "somebody" {
		t.Errorf("the export was opened for %q", asked)
	}
	payload := bytes.Repeat([]byte("lifeboat"), 100_000)
	if code := s.code(true, 0, 1, 4096, uint32(len(payload)), payload); code != 0 {
		t.Errorf("write: %d", code)
	}
	s.request(4, 0, 9, 4096, uint32(len(payload)), nil)
	if _, _, _, data := s.chunk(); !bytes.Equal(data[8:], payload) {
		t.Error("what was read is not what was written")
	}

	c = connect()
	c.option(1, []byte("x")) // it has no refusal
	c.gone()

	// Bytes slipped in before the handshake would be taken for the client's own.
	c = connect()
	c.put(encode("IHAVEOPT", uint32(5), uint32(0), "IHAVEOPT", uint32(8), uint32(0)))
	if k, _ := c.optionReply(5); k != 1 {
		t.Errorf("STARTTLS: %#x", k)
	}
	if rest, _ := io.ReadAll(c); strings.Contains(string(rest), "IHAVEOPT") || len(rest) > 100 {
		t.Errorf("the server went on: %x", rest)
	}

	_, socket := startServer(t, nbd.Config{Open: exports(map[string]*nbd.Export{"": {Device: d}})})
	if k := dial(t, socket).ask(5, nil); k != policy {
		t.Errorf("STARTTLS where there is none: %#x", k)
	}
}

// cachingDevice notes what it is asked to have ready.
type cachingDevice struct {
	*fileDevice
	asked chan [2]int64
}

func (d cachingDevice) Cache(_ context.Context, off, n int64) error {
	d.asked <- [2]int64{off, n}
	return nil
}

func TestCacheCommand(t *testing.T) {
	d := cachingDevice{newFileDevice(t, 1<<20), make(chan [2]int64, 1)}
	_, socket := startServer(t, nbd.Config{Open: exports(map[string]*nbd.Export{"": {Device: d, ReadOnly: true}, "plain": {Device: d.fileDevice}})})
	c := dial(t, socket)
	c.option(1, nil)
	if flags := c.take(10)[8:]; flags[0]&4 == 0 {
		t.Errorf("flags %x do not offer the cache command", flags)
	}
	if code := c.code(false, 0, 5, 4096, 8192, nil); code != 0 {
		t.Errorf("cache: %d", code)
	}
	if got := <-d.asked; got != [2]int64{4096, 8192} {
		t.Errorf("asked for %v", got)
	}
	if code := c.code(false, 0, 5, 1<<20, 1, nil); code != 22 {
		t.Errorf("cache beyond the end: %d", code)
	}
	c = dial(t, socket)
	c.enter("plain", false)
	if code := c.code(false, 0, 5, 0, 4096, nil); code != 22 {
		t.Errorf("cache where there is none: %d", code)
	}
}
