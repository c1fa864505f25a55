package vault

import (
	"context"
	"errors"
	"fmt"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/envelope"
)

// commit creates the manifest that follows st: the one act that makes edits part
// of the branch. Body is their stored form, inline what is attached.
func (b *branch) commit(ctx context.Context, st *state, edits []edit, body, inline []byte) (*state, error) {
	stored, hash, err := envelope.Encode(envelope.Header{
		Kind: envelope.Manifest, Cipher: b.v.cipher, Number: st.number + 1,
		Server: string(b.server), Branch: b.name, Link: st.hash, Attached: uint64(len(inline)),
	}, b.key, body)
	if err != nil {
		return nil, err
	}
	next, err := st.next(st.number+1, hash, edits)
	if err != nil {
		return nil, fmt.Errorf("edits do not fit the branch: %w", err)
	}
	name := manifestName(b.server, b.name, next.number)
	err = b.v.store.PutIfAbsent(ctx, name, stored, inline)
	if errors.Is(err, blob.ErrExists) {
		// A store that repeats a put whose answer was lost finds its own object.
		there, readErr := b.readManifest(ctx, next.number)
		if readErr != nil || there.Hash != hash {
			return nil, ErrFenced
		}
		err = nil
	}
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	if b.st != nil && b.st.number == st.number && b.st.hash == st.hash {
		b.st = next
	}
	b.mu.Unlock()
	if next.number%b.v.limits.checkpoint == 0 {
		b.checkpoint(next)
	}
	b.mergeRuns(st.seq, next.seq)
	return next, nil
}
