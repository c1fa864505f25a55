package iam

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

func code(err error) string {
	var refused *AuthError
	if errors.As(err, &refused) {
		return refused.Code
	}
	return ""
}

// Temporary credentials sign only together with their token, and until they
// expire.
func TestSessions(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	sessions, err := NewSessions(master, clock)
	if err != nil {
		t.Fatal(err)
	}
	who := Principal{Kind: Role, Account: account, Name: "operator", ID: "AROA1", Session: &Session{
		Name: "ann", Issued: now, Expires: now.Add(time.Hour), SourceIdentity: "s-1", Policy: "{}",
	}}
	key, token, err := sessions.Issue(who)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(key.ID, "ASIA") {
		t.Errorf("temporary key %s", key.ID)
	}
	v := &Verifier{Service: "drs", Region: account.Region, Keys: NewKeyring(), Sessions: sessions, Now: clock}
	verify := func(token string, secret Secret) (AccessKey, error) {
		t.Helper()
		r, err := http.NewRequest("POST", "http://localhost/DescribeJobs", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		credentials := aws.Credentials{AccessKeyID: key.ID, SecretAccessKey: secret.Reveal(), SessionToken: token}
		if err := v4.NewSigner().SignHTTP(t.Context(), credentials, r, hexSHA256([]byte("{}")), "drs", account.Region, now); err != nil {
			t.Fatal(err)
		}
		return v.Verify(t.Context(), r, []byte("{}"))
	}
	got, err := verify(token.Reveal(), key.Secret)
	if err != nil || got.ARN() != "arn:aws:sts::111122223333:assumed-role/operator/ann" || got.UserID() != "AROA1:ann" ||
		got.Session.SourceIdentity != "s-1" || got.Session.Policy != "{}" || !got.Session.Issued.Equal(now) {
		t.Errorf("verified %+v: %v", got.Principal, err)
	}
	if _, err := verify("", key.Secret); code(err) != CodeUnrecognizedClient {
		t.Errorf("without its token: %v", err)
	}
	if _, err := verify(token.Reveal(), "wrong"); code(err) != CodeInvalidSignature {
		t.Errorf("with another secret: %v", err)
	}
	_, another, err := sessions.Issue(who)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify(another.Reveal(), key.Secret); code(err) != CodeUnrecognizedClient {
		t.Errorf("with the token of other credentials: %v", err)
	}
	foreign, err := NewSessions(bytes.Repeat([]byte{8}, 32), clock)
	if err != nil {
		t.Fatal(err)
	}
	_, stolen, err := foreign.Issue(who)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sessions.Open(stolen.Reveal()); code(err) != CodeUnrecognizedClient {
		t.Errorf("token of another server: %v", err)
	}
	for i := range token {
		changed := []byte(token)
		changed[i] ^= 1
		if _, err := sessions.Open(string(changed)); code(err) != CodeUnrecognizedClient {
			t.Fatalf("with byte %d changed: %v", i, err)
		}
	}
	now = now.Add(time.Hour)
	if _, err := verify(token.Reveal(), key.Secret); code(err) != CodeExpiredToken {
		t.Errorf("an hour later: %v", err)
	}
	v.Sessions = nil
	if _, err := verify(token.Reveal(), key.Secret); code(err) != CodeUnrecognizedClient {
		t.Errorf("without sessions: %v", err)
	}
}

// A presigned URL reads until it expires, and changes nothing.
func TestPresigned(t *testing.T) {
	key := NewAccessKey(account)
	signedAt := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	now := signedAt
	v := &Verifier{
		Service: "sts", Region: account.Region, Keys: NewKeyring(key), Now: func() time.Time { return now },
		Once: func(r *http.Request, _ []byte) bool { return r.Method != http.MethodGet },
	}
	presigned := func(method string) string {
		t.Helper()
		r, err := http.NewRequest(method, "http://localhost/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Expires=900", nil)
		if err != nil {
			t.Fatal(err)
		}
		credentials := aws.Credentials{AccessKeyID: key.ID, SecretAccessKey: key.Secret.Reveal()}
		url, _, err := v4.NewSigner().PresignHTTP(t.Context(), credentials, r, hexSHA256(nil), "sts", account.Region, signedAt)
		if err != nil {
			t.Fatal(err)
		}
		return url
	}
	verify := func(method, url string) error {
		t.Helper()
		r, err := http.NewRequest(method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Verify(t.Context(), r, nil)
		return err
	}
	url := presigned("GET")
	for _, later := range []time.Duration{0, 14 * time.Minute, 14 * time.Minute} {
		now = signedAt.Add(later)
		if err := verify("GET", url); err != nil {
			t.Errorf("%s later: %v", later, err)
		}
	}
	now = signedAt.Add(15 * time.Minute)
	if err := verify("GET", url); code(err) != CodeExpired {
		t.Errorf("expired: %v", err)
	}
	now = signedAt.Add(-6 * time.Minute)
	if err := verify("GET", url); code(err) != CodeExpired {
		t.Errorf("not yet: %v", err)
	}
	now = signedAt
	if err := verify("GET", strings.Replace(url, "GetCallerIdentity", "GetSessionToken", 1)); code(err) != CodeInvalidSignature {
		t.Errorf("changed: %v", err)
	}
	if err := verify("GET", strings.Replace(url, "X-Amz-Expires=900", "X-Amz-Expires=9000000", 1)); code(err) != CodeIncomplete {
		t.Errorf("good for too long: %v", err)
	}
	if err := verify("GET", url+"&X-Amz-Date=20260301T120000Z"); code(err) != CodeIncomplete {
		t.Errorf("two dates: %v", err)
	}
	if err := verify("POST", presigned("POST")); code(err) != CodeIncomplete {
		t.Errorf("a change: %v", err)
	}
}

// A change is accepted once, a look as often as one likes.
func TestReplay(t *testing.T) {
	key := NewAccessKey(account)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	server := verifying(t, &Verifier{
		Service: "drs", Region: account.Region, Keys: NewKeyring(key), Now: func() time.Time { return now },
		Once: func(r *http.Request, _ []byte) bool { return strings.HasPrefix(r.URL.Path, "/Start") },
	})
	again := func(path string, body string) (string, string) {
		t.Helper()
		r := signed(t, key, "POST", server.URL+path, body, "drs", account.Region, now)
		_, first := send(t, r.Clone(t.Context()))
		r.Body = io.NopCloser(strings.NewReader(body))
		_, second := send(t, r)
		return first, second
	}
	if first, second := again("/DescribeJobs", ""); first != "ok" || second != "ok" {
		t.Errorf("a look: %s, then %s", first, second)
	}
	if first, second := again("/StartRecovery", ""); first != "ok" || !strings.HasPrefix(second, CodeReplayed+" This signed request was received before") {
		t.Errorf("a change: %s, then %s", first, second)
	}
}

// The memory of signatures is bounded, and never forgets the latest.
func TestReplayMemoryIsBounded(t *testing.T) {
	var m Replays
	now := time.Now()
	text := func(i int) string { return strings.Repeat("x", 1+i%7) + string(rune(i)) + string(rune(i/1000)) }
	for i := range 3 * maxSeen {
		m.first(text(i), now, time.Hour)
		if m.first(text(i), now, time.Hour) {
			t.Fatalf("signature %d is forgotten at once", i)
		}
		if len(m.new) > maxSeen || len(m.older) > maxSeen {
			t.Fatalf("%d and %d signatures are kept", len(m.new), len(m.older))
		}
	}
	m.first("a", now, time.Minute)
	m.first("b", now.Add(2*time.Minute), time.Minute)
	if m.first("a", now.Add(2*time.Minute), time.Minute) {
		t.Error("a signature is forgotten while the generation after it is young")
	}
}

func FuzzSessionToken(f *testing.F) {
	sessions, err := NewSessions(master, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("lbs1.AAAA")
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := sessions.Open(token); code(err) == "" {
			t.Errorf("%q: %v, want a refusal", token, err)
		}
	})
}
