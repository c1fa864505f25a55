package iam

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"lifeboat/internal/drs"
)

// InstallTokenLife is how long an install token is good for by default.
const InstallTokenLife = 24 * time.Hour

// What is wrong with an install token. Each text tells the next step.
var (
	ErrTokenMalformed = errors.New("this is not an install token: copy the whole of LIFEBOAT_TOKEN as `lifeboat env` prints it")
	ErrTokenForeign   = errors.New("the install token was made by another server or was changed: run `lifeboat env` on this server for a fresh one")
	ErrTokenExpired   = errors.New("the install token has expired: run `lifeboat env` on the server for a fresh one")
)

const (
	tokenPrefix  = "lbt2." // the format's version
	tokenPurpose = "install token v1"
	tokenNonce   = 12
	tokenFixed   = 16 + tokenNonce // issue in ms, expiry in s, nonce; then account ID, "/", region
	tokenMAC     = sha256.Size
	maxToken     = 512
)

// InstallTokens issues and checks the tokens with which agents register. They
// are not stored: a token is an account, an expiry and a nonce under an HMAC
// whose key is derived from the master key. Safe for concurrent use.
type InstallTokens struct {
	key []byte
	now func() time.Time
}

// NewInstallTokens returns the issuer that belongs to a master key; now is the
// clock, nil for the system's.
func NewInstallTokens(master []byte, now func() time.Time) (*InstallTokens, error) {
	key, err := DeriveKey(master, tokenPurpose)
	if err != nil {
		return nil, err
	}
	if now == nil {
		now = time.Now
	}
	return &InstallTokens{key: key, now: now}, nil
}

// Issue makes a token that registers agents to an account for the given time;
// it can be used any number of times until then.
func (t *InstallTokens) Issue(account drs.Account, life time.Duration) Secret {
	body := make([]byte, tokenFixed, tokenFixed+len(account.ID)+1+len(account.Region)+tokenMAC)
	now := t.now()
	binary.BigEndian.PutUint64(body, uint64(now.UnixMilli()))
	binary.BigEndian.PutUint64(body[8:], uint64(now.Add(life).Unix()))
	rand.Read(body[16:tokenFixed])
	body = append(body, account.ID+"/"+account.Region...)
	body = append(body, t.mac(body)...)
	return Secret(tokenPrefix + base64.RawURLEncoding.EncodeToString(body))
}

// Check returns the account that a token registers agents to, or
// ErrTokenMalformed, ErrTokenForeign or ErrTokenExpired. Surrounding white space
// does no harm.
func (t *InstallTokens) Check(token string) (drs.Account, error) {
	account, _, err := t.open(token)
	return account, err
}

// Issued returns when a good token was made, by the clock of the server: who holds
// it was trusted then. The errors are those of Check.
func (t *InstallTokens) Issued(token string) (time.Time, error) {
	_, issued, err := t.open(token)
	return issued, err
}

func (t *InstallTokens) open(token string) (account drs.Account, issued time.Time, err error) {
	encoded, ok := strings.CutPrefix(strings.TrimSpace(token), tokenPrefix)
	if !ok || len(encoded) > maxToken {
		return account, issued, ErrTokenMalformed
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) < tokenFixed+tokenMAC {
		return account, issued, ErrTokenMalformed
	}
	body, mac := raw[:len(raw)-tokenMAC], raw[len(raw)-tokenMAC:]
	if !hmac.Equal(mac, t.mac(body)) {
		return account, issued, ErrTokenForeign
	}
	expires := time.Unix(int64(binary.BigEndian.Uint64(body[8:])), 0)
	if !t.now().Before(expires) {
		return account, issued, ErrTokenExpired
	}
	id, region, _ := strings.Cut(string(body[tokenFixed:]), "/")
	return drs.Account{ID: id, Region: region}, time.UnixMilli(int64(binary.BigEndian.Uint64(body))), nil
}

func (t *InstallTokens) mac(body []byte) []byte {
	h := hmac.New(sha256.New, t.key)
	h.Write([]byte(tokenPrefix))
	h.Write(body)
	return h.Sum(nil)
}
