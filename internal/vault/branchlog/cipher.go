package branchlog

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// KeySize is the length of a log's key, in bytes.
const KeySize = 32

// A file's key is derived from the log's key and the file's random salt, and
// its nonces are the group's sequence and the block's index in the group. A
// sequence is used once in the life of a process, even when the write fails, and
// a file is never appended to by a later process: so no pair of key and nonce
// ever seals two different things.

// fileKey seals and opens what lies in one file. It is safe for concurrent use.
type fileKey struct {
	aead  cipher.AEAD // nil: stored in the clear
	stamp [8]byte     // of the salt; ties a group to its file
}

func newFileKey(key []byte, salt [32]byte) (*fileKey, error) {
	k := &fileKey{stamp: [8]byte(salt[:8])}
	if key == nil {
		return k, nil
	}
	derived, err := derive(key, salt, "lifeboat branch log 1 file", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		return nil, err
	}
	return k, nil
}

// keyCheck is what tells a wrong key from a damaged log.
func keyCheck(key []byte, salt [32]byte) (c [16]byte, err error) {
	if key == nil {
		return c, nil
	}
	b, err := derive(key, salt, "lifeboat branch log 1 check", len(c))
	if err != nil {
		return c, err
	}
	return [16]byte(b), nil
}

func derive(key []byte, salt [32]byte, purpose string, n int) ([]byte, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("a branch log's key has %d bytes, not %d", KeySize, len(key))
	}
	return hkdf.Key(sha256.New, key, salt[:], purpose, n)
}

func nonce(sequence uint64, index uint32) (n [12]byte) {
	binary.LittleEndian.PutUint64(n[:], sequence)
	binary.LittleEndian.PutUint32(n[8:], index)
	return n
}

// sealBlock stores plain in dst, which has room for the tag behind it, and the
// tag in tag.
func (k *fileKey) sealBlock(dst, tag []byte, sequence uint64, index uint32, plain []byte) {
	if k.aead == nil {
		copy(dst, plain)
		return
	}
	n := nonce(sequence, index)
	k.aead.Seal(dst[:0], n[:], plain, nil)
	copy(tag, dst[BlockSize:])
}

var errAuth = errors.New("does not authenticate")

// openBlock opens the stored block with its tag behind it into dst.
func (k *fileKey) openBlock(dst, stored []byte, sequence uint64, index uint32) error {
	n := nonce(sequence, index)
	if _, err := k.aead.Open(dst[:0], n[:], stored, nil); err != nil {
		return errAuth
	}
	return nil
}

// sealHeader encrypts the spans of a group header in place and puts the tag that
// covers the rest of it, from the sequence to the end of the table, at its place.
func (k *fileKey) sealHeader(h []byte, sequence uint64, table int, spans []byte) {
	if k.aead == nil {
		return
	}
	var out [maxGroupExtents*extentLen + tagLen]byte
	n := nonce(sequence, headerNonce)
	sealed := k.aead.Seal(out[:0], n[:], spans, h[24:table])
	copy(spans, sealed)
	copy(h[8:24], sealed[len(spans):])
}

// openHeader returns the spans of a group header in the clear.
func (k *fileKey) openHeader(h []byte, sequence uint64, table, length int) ([]byte, error) {
	spans := h[table : table+length]
	if k.aead == nil {
		return spans, nil
	}
	var in [maxGroupExtents*extentLen + tagLen]byte
	sealed := append(append(in[:0], spans...), h[8:24]...)
	n := nonce(sequence, headerNonce)
	if _, err := k.aead.Open(spans[:0], n[:], sealed, h[24:table]); err != nil {
		return nil, fmt.Errorf("group header %w", errAuth)
	}
	return spans, nil
}
