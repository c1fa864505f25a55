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

// MaxSkew is how far the clocks of a client and the server may differ, as AWS
// documents it.
const MaxSkew = 5 * time.Minute

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

// Verifier checks AWS Signature Version 4, in the Authorization header or in the
// query of a presigned URL. It is safe for concurrent use; its fields must not
// change once it is used.
//
// The canonical request is rebuilt from what the server received, never from
// what the client claims: the body's hash is computed, so UNSIGNED-PAYLOAD and
// streaming signatures cannot pass.
type Verifier struct {
	Service string // the signing name, as in "drs"
	Region  string // requests must be signed for this one
	// Global also accepts the region us-east-1, for which the clients of global
	// services sign.
	Global bool
	Keys   KeySource
	// Sessions opens the tokens of temporary credentials; nil: there are none.
	Sessions *Sessions
	// Once tells which requests are accepted a single time; nil: none. Reading
	// again what was read is no replay worth refusing, and clients that sign by the
	// second do it rightly.
	Once func(r *http.Request, body []byte) bool
	// Replays remembers what was accepted once, of several verifiers alike; nil: each
	// has a memory of its own that ends with the process.
	Replays *Replays
	Now     func() time.Time // nil: the system's clock

	own Replays
}

// Verify answers the access key that signed the request whose whole body is
// given, or *AuthError. Other errors mean that Keys could not look.
func (v *Verifier) Verify(ctx context.Context, r *http.Request, body []byte) (AccessKey, error) {
	auth, err := parseSignature(r)
	if err != nil {
		return AccessKey{}, err
	}
	if err := v.checkScope(auth, auth.at); err != nil {
		return AccessKey{}, err
	}
	now := v.now()
	if err := checkClock(auth, now); err != nil {
		return AccessKey{}, err
	}
	key, err := v.key(ctx, auth)
	if err != nil {
		return AccessKey{}, err
	}
	canonical, err := canonicalRequest(r, auth.signedHeaders, auth.presigned, hexSHA256(body))
	if err != nil {
		return AccessKey{}, err
	}
	want := signature(key.Secret, auth, auth.at, canonical)
	if !hmac.Equal([]byte(want), []byte(auth.signature)) {
		return AccessKey{}, mismatch(r, body)
	}
	if v.Once != nil && v.Once(r, body) {
		if auth.presigned {
			return AccessKey{}, refuseForm("Presigned URLs are for reading only: sign a change in its Authorization header.")
		}
		seen := v.Replays
		if seen == nil {
			seen = &v.own
		}
		if seen.first(want, now, replayWindow) {
			return key, nil
		}
		return AccessKey{}, refuseReplay()
	}
	return key, nil
}

func (v *Verifier) now() time.Time {
	if v.Now != nil {
		return v.Now().UTC()
	}
	return time.Now().UTC()
}

// key finds the secret to check with: that of the session, or of the access key.
func (v *Verifier) key(ctx context.Context, auth authorization) (AccessKey, error) {
	if auth.token != "" {
		if v.Sessions == nil {
			return AccessKey{}, refuseKey("this server issues no session tokens; unset AWS_SESSION_TOKEN")
		}
		key, err := v.Sessions.Open(auth.token)
		if err == nil && key.ID != auth.keyID {
			err = refuseKey("the session token belongs to another access key")
		}
		return key, err
	}
	if strings.HasPrefix(auth.keyID, "ASIA") {
		return AccessKey{}, refuseKey("temporary credentials need their session token; set AWS_SESSION_TOKEN")
	}
	key, err := v.Keys.AccessKey(ctx, auth.keyID)
	if errors.Is(err, ErrUnknownKey) {
		return AccessKey{}, refuseKey("no active access key has this ID; `lifeboat env` prints the right one")
	}
	if err != nil {
		return AccessKey{}, fmt.Errorf("look up access key %s: %w", auth.keyID, err)
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
	case auth.region != v.Region && (!v.Global || auth.region != "us-east-1"):
		return refuseSignature("Credential should be scoped to a valid region: '%s', not '%s'. Set AWS_REGION to it.", v.Region, auth.region)
	case auth.date != date:
		return refuseSignature("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s', from '%s'.",
			auth.date, date, signed.Format(amzDateForm))
	}
	return nil
}

func checkClock(auth authorization, at time.Time) error {
	minutes := int(MaxSkew.Minutes())
	earliest, latest := at.Add(-MaxSkew), at.Add(MaxSkew)
	switch signed := auth.at; {
	case auth.presigned && !at.Before(signed.Add(auth.expires)):
		return refuseTime("The presigned URL has expired: it was good for %s from %s on.", auth.expires, signed.Format(amzDateForm))
	case !auth.presigned && signed.Before(earliest):
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
