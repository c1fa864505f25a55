package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/envelope"
	"lifeboat/internal/vault/seal"
)

// root is the object that makes a store a vault. While the master key is being changed
// there are two that differ in nothing but it; the highest number is the newest.
type root struct {
	number uint64
	id     [16]byte
	cipher seal.Cipher
	own    wrappedKey // seals what is of the vault as a whole; tells a wrong master key at once
	before string     // ID of the master key that this one's replaced; empty in the first
}

func (r root) binding() []byte { return append([]byte("lifeboat vault\x00"), r.id[:]...) }

func (r root) body() []byte {
	b := append(r.id[:], byte(r.cipher))
	return r.own.put(b)
}

// put stores a root, or returns blob.ErrExists.
func (r root) put(ctx context.Context, store blob.Store) error {
	stored, _, err := envelope.Encode(envelope.Header{Kind: envelope.Root, Number: r.number, Branch: r.before}, seal.Key{}, r.body())
	if err != nil {
		return err
	}
	return store.PutIfAbsent(ctx, rootName(r.number), stored)
}

// open unwraps the vault's own key.
func (r root) open(ctx context.Context, keys KeyWrapper) (seal.Key, error) {
	if r.cipher == seal.None {
		return seal.Key{}, nil
	}
	if keys == nil {
		return seal.Key{}, fmt.Errorf("it is encrypted, and its master key %s was not given: %w", r.own.keyID, ErrWrongKey)
	}
	if r.before != "" && r.before == keys.ID() {
		return seal.Key{}, fmt.Errorf("%w: the given one, %s, is older: it was replaced by %s, which the vault is sealed with now", ErrWrongKey, r.before, r.own.keyID)
	}
	return unwrapKey(ctx, keys, r.own, r.binding())
}

// readRoot returns the newest root that is sealed with the master key, or when none
// is, the newest.
func readRoot(ctx context.Context, store blob.Store, keys KeyWrapper) (root, error) {
	roots, err := readRoots(ctx, store)
	if err != nil {
		return root{}, err
	}
	for _, r := range slices.Backward(roots) {
		if keys != nil && r.own.keyID == keys.ID() {
			return r, nil
		}
	}
	return roots[len(roots)-1], nil
}

// readRoots returns all roots, at least one, ascending.
func readRoots(ctx context.Context, store blob.Store) ([]root, error) {
	names, err := store.List(ctx, rootFolder)
	if err != nil {
		return nil, err
	}
	var roots []root
	for _, n := range numbered(names, ".root") {
		r, err := readRootNumber(ctx, store, n)
		if errors.Is(err, blob.ErrAbsent) {
			continue // the end of a change of the master key removed it just now
		}
		if err != nil {
			return nil, err
		}
		roots = append(roots, r)
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("%w: check the path, or create one", ErrNotVault)
	}
	return roots, nil
}

func readRootNumber(ctx context.Context, store blob.Store, number uint64) (root, error) {
	name := rootName(number)
	env, err := readEnvelope(ctx, store, name, envelope.Root, seal.Key{})
	if err != nil {
		return root{}, err
	}
	c := cursor{b: env.Body}
	r := root{number: number, before: env.Branch}
	copy(r.id[:], c.take(16))
	r.cipher = seal.Cipher(c.u8())
	r.own = takeWrappedKey(&c)
	if err := c.end(); err != nil || !r.cipher.Known() || env.Number != number {
		return root{}, &CorruptError{Object: name, Offset: envelope.HeaderSize, Reason: "impossible body"}
	}
	return r, nil
}
