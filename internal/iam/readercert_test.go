package iam

import (
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	"lifeboat/internal/drs"
)

// A reader's certificate reads disks and is no agent's, and the other way round;
// it ends with its time, and one of another authority is worth nothing.
func TestReaderCertificate(t *testing.T) {
	a, err := CreateAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	other, err := CreateAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	clock := time.Now()
	a.SetClock(func() time.Time { return clock })
	csr := request(t, ecKey(t, elliptic.P256()))
	const account = "123456789012"
	key := NewKeyOf(Principal{Kind: User, Account: drs.Account{ID: account}, Name: "ann@x,y", ID: "AIDA1"})

	text, expires, err := a.IssueReader(csr, key, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	reader := parseChain(t, text)
	if !expires.Equal(reader[0].NotAfter) {
		t.Errorf("said to expire %v, does %v", expires, reader[0].NotAfter)
	}
	if got, err := a.VerifyReader(reader); err != nil || got != (Reader{key.Principal, key.ID}) {
		t.Errorf("VerifyReader = %+v, %v", got, err)
	}
	session := key // which outlives no certificate
	session.Session = &Session{Issued: clock.UTC().Truncate(time.Second), Expires: clock.Add(time.Minute).Truncate(time.Second)}
	if text, ends, err := a.IssueReader(csr, session, time.Hour); err != nil || !ends.Equal(session.Session.Expires) {
		t.Errorf("of a session: until %v, %v", ends, err)
	} else if got, err := a.VerifyReader(parseChain(t, text)); err != nil || got.Key != "" || got.Name != "ann@x,y" || got.Session == nil || !got.Session.Issued.Equal(session.Session.Issued) {
		t.Errorf("of a session: %+v, %v", got, err)
	}
	if _, err := a.VerifyAgent(reader); !errors.Is(err, ErrCertificateForeign) {
		t.Errorf("a reader as an agent: %v", err)
	}
	text, err = a.IssueAgent(csr, Agent{account, drs.NewSourceServerID()}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for what, chain := range map[string][]*x509.Certificate{"an agent": parseChain(t, text), "nobody": nil} {
		if _, err := a.VerifyReader(chain); !errors.Is(err, ErrNotReader) {
			t.Errorf("%s as a reader: %v", what, err)
		}
	}
	if _, err := other.VerifyReader(reader); !errors.Is(err, ErrNotReader) {
		t.Errorf("a reader of another authority: %v", err)
	}
	clock = expires.Add(time.Second)
	if _, err := a.VerifyReader(reader); !errors.Is(err, ErrNotReader) {
		t.Errorf("an expired reader: %v", err)
	}
	for what, bad := range map[string][]byte{"nothing": nil, "a certificate": text, "garbage": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("x")})} {
		if _, _, err := a.IssueReader(bad, key, time.Hour); !errors.Is(err, ErrBadRequest) {
			t.Errorf("request of %s: %v", what, err)
		}
	}
	if _, _, err := a.IssueReader(csr, AccessKey{}, time.Hour); err == nil {
		t.Error("issued for an account that is none")
	}
}

func parseChain(t *testing.T, text []byte) []*x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("no PEM: %s", text)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{cert}
}
