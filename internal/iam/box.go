package iam

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
)

// Box seals small secrets with AES-256-GCM under a key derived from the master
// key for one purpose. Safe for concurrent use.
type Box struct{ aead cipher.AEAD }

// ErrSealed: a sealed secret does not open. It was changed, belongs to something
// else, or another master key sealed it.
var ErrSealed = errors.New("the sealed secret does not open: it was changed, or the master key is not the one that sealed it")

// NewBox returns the box of a purpose.
func NewBox(master []byte, purpose string) (*Box, error) {
	key, err := DeriveKey(master, purpose)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("box for %s: %w", purpose, err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("box for %s: %w", purpose, err)
	}
	return &Box{aead}, nil
}

// Seal returns a random nonce, then ciphertext and tag. The secret opens only
// together with bound, which says whose it is.
func (b *Box) Seal(secret []byte, bound string) []byte {
	nonce := make([]byte, b.aead.NonceSize())
	rand.Read(nonce) // never fails: crypto/rand aborts the program instead
	return b.aead.Seal(nonce, nonce, secret, []byte(bound))
}

// Open returns what Seal was given, or ErrSealed.
func (b *Box) Open(sealed []byte, bound string) ([]byte, error) {
	n := b.aead.NonceSize()
	if len(sealed) < n {
		return nil, ErrSealed
	}
	secret, err := b.aead.Open(nil, sealed[:n], sealed[n:], []byte(bound))
	if err != nil {
		return nil, ErrSealed
	}
	return secret, nil
}
