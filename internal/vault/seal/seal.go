// Package seal encrypts and authenticates what the vault stores. Each object has
// a key of its own, derived from the server's data key and a random salt, so that
// counting up the nonces inside one object can never repeat one.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
)

// Cipher says how an object is sealed.
type Cipher uint8

const (
	None   Cipher = 0 // plain text, no authentication
	AESGCM Cipher = 1 // AES-256-GCM, 16-byte tags
)

// Known tells whether this program can open what the cipher sealed.
func (c Cipher) Known() bool { return c <= AESGCM }

// Overhead returns how many bytes sealing adds.
func (c Cipher) Overhead() int {
	if c == None {
		return 0
	}
	return 16
}

// Key is a secret. It prints as nothing.
type Key [32]byte

// NewKey returns a random key.
func NewKey() (k Key) {
	rand.Read(k[:])
	return k
}

func (Key) String() string       { return "[secret]" }
func (Key) GoString() string     { return "[secret]" }
func (Key) LogValue() slog.Value { return slog.StringValue("[secret]") }

// Salt makes an object's key unique. It is stored in the clear.
type Salt [32]byte

// NewSalt returns a random salt.
func NewSalt() (s Salt) {
	rand.Read(s[:])
	return s
}

// ErrOpen: the bytes were not sealed with this key, number and context.
var ErrOpen = errors.New("authentication failed: altered bytes or another key")

// Box seals and opens the parts of one object. Safe for concurrent use.
type Box struct{ aead cipher.AEAD } // nil for None

// Box derives the object's own key from the data key. Purpose keeps kinds of
// objects apart.
func (c Cipher) Box(key Key, salt Salt, purpose string) Box {
	switch c {
	case None:
		return Box{}
	case AESGCM:
		own, err := hkdf.Key(sha256.New, key[:], salt[:], purpose, len(key))
		if err != nil {
			panic(fmt.Sprintf("seal: derive key: %v", err)) // fixed sizes cannot fail
		}
		block, err := aes.NewCipher(own)
		if err != nil {
			panic(fmt.Sprintf("seal: %v", err))
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			panic(fmt.Sprintf("seal: %v", err))
		}
		return Box{aead}
	}
	panic(fmt.Sprintf("seal: cipher %d is not known", c))
}

// Seal appends the sealed form of plain to dst. The number must be used once per
// box; context is authenticated and not stored.
func (b Box) Seal(dst []byte, number uint32, plain, context []byte) []byte {
	if b.aead == nil {
		return append(dst, plain...)
	}
	nonce := nonce(number)
	return b.aead.Seal(dst, nonce[:], plain, context)
}

// Open appends the plain form of sealed to dst, or returns ErrOpen. With dst nil
// and no cipher it returns sealed itself.
func (b Box) Open(dst []byte, number uint32, sealed, context []byte) ([]byte, error) {
	if b.aead == nil {
		if dst == nil {
			return sealed, nil
		}
		return append(dst, sealed...), nil
	}
	nonce := nonce(number)
	plain, err := b.aead.Open(dst, nonce[:], sealed, context)
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

func nonce(number uint32) (n [12]byte) {
	binary.LittleEndian.PutUint32(n[:], number)
	return n
}
