package iam

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"lifeboat/internal/drs"
)

var account = drs.Account{ID: "111122223333", Region: "eu-west-1"}

// verifying serves requests by their verdict: "ok" or the code of the refusal.
func verifying(t *testing.T, v *Verifier) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read body: %v", err)
		}
		_, err = v.Verify(r.Context(), r, body)
		var refused *AuthError
		switch {
		case err == nil:
			io.WriteString(w, "ok")
		case errors.As(err, &refused):
			w.WriteHeader(refused.Status)
			io.WriteString(w, refused.Code+" "+refused.Message)
		default:
			t.Errorf("verify: %v", err)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

func send(t *testing.T, r *http.Request) (int, string) {
	t.Helper()
	reply, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, string(text)
}

// signed makes a request and signs it with the SDK's signer, an implementation
// that is not ours.
func signed(t *testing.T, key AccessKey, method, target, body, service, region string, at time.Time) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	credentials := aws.Credentials{AccessKeyID: key.ID, SecretAccessKey: key.Secret.Reveal()}
	if err := v4.NewSigner().SignHTTP(t.Context(), credentials, r, hexSHA256([]byte(body)), service, region, at); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSignedBySDK(t *testing.T) {
	key := NewAccessKey(account)
	server := verifying(t, &Verifier{Service: "drs", Region: account.Region, Keys: NewKeyring(key)})
	for _, target := range []string{
		"/DescribeJobs",
		"/tags/arn%3Aaws%3Adrs%3Aeu-west-1%3A111122223333%3Asource-server%2Fs-0123456789abcdef0",
		"/tags/a?tagKeys=b&tagKeys=a&tagKeys=%20x%2By%2F%C3%BC",
		"/x?b=2&a=1&a=0&empty=&flag",
		"/",
	} {
		for _, body := range []string{"", "{}", strings.Repeat("x", 100_000)} {
			r := signed(t, key, "POST", server.URL+target, body, "drs", account.Region, time.Now())
			if status, text := send(t, r); text != "ok" {
				t.Errorf("%s with %d bytes: %d %s", target, len(body), status, text)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	key, other := NewAccessKey(account), NewAccessKey(account)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	server := verifying(t, &Verifier{
		Service: "drs", Region: account.Region, Keys: NewKeyring(key), Now: func() time.Time { return now },
	})
	good := func(t *testing.T) *http.Request {
		return signed(t, key, "POST", server.URL+"/DescribeJobs?a=1", "{}", "drs", account.Region, now)
	}
	setAuth := func(value string) func(*testing.T) *http.Request {
		return func(t *testing.T) *http.Request {
			r := good(t)
			r.Header.Set("Authorization", value)
			return r
		}
	}
	edited := func(old, new string) func(*testing.T) *http.Request {
		return func(t *testing.T) *http.Request {
			r := good(t)
			auth := r.Header.Get("Authorization")
			if !strings.Contains(auth, old) {
				t.Fatalf("%q lacks %q", auth, old)
			}
			r.Header.Set("Authorization", strings.Replace(auth, old, new, 1))
			return r
		}
	}
	changed := func(f func(*http.Request)) func(*testing.T) *http.Request {
		return func(t *testing.T) *http.Request {
			r := good(t)
			f(r)
			return r
		}
	}
	at := func(when time.Time) func(*testing.T) *http.Request {
		return func(t *testing.T) *http.Request {
			return signed(t, key, "POST", server.URL+"/DescribeJobs", "{}", "drs", account.Region, when)
		}
	}
	cases := []struct {
		name    string
		request func(*testing.T) *http.Request
		status  int
		want    string // code and a part of the message
	}{
		{"good", good, 200, "ok"},
		{"not signed", changed(func(r *http.Request) { r.Header.Del("Authorization") }), 403, CodeMissingToken},
		{"presigned", changed(func(r *http.Request) {
			r.Header.Del("Authorization")
			r.URL.RawQuery = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00"
		}), 403, CodeIncomplete + " A presigned URL has the parameter"},
		{"bearer", setAuth("Bearer abc"), 403, CodeIncomplete},
		{"no parameters", setAuth("AWS4-HMAC-SHA256"), 403, CodeIncomplete},
		{"no signature", setAuth("AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host"), 403, CodeIncomplete + " Authorization header requires 'Signature'"},
		{"short credential", edited("/eu-west-1/", "/"), 403, CodeIncomplete + " Credential must have"},
		{"given twice", edited("Signature=", "Signature=0, Signature="), 403, CodeIncomplete},
		{"two headers", changed(func(r *http.Request) { r.Header.Add("Authorization", "x") }), 403, CodeIncomplete},
		{"no date", changed(func(r *http.Request) { r.Header.Del("X-Amz-Date") }), 403, CodeIncomplete},
		{"broken date", changed(func(r *http.Request) { r.Header.Set("X-Amz-Date", "today") }), 403, CodeIncomplete + " Date must be"},
		{"broken query", changed(func(r *http.Request) { r.URL.RawQuery = "a=%zz" }), 403, CodeIncomplete},
		{"unknown key", func(t *testing.T) *http.Request {
			return signed(t, other, "POST", server.URL+"/DescribeJobs", "{}", "drs", account.Region, now)
		}, 403, CodeUnrecognizedClient},
		{"session token", changed(func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "t") }), 403, CodeUnrecognizedClient},
		{"wrong secret", func(t *testing.T) *http.Request {
			return signed(t, AccessKey{ID: key.ID, Secret: other.Secret}, "POST", server.URL+"/DescribeJobs", "{}", "drs", account.Region, now)
		}, 403, CodeInvalidSignature + " The request signature we calculated"},
		{"other region", func(t *testing.T) *http.Request {
			return signed(t, key, "POST", server.URL+"/DescribeJobs", "{}", "drs", "us-east-1", now)
		}, 403, CodeInvalidSignature + " Credential should be scoped to a valid region"},
		{"other service", func(t *testing.T) *http.Request {
			return signed(t, key, "POST", server.URL+"/DescribeJobs", "{}", "ec2", account.Region, now)
		}, 403, CodeInvalidSignature + " Credential should be scoped to correct service"},
		{"other terminator", edited("aws4_request", "aws5_request"), 403, CodeInvalidSignature},
		{"other date in scope", edited("/20260301/", "/20260302/"), 403, CodeInvalidSignature + " Date in Credential"},
		{"host not signed", edited("host;", ""), 403, CodeInvalidSignature + " 'Host'"},
		{"headers not sorted", edited("content-length;content-type;host", "host;content-type;content-length"), 403, CodeIncomplete},
		{"6 minutes old", at(now.Add(-6 * time.Minute)), 400, CodeExpired + " Signature expired: 20260301T115400Z is now earlier than 20260301T115500Z (20260301T120000Z - 5 min.)"},
		{"5 minutes old", at(now.Add(-5 * time.Minute)), 200, "ok"},
		{"6 minutes ahead", at(now.Add(6 * time.Minute)), 400, CodeExpired + " Signature not yet current"},
		{"other method", changed(func(r *http.Request) { r.Method = "PUT" }), 403, CodeInvalidSignature},
		{"other path", changed(func(r *http.Request) { r.URL.Path = "/StartRecovery" }), 403, CodeInvalidSignature},
		{"other query", changed(func(r *http.Request) { r.URL.RawQuery = "a=2" }), 403, CodeInvalidSignature},
		{"more query", changed(func(r *http.Request) { r.URL.RawQuery = "a=1&b=1" }), 403, CodeInvalidSignature},
		{"other host", changed(func(r *http.Request) { r.Host = "elsewhere:443" }), 403, CodeInvalidSignature},
		{"other content type", changed(func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }), 403, CodeInvalidSignature},
		{"other body", changed(func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("[]")) }), 403, CodeInvalidSignature},
		{"unsigned payload", func(t *testing.T) *http.Request {
			r := good(t)
			r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
			credentials := aws.Credentials{AccessKeyID: key.ID, SecretAccessKey: key.Secret.Reveal()}
			if err := v4.NewSigner().SignHTTP(t.Context(), credentials, r, "UNSIGNED-PAYLOAD", "drs", account.Region, now); err != nil {
				t.Fatal(err)
			}
			return r
		}, 403, CodeInvalidSignature + " The payload must be signed"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			status, text := send(t, c.request(t))
			if status != c.status || !strings.HasPrefix(text, c.want) {
				t.Errorf("got %d %s, want %d %s", status, text, c.status, c.want)
			}
		})
	}
}

// A signature must cover each byte: whatever one is changed, it must not pass.
func TestSignatureOfOneCharacter(t *testing.T) {
	c := suite[0]
	for i := range c.signature {
		flipped := c.signature[:i] + string("0123456789abcdef"[(strings.IndexByte("0123456789abcdef", c.signature[i])+1)%16]) + c.signature[i+1:]
		r := suiteRequest(t, c.method, c.target, c.body, c.headers, c.signed, flipped)
		if _, err := suiteVerifier().Verify(t.Context(), r, nil); err == nil {
			t.Fatalf("signature with character %d changed passed", i)
		}
	}
}

type brokenKeys struct{}

func (brokenKeys) AccessKey(context.Context, string) (AccessKey, error) {
	return AccessKey{}, errors.New("disk on fire")
}

func TestLookupFailureIsNoRefusal(t *testing.T) {
	c := suite[0]
	v := suiteVerifier()
	v.Keys = brokenKeys{}
	_, err := v.Verify(t.Context(), suiteRequest(t, c.method, c.target, c.body, c.headers, c.signed, c.signature), nil)
	var refused *AuthError
	if err == nil || errors.As(err, &refused) {
		t.Errorf("got %v, want an error that is no refusal", err)
	}
}

func FuzzVerify(f *testing.F) {
	for _, c := range suite {
		f.Add(c.method, c.target, "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders="+c.signed+", Signature=00", "20150830T123600Z", c.body)
	}
	f.Add("GET", "*", "AWS4-HMAC-SHA256 ,,,=", "", "")
	f.Fuzz(func(t *testing.T, method, target, auth, date, body string) {
		r := suiteRequest(t, method, target, body, nil, "", "")
		r.Header.Set("Authorization", auth)
		r.Header.Set("X-Amz-Date", date)
		_, err := suiteVerifier().Verify(t.Context(), r, []byte(body))
		var refused *AuthError
		if err == nil || !errors.As(err, &refused) {
			t.Errorf("got %v, want a refusal", err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	c := suite[0]
	r := &http.Request{Method: c.method, RequestURI: c.target, URL: &url.URL{Path: c.target}, Host: "example.amazonaws.com", Header: http.Header{}}
	for _, line := range c.headers {
		name, value, _ := strings.Cut(line, ":")
		r.Header.Add(name, value)
	}
	r.Header.Set("X-Amz-Date", "20150830T123600Z")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders="+c.signed+", Signature="+c.signature)
	v := suiteVerifier()
	for b.Loop() {
		if _, err := v.Verify(b.Context(), r, nil); err != nil {
			b.Fatal(err)
		}
	}
}
