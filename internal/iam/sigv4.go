package iam

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// MaxSkew is how far the clocks of a client and the server may differ.
const MaxSkew = 15 * time.Minute

const (
	signingAlgorithm  = "AWS4-HMAC-SHA256"
	signingTerminator = "aws4_request"
	amzDateForm       = "20060102T150405Z"
	scopeDateForm     = "20060102"
)

// ErrUnknownKey is what a KeySource answers for an ID that it does not have.
var ErrUnknownKey = errors.New("no such access key")

// KeySource finds access keys by ID. It answers ErrUnknownKey for an absent one;
// any other error means that it could not look.
type KeySource interface {
	AccessKey(ctx context.Context, id string) (AccessKey, error)
}

// Verifier checks AWS Signature Version 4 in the Authorization header. It is
// safe for concurrent use.
//
// The canonical request is rebuilt from what the server received, never from
// what the client claims: the body's hash is computed, so UNSIGNED-PAYLOAD and
// streaming signatures cannot pass.
type Verifier struct {
	Service string // the signing name, as in "drs"
	Region  string // requests must be signed for this one
	Keys    KeySource
	Now     func() time.Time // nil: the system's clock
}

// Verify answers the access key that signed the request whose whole body is
// given, or *AuthError. Other errors mean that Keys could not look.
func (v *Verifier) Verify(ctx context.Context, r *http.Request, body []byte) (AccessKey, error) {
	auth, err := parseAuthorization(r)
	if err != nil {
		return AccessKey{}, err
	}
	signed, err := signingTime(r)
	if err != nil {
		return AccessKey{}, err
	}
	if err := v.checkScope(auth, signed); err != nil {
		return AccessKey{}, err
	}
	if err := v.checkClock(signed); err != nil {
		return AccessKey{}, err
	}
	if r.Header.Get("X-Amz-Security-Token") != "" {
		return AccessKey{}, refuseKey("this server issues no session tokens; unset AWS_SESSION_TOKEN")
	}
	key, err := v.Keys.AccessKey(ctx, auth.keyID)
	if errors.Is(err, ErrUnknownKey) {
		return AccessKey{}, refuseKey("no access key has this ID; `lifeboat env` prints the right one")
	}
	if err != nil {
		return AccessKey{}, fmt.Errorf("look up access key %s: %w", auth.keyID, err)
	}

	canonical, err := canonicalRequest(r, auth.signedHeaders, hexSHA256(body))
	if err != nil {
		return AccessKey{}, err
	}
	want := signature(key.Secret, auth, signed, canonical)
	if !hmac.Equal([]byte(want), []byte(auth.signature)) {
		return AccessKey{}, mismatch(r, body)
	}
	return key, nil
}

// checkScope refuses a signature that was made for something else.
func (v *Verifier) checkScope(auth authorization, signed time.Time) error {
	switch date := signed.Format(scopeDateForm); {
	case auth.terminator != signingTerminator:
		return refuseSignature("Credential should be scoped with a valid terminator: '%s', not '%s'.", signingTerminator, auth.terminator)
	case auth.service != v.Service:
		return refuseSignature("Credential should be scoped to correct service: '%s'.", v.Service)
	case auth.region != v.Region:
		return refuseSignature("Credential should be scoped to a valid region: '%s', not '%s'. Set AWS_REGION to it.", v.Region, auth.region)
	case auth.date != date:
		return refuseSignature("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s', from '%s'.",
			auth.date, date, signed.Format(amzDateForm))
	}
	return nil
}

func (v *Verifier) checkClock(signed time.Time) error {
	now := time.Now
	if v.Now != nil {
		now = v.Now
	}
	at, minutes := now().UTC(), int(MaxSkew.Minutes())
	switch earliest, latest := at.Add(-MaxSkew), at.Add(MaxSkew); {
	case signed.Before(earliest):
		return refuseTime("Signature expired: %s is now earlier than %s (%s - %d min.)",
			signed.Format(amzDateForm), earliest.Format(amzDateForm), at.Format(amzDateForm), minutes)
	case signed.After(latest):
		return refuseTime("Signature not yet current: %s is still later than %s (%s + %d min.)",
			signed.Format(amzDateForm), latest.Format(amzDateForm), at.Format(amzDateForm), minutes)
	}
	return nil
}

// signature computes what the client should have sent.
func signature(secret Secret, auth authorization, signed time.Time, canonical string) string {
	scope := strings.Join([]string{auth.date, auth.region, auth.service, auth.terminator}, "/")
	toSign := strings.Join([]string{
		signingAlgorithm, signed.Format(amzDateForm), scope, hexSHA256([]byte(canonical)),
	}, "\n")
	key := []byte("AWS4" + secret.Reveal())
	for _, part := range []string{auth.date, auth.region, auth.service, auth.terminator} {
		key = hmacSHA256(key, part)
	}
	return hex.EncodeToString(hmacSHA256(key, toSign))
}

func hmacSHA256(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func hexSHA256(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// authorization is a parsed Authorization header.
type authorization struct {
	keyID, date, region, service, terminator string // the credential
	signedHeaders                            []string
	signature                                string
}

func parseAuthorization(r *http.Request) (authorization, error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		if query := r.URL.Query(); query.Has("X-Amz-Signature") || query.Has("X-Amz-Algorithm") {
			return authorization{}, refuseForm("Presigned URLs are not accepted here: sign the request in its Authorization header.")
		}
		return authorization{}, refuseAnonymous()
	}
	if len(values) > 1 {
		return authorization{}, refuseForm("The request has %d Authorization headers, want one.", len(values))
	}
	algorithm, params, _ := strings.Cut(strings.TrimSpace(values[0]), " ")
	if algorithm != signingAlgorithm {
		return authorization{}, refuseForm("Unsupported AWS 'algorithm': '%s'. Use %s.", algorithm, signingAlgorithm)
	}
	var auth authorization
	var credential string
	seen := map[string]bool{}
	for part := range strings.SplitSeq(params, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return authorization{}, refuseForm("'%s' not a valid key=value pair (missing equal-sign) in Authorization header.", strings.TrimSpace(part))
		}
		if seen[name] {
			return authorization{}, refuseForm("Authorization header has '%s' twice.", name)
		}
		seen[name] = true
		switch name {
		case "Credential":
			credential = value
		case "SignedHeaders":
			auth.signedHeaders = strings.Split(value, ";")
		case "Signature":
			auth.signature = value
		}
	}
	for _, name := range []string{"Credential", "Signature", "SignedHeaders"} {
		if !seen[name] {
			return authorization{}, refuseForm("Authorization header requires '%s' parameter.", name)
		}
	}
	scope := strings.Split(credential, "/")
	if len(scope) != 5 {
		return authorization{}, refuseForm("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.")
	}
	auth.keyID, auth.date, auth.region, auth.service, auth.terminator = scope[0], scope[1], scope[2], scope[3], scope[4]
	return auth, nil
}

// signingTime is the moment that the client claims to have signed at. The value
// goes into the signature, so it cannot be changed on the way.
func signingTime(r *http.Request) (time.Time, error) {
	name, forms := "X-Amz-Date", []string{amzDateForm}
	if r.Header.Get(name) == "" {
		name, forms = "Date", []string{amzDateForm, time.RFC3339, http.TimeFormat}
	}
	values := r.Header.Values(name)
	if len(values) != 1 {
		return time.Time{}, refuseForm("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
	}
	for _, form := range forms {
		if at, err := time.Parse(form, values[0]); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, refuseForm("Date must be in ISO-8601 'basic format'. Got '%s'. See http://en.wikipedia.org/wiki/ISO_8601", values[0])
}

// mismatch says what is most likely wrong with a signature that does not match.
func mismatch(r *http.Request, body []byte) error {
	switch claimed := r.Header.Get("X-Amz-Content-Sha256"); {
	case claimed == "UNSIGNED-PAYLOAD" || strings.HasPrefix(claimed, "STREAMING-"):
		return refuseSignature("The payload must be signed: '%s' is not accepted as its hash.", claimed)
	case claimed != "" && !strings.EqualFold(claimed, hexSHA256(body)):
		return refuseSignature("The hash of the payload that arrived is not the x-amz-content-sha256 of the request: it was changed on the way.")
	}
	return refuseSignature("The request signature we calculated does not match the signature you provided. " +
		"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
}

// rawTarget returns the path and query exactly as they came.
func rawTarget(r *http.Request) (path, query string) {
	target := r.RequestURI
	if !strings.HasPrefix(target, "/") { // absolute form, or a request made in memory
		target = (&url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}).RequestURI()
	}
	path, query, _ = strings.Cut(target, "?")
	return path, query
}
