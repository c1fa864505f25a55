package vault

import (
	"context"
	"errors"
	"fmt"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/envelope"
)

// proposal is what a manifest is to say.
type proposal struct {
	edits  []edit
	body   []byte // the stored form of edits
	inline []byte // attached to the manifest
}

// propose makes a proposal of edits alone.
func propose(edits ...edit) proposal { return proposal{edits: edits, body: putEdits(edits)} }

// errUnfit: the branch is not any more what the edits were made for.
var errUnfit = errors.New("edits do not fit the branch")

// amend commits what prepare makes of the newest state, again and again until no other
// commit comes in between. A proposal without edits commits nothing.
func (b *branch) amend(ctx context.Context, prepare func(*state) (proposal, error)) (*state, error) {
	st, err := b.latest(ctx)
	for err == nil {
		var p proposal
		if p, err = prepare(st); err != nil {
			return nil, err
		}
		if len(p.edits) == 0 {
			return st, nil
		}
		var next *state
		next, err = b.commit(ctx, st, p)
		if !errors.Is(err, errOutrun) {
			return next, err
		}
		st, err = b.current(ctx)
	}
	return nil, err
}

// commit creates the manifest that follows st: the one act that makes edits part
// of the branch. errOutrun: there is such a manifest already, of somebody else.
func (b *branch) commit(ctx context.Context, st *state, p proposal) (*state, error) {
	h := envelope.Header{
		Kind: envelope.Manifest, Cipher: b.v.cipher, Number: st.number + 1,
		Server: string(b.server), Branch: b.name, Link: st.hash, Attached: uint64(len(p.inline)),
	}
	stored, hash, err := envelope.Encode(h, b.key, p.body)
	if err != nil {
		return nil, err
	}
	name := manifestName(b.server, b.name, h.Number)
	if h, _, err = envelope.DecodeHeader(name, h.Kind, stored); err != nil {
		return nil, err
	}
	next, err := st.next(h.Number, hash, h.Salt, p.edits)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnfit, err)
	}
	err = b.v.store.PutIfAbsent(ctx, name, stored, p.inline)
	if errors.Is(err, blob.ErrExists) {
		// A store that repeats a put whose answer was lost finds its own object.
		there, readErr := b.readManifest(ctx, next.number)
		if readErr != nil || there.Hash != hash {
			return nil, errOutrun
		}
		err = nil
	}
	if err != nil {
		return nil, err
	}
	// The number may have been free because the manifests of that time are deleted.
	if err := b.checkThere(ctx, st); err != nil {
		b.mu.Lock()
		b.st = nil
		b.mu.Unlock()
		return nil, err
	}
	b.mu.Lock()
	if b.st != nil && b.st.number == st.number && b.st.hash == st.hash {
		if b.setLocked(next); next.dropped {
			b.st = nil
		}
	}
	b.mu.Unlock()
	if next.number%b.v.limits.pack == 0 {
		b.packed(next.number)
	}
	b.mergeRuns(st.seq, next.seq)
	return next, nil
}
