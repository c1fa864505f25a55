package vault

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/envelope"
	"lifeboat/internal/vault/seal"
)

// CreateServer gives a source server a data key and an empty main branch, durably.
// ErrExists: it has them. A creation that was cut short, after which the main branch
// is ErrAbsent, is completed.
func (v *Vault) CreateServer(ctx context.Context, server drs.SourceServerID) error {
	if err := checkServer(server); err != nil {
		return fmt.Errorf("create server: %w", err)
	}
	if err := v.createServer(ctx, server); err != nil {
		return fmt.Errorf("create server %s: %w", server, err)
	}
	return nil
}

func (v *Vault) createServer(ctx context.Context, server drs.SourceServerID) error {
	// The key is there before anything is sealed with it; which one counts is
	// settled by the store. The branch's first manifest completes the server.
	there, err := v.store.List(ctx, keyFolder(server))
	if err != nil {
		return err
	}
	if len(numbered(there, ".key")) == 0 {
		if err := v.putDataKey(ctx, server, 1, v.keys, seal.NewKey()); err != nil && !errors.Is(err, blob.ErrExists) {
			return err
		}
	}
	dataKey, err := v.dataKey(ctx, server)
	if err != nil {
		return err
	}
	names, err := v.store.List(ctx, branchFolder(server, MainBranch))
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return ErrExists
	}
	if err := v.checkUnused(ctx, server); err != nil {
		return err
	}
	var seed [8]byte
	rand.Read(seed[:])
	first := []edit{seedEdit(binary.LittleEndian.Uint64(seed[:]))}
	return v.beginBranch(ctx, server, MainBranch, dataKey, first)
}

// checkUnused tells a server whose creation was cut short, of which nothing but the key
// is there, from one whose main branch is lost, which is damage.
func (v *Vault) checkUnused(ctx context.Context, server drs.SourceServerID) error {
	names, err := v.store.List(ctx, serverFolder(server))
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return &CorruptError{Object: manifestName(server, MainBranch, 1),
			Reason: "the main branch is lost, although other objects of the server are there: put it back from a copy of the vault"}
	}
	return nil
}

// lostMain tells, of a server without a main branch, whether that is damage; nil: it is
// being created or deleted, or one of both was cut short.
func (v *Vault) lostMain(ctx context.Context, server drs.SourceServerID) (lost *CorruptError, err error) {
	// The main branch is the first thing that a server has and the last to go. Looking
	// from both sides at it tells a loss from what goes on meanwhile.
	unused := v.checkUnused(ctx, server)
	if unused == nil {
		return nil, nil
	}
	names, err := v.store.List(ctx, branchFolder(server, MainBranch))
	if err != nil || len(numbered(names, ".manifest")) > 0 { // a branch, or its end
		return nil, err
	}
	if unused = v.checkUnused(ctx, server); errors.As(unused, &lost) {
		return lost, nil
	}
	return nil, unused
}

// beginBranch commits the first manifest of a branch, or returns ErrExists.
func (v *Vault) beginBranch(ctx context.Context, server drs.SourceServerID, branch string, key seal.Key, edits []edit) error {
	stored, _, err := envelope.Encode(envelope.Header{
		Kind: envelope.Manifest, Cipher: v.cipher, Number: 1, Server: string(server), Branch: branch,
	}, key, putEdits(edits))
	if err != nil {
		return err
	}
	err = v.store.PutIfAbsent(ctx, manifestName(server, branch, 1), stored)
	if errors.Is(err, blob.ErrExists) {
		return ErrExists
	}
	return err
}

// Servers returns the source servers of the vault, sorted.
func (v *Vault) Servers(ctx context.Context) ([]drs.SourceServerID, error) {
	names, err := v.store.List(ctx, keysFolder)
	if err != nil {
		return nil, fmt.Errorf("list servers: %w", err)
	}
	var out []drs.SourceServerID
	for _, name := range folders(names) {
		id, err := drs.ParseSourceServerID(name)
		if err != nil {
			continue // not ours
		}
		out = append(out, id)
	}
	return out, nil
}

// dataKey returns the server's key, or ErrAbsent when there is no such server.
func (v *Vault) dataKey(ctx context.Context, server drs.SourceServerID) (seal.Key, error) {
	v.mu.Lock()
	key, ok := v.dataKeys[server]
	v.mu.Unlock()
	if ok {
		return key, nil
	}
	if err := checkServer(server); err != nil {
		return seal.Key{}, err
	}
	names, err := v.store.List(ctx, keyFolder(server))
	if err != nil {
		return seal.Key{}, err
	}
	numbers := numbered(names, ".key")
	if len(numbers) == 0 {
		return seal.Key{}, fmt.Errorf("server %s: %w", server, ErrAbsent)
	}
	wrapped, err := readDataKey(ctx, v.store, server, numbers, v.keys)
	if err != nil {
		return seal.Key{}, err
	}
	if v.cipher != seal.None {
		if key, err = unwrapKey(ctx, v.keys, wrapped, v.keyBinding(server)); err != nil {
			return seal.Key{}, fmt.Errorf("server %s: %w", server, err)
		}
	}
	v.mu.Lock()
	v.dataKeys[server] = key
	v.mu.Unlock()
	return key, nil
}

func (v *Vault) keyBinding(server drs.SourceServerID) []byte {
	return append(append([]byte("lifeboat server\x00"), v.id[:]...), server...)
}

// putDataKey stores a server's data key under a master key, or returns blob.ErrExists.
func (v *Vault) putDataKey(ctx context.Context, server drs.SourceServerID, number uint64, keys KeyWrapper, key seal.Key) error {
	var wrapped wrappedKey
	if v.cipher != seal.None {
		var err error
		if wrapped, err = wrapKey(ctx, keys, key, v.keyBinding(server)); err != nil {
			return err
		}
	}
	stored, _, err := envelope.Encode(envelope.Header{Kind: envelope.ServerKey, Number: number, Server: string(server)}, seal.Key{}, wrapped.put(nil))
	if err != nil {
		return err
	}
	return v.store.PutIfAbsent(ctx, keyName(server, number), stored)
}

// readDataKey returns the newest of a server's wrapped keys that the master key
// sealed, or when it sealed none, the newest.
func readDataKey(ctx context.Context, store blob.Store, server drs.SourceServerID, numbers []uint64, keys KeyWrapper) (newest wrappedKey, err error) {
	for i, n := range slices.Backward(numbers) {
		name := keyName(server, n)
		env, err := readEnvelope(ctx, store, name, envelope.ServerKey, seal.Key{})
		if err != nil {
			return wrappedKey{}, err
		}
		c := cursor{b: env.Body}
		wrapped := takeWrappedKey(&c)
		if err := c.end(); err != nil || env.Server != string(server) {
			return wrappedKey{}, &CorruptError{Object: name, Reason: "not the key of this server"}
		}
		if keys != nil && wrapped.keyID == keys.ID() {
			return wrapped, nil
		}
		if i == len(numbers)-1 {
			newest = wrapped
		}
	}
	return newest, nil
}
