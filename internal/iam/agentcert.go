package iam

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"lifeboat/internal/drs"
)

// AgentCertificateLife is how long an agent's certificate is good for by default.
const AgentCertificateLife = 365 * 24 * time.Hour

// Agent is who holds an agent's certificate: it may write to the main branch of
// this one source server and to nothing else.
type Agent struct {
	Account      string // 12 digits
	SourceServer drs.SourceServerID
}

// What is wrong with an agent's certificate. Each text tells the next step.
var (
	ErrCertificateExpired = errors.New("the agent's certificate has expired: remove its state directory and register again with a fresh install token")
	ErrCertificateForeign = errors.New("the agent's certificate was not issued to an agent by this server: register with an install token of this server")
	ErrBadRequest         = errors.New("the certificate signing request is not usable")
)

// IssueAgent signs the public key of a PEM-encoded PKCS #10 request for an agent.
// Nothing else of the request counts: subject and usage are set here. Keys are
// ECDSA on P-256 or larger, Ed25519, or RSA of at least 2048 bits; anything else,
// and a request that is not signed with its own key, is ErrBadRequest.
func (a *Authority) IssueAgent(csrPEM []byte, agent Agent, life time.Duration) (certPEM []byte, err error) {
	if !accountID.MatchString(agent.Account) {
		return nil, fmt.Errorf("issue agent certificate: account %q is not 12 digits", agent.Account)
	}
	if _, err := drs.ParseSourceServerID(string(agent.SourceServer)); err != nil {
		return nil, fmt.Errorf("issue agent certificate: %w", err)
	}
	block, _ := pem.Decode(csrPEM)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, fmt.Errorf("%w: want one PEM block CERTIFICATE REQUEST", ErrBadRequest)
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	if err := checkKey(request.PublicKey); err != nil {
		return nil, err
	}
	der, err := a.issue(&x509.Certificate{
		Subject:     pkix.Name{Organization: []string{agent.Account}, CommonName: string(agent.SourceServer)},
		NotAfter:    a.now().Add(life),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, request.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("issue agent certificate for %s: %w", agent.SourceServer, err)
	}
	return encodeCert(der), nil
}

func checkKey(public crypto.PublicKey) error {
	switch key := public.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if key.Curve.Params().BitSize >= 256 {
			return nil
		}
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits >= 2048 && bits <= 8192 {
			return nil
		}
	}
	return fmt.Errorf("%w: its key must be ECDSA on P-256 or larger, Ed25519, or RSA of 2048 to 8192 bits", ErrBadRequest)
}

// VerifyAgent returns the agent that a chain of certificates (as the peer sent
// it, its own first) belongs to, or ErrCertificateExpired or
// ErrCertificateForeign. It does not look whether the source server still exists.
func (a *Authority) VerifyAgent(chain []*x509.Certificate) (Agent, error) {
	if len(chain) == 0 {
		return Agent{}, ErrCertificateForeign
	}
	leaf := chain[0]
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: a.pool, CurrentTime: a.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Reason == x509.Expired && leaf.CheckSignatureFrom(a.cert) == nil {
			return Agent{}, ErrCertificateExpired
		}
		return Agent{}, ErrCertificateForeign
	}
	id, err := drs.ParseSourceServerID(leaf.Subject.CommonName)
	if err != nil || len(leaf.Subject.Organization) != 1 || !accountID.MatchString(leaf.Subject.Organization[0]) {
		return Agent{}, ErrCertificateForeign
	}
	return Agent{Account: leaf.Subject.Organization[0], SourceServer: id}, nil
}

// AgentTLS is the TLS configuration of a listener that speaks to agents only:
// TLS 1.3, and a certificate that VerifyAgent accepts; the peer is told by the
// TLS alert whether its certificate expired or is foreign. Sessions are never
// resumed, so each connection is checked anew. VerifyAgent of the connection's
// PeerCertificates then gives the agent.
func (a *Authority) AgentTLS(server tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{server},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              a.pool,
		Time:                   func() time.Time { return a.now() },
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := a.VerifyAgent(state.PeerCertificates)
			return err
		},
	}
}
