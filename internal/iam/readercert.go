package iam

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ReaderCertificateLife is how long a disk reader's certificate is good for.
const ReaderCertificateLife = 12 * time.Hour

// readerUnit marks a disk reader's certificate, which no agent's bears.
const readerUnit = "disk reader"

// ErrNotReader: a certificate does not let its holder read disks. The text tells
// the next step.
var ErrNotReader = errors.New("the certificate is not one that lets its holder read disks, or it has expired: get a new one with `lifeboat nbd`")

// IssueReader signs the public key of a PEM-encoded PKCS #10 request for somebody
// who may read the disks of the account's recovery points, and nothing else.
// ErrBadRequest as for IssueAgent.
func (a *Authority) IssueReader(csrPEM []byte, account string, life time.Duration) (certPEM []byte, expires time.Time, err error) {
	if !accountID.MatchString(account) {
		return nil, expires, fmt.Errorf("issue reader certificate: account %q is not 12 digits", account)
	}
	block, _ := pem.Decode(csrPEM)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, expires, fmt.Errorf("%w: want one PEM block CERTIFICATE REQUEST", ErrBadRequest)
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		return nil, expires, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	if err := checkKey(request.PublicKey); err != nil {
		return nil, expires, err
	}
	expires = a.now().Add(life).Truncate(time.Second)
	der, err := a.issue(&x509.Certificate{
		Subject:     pkix.Name{Organization: []string{account}, OrganizationalUnit: []string{readerUnit}, CommonName: readerUnit},
		NotAfter:    expires,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, request.PublicKey)
	if err != nil {
		return nil, expires, fmt.Errorf("issue reader certificate: %w", err)
	}
	return encodeCert(der), expires, nil
}

// VerifyReader returns the account whose recovery points the holder of a chain
// (as the peer sent it, its own first) may read, or ErrNotReader.
func (a *Authority) VerifyReader(chain []*x509.Certificate) (account string, err error) {
	if len(chain) == 0 {
		return "", ErrNotReader
	}
	leaf := chain[0]
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: a.pool, CurrentTime: a.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return "", ErrNotReader
	}
	who := leaf.Subject
	if !slices.Equal(who.OrganizationalUnit, []string{readerUnit}) || len(who.Organization) != 1 || !accountID.MatchString(who.Organization[0]) {
		return "", ErrNotReader
	}
	return who.Organization[0], nil
}

// ReaderTLS is the TLS configuration of a listener that serves disks: TLS 1.3,
// and a certificate that VerifyReader accepts. Sessions are never resumed.
func (a *Authority) ReaderTLS(server tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{server},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              a.pool,
		Time:                   func() time.Time { return a.now() },
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := a.VerifyReader(state.PeerCertificates)
			return err
		},
	}
}
