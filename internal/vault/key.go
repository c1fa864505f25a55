package vault

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"lifeboat/internal/durable"
	"lifeboat/internal/vault/seal"
)

// KeyWrapper seals the data keys of servers under a master key that is never in
// the vault. Safe for concurrent use.
type KeyWrapper interface {
	// ID names the master key without telling anything about it; at most 64 bytes.
	ID() string
	// Wrap seals a data key. Binding must be given to Unwrap again.
	Wrap(ctx context.Context, key, binding []byte) ([]byte, error)
	// Unwrap returns ErrWrongKey when another master key or binding sealed it.
	Unwrap(ctx context.Context, wrapped, binding []byte) ([]byte, error)
}

// KeyFile is a master key kept in a file of 32 bytes.
type KeyFile struct {
	id   string
	aead cipher.AEAD
}

var _ KeyWrapper = (*KeyFile)(nil)

// CreateKeyFile makes a new random master key at path, mode 0600, durably.
// ErrExists: a file is there already, and is left as it is.
func CreateKeyFile(path string) (*KeyFile, error) {
	key := seal.NewKey()
	err := durable.Files{}.CreateFile("create master key", path, key[:], 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create master key %s: %w", path, ErrExists)
	}
	if err != nil {
		return nil, err
	}
	return newKeyFile(key), nil
}

// LoadKeyFile reads the master key at path. ErrAbsent: there is no such file.
func LoadKeyFile(path string) (*KeyFile, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("master key %s: %w: put the file back from your copy; nothing else can open the vault", path, ErrAbsent)
	}
	if err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("master key %s may be read by others (mode %04o): run chmod 600 %s", path, info.Mode().Perm(), filepath.Base(path))
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("master key: %w", err)
	}
	if len(raw) != len(seal.Key{}) {
		return nil, fmt.Errorf("master key %s holds %d bytes, want %d: put the file back from your copy", path, len(raw), len(seal.Key{}))
	}
	return newKeyFile(seal.Key(raw)), nil
}

func newKeyFile(key seal.Key) *KeyFile {
	id := sha256.Sum256(append([]byte("lifeboat master key id\x00"), key[:]...))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the key's length is right
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return &KeyFile{id: "file-" + hex.EncodeToString(id[:8]), aead: aead}
}

// ID implements KeyWrapper.
func (k *KeyFile) ID() string { return k.id }

// Wrap implements KeyWrapper: AES-256-GCM under a random nonce, which leads the result.
func (k *KeyFile) Wrap(_ context.Context, key, binding []byte) ([]byte, error) {
	nonce := make([]byte, k.aead.NonceSize())
	rand.Read(nonce)
	return k.aead.Seal(nonce, nonce, key, binding), nil
}

// Unwrap implements KeyWrapper.
func (k *KeyFile) Unwrap(_ context.Context, wrapped, binding []byte) ([]byte, error) {
	n := k.aead.NonceSize()
	if len(wrapped) < n {
		return nil, ErrWrongKey
	}
	key, err := k.aead.Open(nil, wrapped[:n], wrapped[n:], binding)
	if err != nil {
		return nil, ErrWrongKey
	}
	return key, nil
}

// wrappedKey is a key as it is stored.
type wrappedKey struct {
	keyID  string // of the master key
	sealed []byte
}

func (w wrappedKey) put(b []byte) []byte { return putString(putString(b, w.keyID), string(w.sealed)) }

func takeWrappedKey(c *cursor) wrappedKey { return wrappedKey{c.str(), []byte(c.str())} }

func wrapKey(ctx context.Context, keys KeyWrapper, key seal.Key, binding []byte) (wrappedKey, error) {
	sealed, err := keys.Wrap(ctx, key[:], binding)
	if err != nil {
		return wrappedKey{}, fmt.Errorf("wrap data key: %w", err)
	}
	if len(keys.ID()) > 64 || len(sealed) > 4096 {
		return wrappedKey{}, fmt.Errorf("wrap data key: master key ID of %d and wrapped key of %d bytes: want at most 64 and 4096", len(keys.ID()), len(sealed))
	}
	return wrappedKey{keys.ID(), sealed}, nil
}

func unwrapKey(ctx context.Context, keys KeyWrapper, w wrappedKey, binding []byte) (seal.Key, error) {
	if w.keyID != keys.ID() {
		return seal.Key{}, fmt.Errorf("%w: it is sealed with master key %s, the given one is %s", ErrWrongKey, w.keyID, keys.ID())
	}
	raw, err := keys.Unwrap(ctx, w.sealed, binding)
	if err != nil {
		return seal.Key{}, fmt.Errorf("unwrap data key: %w", err)
	}
	if len(raw) != len(seal.Key{}) {
		return seal.Key{}, fmt.Errorf("unwrap data key: %d bytes: %w", len(raw), ErrWrongKey)
	}
	return seal.Key(raw), nil
}
