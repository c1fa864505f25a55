package vault

import (
	"context"
	"errors"
	"fmt"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/envelope"
)

// A checkpoint holds the whole state of a branch at one manifest, so that older
// manifests are not needed any more. A manifest that says so makes it part of the
// truth; the two newest such checkpoints are kept, so that either of them may be lost.

// writeCheckpoint stores st durably.
func (b *branch) writeCheckpoint(ctx context.Context, st *state) error {
	stored, _, err := envelope.Encode(envelope.Header{
		Kind: envelope.Checkpoint, Cipher: b.v.cipher, Number: st.number,
		Server: string(b.server), Branch: b.name, Link: st.hash,
	}, b.key, putEdits(st.edits()))
	if err != nil {
		return err
	}
	name := checkpointName(b.server, b.name, st.number)
	err = b.v.store.PutIfAbsent(ctx, name, stored)
	if !errors.Is(err, blob.ErrExists) {
		return err
	}
	// Left by one who was cut short, or torn.
	if _, err := b.readCheckpoint(ctx, st.number); !damaged(err) {
		return err
	}
	if err := b.v.store.Delete(ctx, name); err != nil && !errors.Is(err, blob.ErrAbsent) {
		return err
	}
	return b.v.store.PutIfAbsent(ctx, name, stored)
}

// readCheckpoint returns a state with lists of its own.
func (b *branch) readCheckpoint(ctx context.Context, number uint64) (*state, error) {
	name := checkpointName(b.server, b.name, number)
	env, err := b.v.readSealed(ctx, name, envelope.Checkpoint, b.key)
	if err != nil {
		return nil, err
	}
	corrupt := func(reason string) error { return &CorruptError{Object: name, Reason: reason} }
	if env.Number != number || env.Server != string(b.server) || env.Branch != b.name {
		return nil, corrupt("swapped with another checkpoint")
	}
	manifest, err := b.readManifest(ctx, number)
	if err != nil {
		return nil, corrupt(fmt.Sprintf("its manifest is of no use: %v", err))
	}
	if manifest.Hash != env.Link {
		return nil, corrupt("it belongs to another history")
	}
	edits, err := decodeEdits(env.Body)
	if errors.Is(err, ErrNewerFormat) {
		return nil, fmt.Errorf("checkpoint %s: %w", name, err)
	}
	if err != nil {
		return nil, corrupt(err.Error())
	}
	// The room is for the epochs to come.
	before := &state{server: b.server, branch: b.name, private: true, number: number,
		segments: newShared[segmentRef](len(edits) + len(edits)/8)}
	st, err := before.next(number, env.Link, manifest.Salt, edits)
	if err != nil {
		return nil, corrupt(err.Error())
	}
	return st, nil
}
