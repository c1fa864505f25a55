package iam

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"lifeboat/internal/drs"
)

// Sessions issues temporary credentials and recognises them again. They are not
// stored: the session token holds everything, sealed, and no server that lacks the
// master key can read or make one. Safe for concurrent use.
type Sessions struct {
	box *Box
	now func() time.Time
}

const (
	sessionPrefix   = "lbs1." // the format's version
	sessionPurpose  = "session token v1"
	maxSessionToken = 16 << 10
)

// NewSessions returns the issuer that belongs to a master key; now is the clock,
// nil for the system's.
func NewSessions(master []byte, now func() time.Time) (*Sessions, error) {
	box, err := NewBox(master, sessionPurpose)
	if err != nil {
		return nil, err
	}
	if now == nil {
		now = time.Now
	}
	return &Sessions{box, now}, nil
}

// sessionToken is what a token holds.
type sessionToken struct {
	KeyID          string    `json:"k"`
	Secret         string    `json:"s"`
	Kind           Kind      `json:"t"`
	Account        string    `json:"a"`
	Region         string    `json:"r"`
	Name           string    `json:"n,omitempty"`
	ID             string    `json:"i,omitempty"`
	SessionName    string    `json:"sn,omitempty"`
	Issued         time.Time `json:"iat"`
	Expires        time.Time `json:"exp"`
	SourceIdentity string    `json:"src,omitempty"`
	Policy         string    `json:"pol,omitempty"`
}

// Issue makes credentials of a principal, whose Session must be set, and the
// token that goes with them.
func (s *Sessions) Issue(p Principal) (AccessKey, Secret, error) {
	key := NewKeyOf(p)
	text, err := json.Marshal(sessionToken{
		KeyID: key.ID, Secret: key.Secret.Reveal(), Kind: p.Kind, Account: p.Account.ID, Region: p.Account.Region,
		Name: p.Name, ID: p.ID, SessionName: p.Session.Name, Issued: p.Session.Issued, Expires: p.Session.Expires,
		SourceIdentity: p.Session.SourceIdentity, Policy: p.Session.Policy,
	})
	if err != nil {
		return AccessKey{}, "", fmt.Errorf("issue session token: %w", err)
	}
	return key, Secret(sessionPrefix + base64.RawURLEncoding.EncodeToString(s.box.Seal(text, sessionPrefix))), nil
}

// Open returns the credentials of a token, or *AuthError.
func (s *Sessions) Open(token string) (AccessKey, error) {
	encoded, ok := strings.CutPrefix(token, sessionPrefix)
	if !ok || len(encoded) > maxSessionToken {
		return AccessKey{}, refuseKey("it is no session token of this server")
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return AccessKey{}, refuseKey("it is no session token of this server")
	}
	text, err := s.box.Open(sealed, sessionPrefix)
	if errors.Is(err, ErrSealed) {
		return AccessKey{}, refuseKey("the session token was made by another server or was changed")
	}
	var t sessionToken
	if err := json.Unmarshal(text, &t); err != nil {
		return AccessKey{}, fmt.Errorf("read session token: %w", err)
	}
	if !s.now().Before(t.Expires) {
		return AccessKey{}, &AuthError{CodeExpiredToken, http.StatusForbidden,
			"The security token included in the request is expired: it was good until " + t.Expires.UTC().Format(time.RFC3339) + "."}
	}
	return AccessKey{ID: t.KeyID, Secret: Secret(t.Secret), Principal: Principal{
		Kind: t.Kind, Account: drs.Account{ID: t.Account, Region: t.Region}, Name: t.Name, ID: t.ID,
		Session: &Session{Name: t.SessionName, Issued: t.Issued, Expires: t.Expires, SourceIdentity: t.SourceIdentity, Policy: t.Policy},
	}}, nil
}
