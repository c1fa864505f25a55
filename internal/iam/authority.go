package iam

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"path/filepath"
	"time"
)

// Authority is the server's certificate authority: it vouches for the server to
// agents and API clients, and for agents to the server. Safe for concurrent use.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	pool *x509.CertPool
	now  func() time.Time
}

const (
	authorityCertFile = "ca.pem"
	authorityKeyFile  = "ca-key.pem"
	authorityLife     = 20 * 365 * 24 * time.Hour

	// backdate makes certificates good on machines whose clock is behind.
	backdate = 24 * time.Hour
)

// AuthorityCertFile is where the authority of a directory keeps its certificate,
// the one that clients are told to trust.
func AuthorityCertFile(dir string) string { return filepath.Join(dir, authorityCertFile) }

// CreateAuthority makes a certificate authority and keeps its key and
// certificate in dir, which must exist. Both files are durable when it returns.
// An authority that is there, whole or half, is fs.ErrExist.
func CreateAuthority(dir string) (*Authority, error) {
	certPath, keyPath := AuthorityCertFile(dir), filepath.Join(dir, authorityKeyFile)
	there, err := exists(certPath)
	if err != nil {
		return nil, err
	}
	if there {
		return nil, fmt.Errorf("create certificate authority: %s: %w", certPath, fs.ErrExist)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("create certificate authority: %w", err)
	}
	serial := newSerial()
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		// A name of its own, so that a client that trusts two servers picks the
		// right one.
		Subject:               pkix.Name{Organization: []string{"Lifeboat"}, CommonName: "Lifeboat CA " + hex.EncodeToString(serial.Bytes()[:4])},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("create certificate authority: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, fmt.Errorf("create certificate authority: %w", err)
	}
	if err := files.CreateFile("create CA key", keyPath, keyPEM, private); err != nil {
		return nil, err
	}
	if err := files.CreateFile("create CA certificate", certPath, encodeCert(der), private); err != nil {
		return nil, err
	}
	return LoadAuthority(dir)
}

// LoadAuthority reads the authority that CreateAuthority kept in dir.
func LoadAuthority(dir string) (*Authority, error) {
	certPath, keyPath := AuthorityCertFile(dir), filepath.Join(dir, authorityKeyFile)
	pair, err := loadPair(certPath, keyPath)
	if err != nil {
		return nil, err
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, &DamagedError{Path: certPath, Reason: "it is not the certificate of an authority"}
	}
	pool := x509.NewCertPool()
	pool.AddCert(pair.Leaf)
	return &Authority{cert: pair.Leaf, key: signer, pool: pool, now: time.Now}, nil
}

// CertPEM is the authority's certificate for those who must trust it.
func (a *Authority) CertPEM() []byte { return encodeCert(a.cert.Raw) }

// Pool holds the authority's certificate alone. It must not be changed.
func (a *Authority) Pool() *x509.CertPool { return a.pool }

// SetClock replaces the system's clock, for tests of expiry. It must be called
// before the authority is shared.
func (a *Authority) SetClock(now func() time.Time) { a.now = now }

// issue signs a certificate for a public key.
func (a *Authority) issue(template *x509.Certificate, public crypto.PublicKey) ([]byte, error) {
	template.SerialNumber = newSerial()
	template.NotBefore = a.now().Add(-backdate)
	if template.NotAfter.After(a.cert.NotAfter) {
		template.NotAfter = a.cert.NotAfter
	}
	template.BasicConstraintsValid = true
	return x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
}

// newSerial returns a random serial number of 127 bits, whose first byte is
// never zero.
func newSerial() *big.Int {
	raw := make([]byte, 16)
	rand.Read(raw)
	raw[0] = raw[0]&0x7f | 0x40
	return new(big.Int).SetBytes(raw)
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// loadPair reads a certificate and its key, and checks that they belong together.
func loadPair(certPath, keyPath string) (tls.Certificate, error) {
	certPEM, certErr := readFile(certPath)
	keyPEM, keyErr := readFile(keyPath)
	switch certGone, keyGone := errors.Is(certErr, fs.ErrNotExist), errors.Is(keyErr, fs.ErrNotExist); {
	case certGone && keyErr == nil:
		return tls.Certificate{}, &DamagedError{Path: certPath, Reason: "it is missing although its key is there"}
	case keyGone && certErr == nil:
		return tls.Certificate{}, &DamagedError{Path: keyPath, Reason: "it is missing although its certificate is there"}
	case certErr != nil || keyErr != nil:
		return tls.Certificate{}, errors.Join(certErr, keyErr)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return tls.Certificate{}, &DamagedError{Path: certPath, Reason: err.Error()}
	}
	return pair, nil
}
