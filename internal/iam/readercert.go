package iam

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ReaderCertificateLife is how long a disk reader's certificate is good for.
const ReaderCertificateLife = 12 * time.Hour

// readerUnit marks a disk reader's certificate, which no agent's bears.
const readerUnit = "disk reader"

// Reader is who holds a disk reader's certificate.
type Reader struct {
	// Principal is who asked for it. Of a session, with which the certificate ends,
	// it tells only when it was issued.
	Principal
	Key string // the access key that asked for it; empty: temporary credentials did
}

// sessionMark begins what stands in the place of the key in a session's certificate.
const sessionMark = "session "

// ErrNotReader: a certificate does not let its holder read disks. The text tells
// the next step.
var ErrNotReader = errors.New("the certificate is not one that lets its holder read disks, or it has expired: get a new one with `lifeboat nbd`")

// IssueReader signs the public key of a PEM-encoded PKCS #10 request for who signed
// with key, who may read the disks of the account's recovery points with it and
// nothing else. ErrBadRequest as for IssueAgent.
func (a *Authority) IssueReader(csrPEM []byte, key AccessKey, life time.Duration) (certPEM []byte, expires time.Time, err error) {
	who, by := key.Principal, key.ID
	if !accountID.MatchString(who.Account.ID) {
		return nil, expires, fmt.Errorf("issue reader certificate: account %q is not 12 digits", who.Account.ID)
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
	if s := who.Session; s != nil {
		by = sessionMark + s.Issued.UTC().Format(time.RFC3339)
		if s.Expires.Before(expires) {
			expires = s.Expires.Truncate(time.Second)
		}
	}
	der, err := a.issue(&x509.Certificate{
		Subject: pkix.Name{
			Organization: []string{who.Account.ID}, OrganizationalUnit: []string{readerUnit},
			CommonName: strings.Join([]string{string(who.Kind), who.ID, who.Name}, "/"), SerialNumber: by,
		},
		NotAfter:    expires,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, request.PublicKey)
	if err != nil {
		return nil, expires, fmt.Errorf("issue reader certificate: %w", err)
	}
	return encodeCert(der), expires, nil
}

// VerifyReader returns who holds a chain (as the peer sent it, its own first) and
// read the disks of the account's recovery points when it was issued, or ErrNotReader.
// Whether that still holds is to be asked. The account comes without its region.
func (a *Authority) VerifyReader(chain []*x509.Certificate) (r Reader, err error) {
	if len(chain) == 0 {
		return r, ErrNotReader
	}
	leaf := chain[0]
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: a.pool, CurrentTime: a.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return r, ErrNotReader
	}
	who := leaf.Subject
	names := strings.SplitN(who.CommonName, "/", 3)
	if len(names) != 3 || !slices.Equal(who.OrganizationalUnit, []string{readerUnit}) || len(who.Organization) != 1 || !accountID.MatchString(who.Organization[0]) {
		return r, ErrNotReader
	}
	r.Account.ID, r.Kind, r.ID, r.Name, r.Key = who.Organization[0], Kind(names[0]), names[1], names[2], who.SerialNumber
	if text, session := strings.CutPrefix(r.Key, sessionMark); session {
		issued, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return Reader{}, ErrNotReader
		}
		r.Key, r.Session = "", &Session{Issued: issued}
	}
	return r, nil
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
