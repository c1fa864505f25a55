package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/envelope"
)

// A checkpoint holds the whole state of a branch at one manifest, so that opening
// it reads few manifests. It is derived: when it is absent or damaged, an
// older one or the first manifest serves as well.

// checkpoint writes st in the background and deletes all but the one before it.
func (b *branch) checkpoint(st *state) {
	name := checkpointName(b.server, b.name, st.number)
	b.v.background("checkpoint "+branchFolder(b.server, b.name), func(ctx context.Context) error {
		stored, _, err := envelope.Encode(envelope.Header{
			Kind: envelope.Checkpoint, Cipher: b.v.cipher, Number: st.number,
			Server: string(b.server), Branch: b.name, Link: st.hash,
		}, b.key, putEdits(st.edits()))
		if err != nil {
			return err
		}
		if err := b.v.store.PutIfAbsent(ctx, name, stored); err != nil && !errors.Is(err, blob.ErrExists) {
			return err
		}
		names, err := b.v.store.List(ctx, branchFolder(b.server, b.name))
		if err != nil {
			return err
		}
		numbers := numbered(names, ".checkpoint")
		for _, n := range numbers[:max(0, len(numbers)-2)] {
			err := b.v.store.Delete(ctx, checkpointName(b.server, b.name, n))
			if err != nil && !errors.Is(err, blob.ErrAbsent) {
				return err
			}
		}
		return nil
	})
}

// startingState returns the newest state a checkpoint holds, not after manifest
// last; without one, the state before the first manifest.
func (b *branch) startingState(ctx context.Context, names []string, last uint64) (*state, error) {
	for _, n := range slices.Backward(numbered(names, ".checkpoint")) {
		if n > last {
			continue
		}
		st, err := b.readCheckpoint(ctx, n)
		switch {
		case err == nil:
			return st, nil
		case damaged(err):
			b.v.log.Warn("checkpoint is of no use, going back further", "err", err)
			// It would keep a good one from being written.
			if err := b.v.store.Delete(ctx, checkpointName(b.server, b.name, n)); err != nil && !errors.Is(err, blob.ErrAbsent) {
				b.v.log.Warn("delete damaged checkpoint", "err", err)
			}
		case errors.Is(err, ErrNewerFormat): // of use to a newer program only
		case !errors.Is(err, blob.ErrAbsent):
			return nil, err
		}
	}
	return &state{server: b.server, branch: b.name}, nil
}

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
	before := &state{server: b.server, branch: b.name, segments: newShared[segmentRef](len(edits))}
	st, err := before.next(number, env.Link, edits)
	if err != nil {
		return nil, corrupt(err.Error())
	}
	return st, nil
}
