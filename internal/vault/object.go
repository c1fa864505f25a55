package vault

import (
	"context"
	"errors"
	"fmt"
	"io"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/envelope"
	"lifeboat/internal/vault/seal"
)

// firstRead is enough for most manifests, without what is attached to them.
const firstRead = 8 << 10

// readEnvelope reads and opens the envelope that begins an object. An absent object
// is blob.ErrAbsent: what that means is the caller's to say.
func readEnvelope(ctx context.Context, store blob.Store, name string, kind envelope.Kind, key seal.Key) (*envelope.Envelope, error) {
	b := make([]byte, firstRead)
	n, err := store.ReadAt(ctx, name, b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	b = b[:n]
	_, length, err := envelope.DecodeHeader(name, kind, b)
	if err != nil {
		return nil, err
	}
	if length > int64(n) {
		size, err := store.Size(ctx, name) // before believing the length
		if err != nil {
			return nil, err
		}
		if size < length {
			return nil, &CorruptError{Object: name, Offset: size, Reason: "truncated"}
		}
		b = append(b, make([]byte, length-int64(n))...)
		if err := readFull(ctx, store, name, b[n:], int64(n)); err != nil {
			return nil, err
		}
	}
	return envelope.Decode(name, kind, b, key)
}

// readSealed is readEnvelope for objects sealed with a data key. One that is not sealed
// as this vault seals may have been forged.
func (v *Vault) readSealed(ctx context.Context, name string, kind envelope.Kind, key seal.Key) (*envelope.Envelope, error) {
	env, err := readEnvelope(ctx, v.store, name, kind, key)
	if err != nil {
		return nil, err
	}
	if env.Cipher != v.cipher {
		return nil, &CorruptError{Object: name, Offset: 10, Reason: "forged: it is not encrypted as this vault is"}
	}
	return env, nil
}

// reader is what reading takes of a store.
type reader interface {
	ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error)
}

// readFull fills p. An object that ends before, or is not there although another
// one names it, is damage.
func readFull(ctx context.Context, store reader, name string, p []byte, off int64) error {
	n, err := store.ReadAt(ctx, name, p, off)
	switch {
	case n == len(p):
		return nil
	case errors.Is(err, blob.ErrAbsent):
		return &missingError{CorruptError{Object: name, Reason: "absent, although it is needed"}}
	case errors.Is(err, io.EOF):
		return &CorruptError{Object: name, Offset: off + int64(n), Reason: "truncated"}
	case err == nil:
		return fmt.Errorf("read %s at %d: %w", name, off, io.ErrNoProgress)
	}
	return err
}

// missingError is damage unless the object was folded away since its name was learnt.
type missingError struct{ CorruptError }

func (e *missingError) Unwrap() error { return &e.CorruptError }

// missing tells whether an error is about an object that is not there.
func missing(err error) bool {
	var m *missingError
	return errors.As(err, &m)
}

// damaged tells whether an error is about the stored bytes themselves, and not
// about reaching them.
func damaged(err error) bool {
	var corrupt *CorruptError
	return errors.As(err, &corrupt)
}
