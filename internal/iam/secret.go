package iam

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
)

// Secret is a string that must not appear in logs, errors or JSON. Reveal gives
// its text to the one place that needs it.
type Secret string

const redacted = "[redacted]"

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String hides the secret.
func (s Secret) String() string { return redacted }

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return redacted }

// Format hides the secret from every verb, %x and %q included.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue hides the secret from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the secret from encoding/json and the like.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// minMasterKey is the least number of bytes of a master key.
const minMasterKey = 32

// DeriveKey returns a 32-byte key for one purpose, derived from the server's
// master key by HKDF-SHA256. Different purposes give unrelated keys, and none of
// them tells the master key. The master key must be random and at least 32 bytes.
func DeriveKey(master []byte, purpose string) ([]byte, error) {
	if len(master) < minMasterKey {
		return nil, fmt.Errorf("derive key for %s: master key has %d bytes, want at least %d", purpose, len(master), minMasterKey)
	}
	key, err := hkdf.Key(sha256.New, master, nil, "lifeboat "+purpose, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive key for %s: %w", purpose, err)
	}
	return key, nil
}
