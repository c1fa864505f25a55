package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/envelope"
	"lifeboat/internal/vault/seal"
)

// branch is a line of history as this process knows it.
type branch struct {
	v      *Vault
	server drs.SourceServerID
	name   string
	key    seal.Key

	viewing sync.Mutex // held while an image is opened; taken before mu

	deriving sync.Mutex // held while derived data is made
	ended    bool       // it is being deleted: none is made any more; guarded by deriving

	mu     sync.Mutex
	st     *state       // nil until read, and again when memory is short; guarded by mu
	damage *DamageError // why st is not the newest state; guarded by mu
	writer *Writer      // the live one; guarded by mu
	merged uint64       // map runs are there up to this sequence; guarded by mu
	rested rest         // guarded by mu
}

// DamageError says that a branch cannot be read to its end, and what that hurts.
// What lies before the damage can still be read. It unwraps to a *CorruptError.
type DamageError struct {
	Server drs.SourceServerID
	Branch string
	Points []drs.RecoverySnapshotID // that cannot be trusted any more
	// LockedUntil is the last date to which what can be read behind the damage locks a
	// point; zero: none that is known.
	LockedUntil time.Time
	Cause       *CorruptError
}

func (e *DamageError) Error() string {
	hurt := "no recovery point is hurt"
	if len(e.Points) > 0 {
		ids := make([]string, len(e.Points))
		for i, id := range e.Points {
			ids[i] = string(id)
		}
		hurt = "recovery points hurt: " + strings.Join(ids, ", ")
	}
	return fmt.Sprintf("branch %s of %s is damaged: %v; %s; put the object back from a copy of the vault, or start a new server", e.Branch, e.Server, e.Cause, hurt)
}

func (e *DamageError) Unwrap() error { return e.Cause }

// branch returns the branch of that name, without reading it. ErrAbsent: there
// is no such server.
func (v *Vault) branch(ctx context.Context, server drs.SourceServerID, name string) (*branch, error) {
	if err := checkBranch(name); err != nil {
		return nil, err
	}
	key, err := v.dataKey(ctx, server)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	id := branchID{server, name}
	b := v.branches[id]
	if b == nil {
		b = &branch{v: v, server: server, name: name, key: key}
		v.branches[id] = b
	}
	return b, nil
}

// current returns the newest state in the store. With a *DamageError the state is
// the newest before the damage. ErrAbsent: there is no such branch.
func (b *branch) current(ctx context.Context) (*state, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.currentLocked(ctx)
}

func (b *branch) currentLocked(ctx context.Context) (*state, error) {
	if b.st == nil || b.damage != nil {
		return b.readLocked(ctx)
	}
	known := b.st
	for {
		st, err := b.follow(ctx, b.st)
		if errors.Is(err, blob.ErrAbsent) {
			err := b.checkThere(ctx, known)
			if errors.Is(err, errOutrun) || damaged(err) {
				return b.readLocked(ctx)
			}
			return b.st, err
		}
		if damaged(err) {
			return b.readLocked(ctx) // finds out what is hurt
		}
		if err != nil {
			return nil, err
		}
		if st.dropped {
			b.st = nil
			return nil, fmt.Errorf("branch %s of %s: %w", b.name, b.server, ErrAbsent)
		}
		b.setLocked(st)
	}
}

// latest returns the newest state that this process knows, which it reads if it
// knows none. There may be a newer one in the store.
func (b *branch) latest(ctx context.Context) (*state, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.st == nil || b.damage != nil {
		return b.readLocked(ctx)
	}
	return b.st, nil
}

// setLocked makes st what is known of the branch.
func (b *branch) setLocked(st *state) {
	b.st = st
	b.v.states.keep(b, st.weight())
}

// errOutrun: the store holds more than this process knew. It has to look again.
var errOutrun = errors.New("the branch has gone on meanwhile")

// checkThere makes sure that the manifest of st is still there, which is to say that
// none of those after it was deleted as no longer needed before: manifests are deleted in
// order. Else it returns errOutrun, and what was seen or made of the later ones
// means nothing.
func (b *branch) checkThere(ctx context.Context, st *state) error {
	name := manifestName(b.server, b.name, st.number)
	p := make([]byte, envelope.HeaderSize)
	n, err := b.v.store.ReadAt(ctx, name, p, 0)
	if errors.Is(err, blob.ErrAbsent) {
		return errOutrun
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	h, _, err := envelope.DecodeHeader(name, envelope.Manifest, p[:n])
	if err != nil {
		return err
	}
	if h.Salt != st.salt {
		return errOutrun
	}
	return nil
}

// follow reads the manifest after st.
func (b *branch) follow(ctx context.Context, st *state) (*state, error) {
	env, err := b.readManifest(ctx, st.number+1)
	if err != nil {
		return nil, err
	}
	return b.apply(st, env)
}

// apply checks that a manifest follows st, and returns the state it makes.
func (b *branch) apply(st *state, env *envelope.Envelope) (*state, error) {
	name := manifestName(b.server, b.name, st.number+1)
	if env.Number != st.number+1 || env.Server != string(b.server) || env.Branch != b.name {
		return nil, &CorruptError{Object: name, Reason: fmt.Sprintf("swapped: it is manifest %d of branch %s of %s", env.Number, env.Branch, env.Server)}
	}
	if env.Link != st.hash {
		return nil, &CorruptError{Object: name, Reason: "broken chain: it does not follow the manifest before it"}
	}
	return b.applyBody(name, st, env.Hash, env.Salt, env.Body)
}

// applyBody returns the state that the manifest after st makes.
func (b *branch) applyBody(name string, st *state, hash [32]byte, salt seal.Salt, body []byte) (*state, error) {
	edits, err := decodeEdits(body)
	if err == nil {
		st, err = st.next(st.number+1, hash, salt, edits)
	}
	if errors.Is(err, ErrNewerFormat) {
		return nil, fmt.Errorf("manifest %s: %w", name, err)
	}
	if err != nil {
		return nil, &CorruptError{Object: name, Offset: envelope.HeaderSize, Reason: err.Error()}
	}
	return st, nil
}

func (b *branch) readManifest(ctx context.Context, number uint64) (*envelope.Envelope, error) {
	return b.v.readSealed(ctx, manifestName(b.server, b.name, number), envelope.Manifest, b.key)
}

// endsDropped tells whether the last manifest says that the branch was dropped.
func (b *branch) endsDropped(ctx context.Context, last uint64) (bool, error) {
	env, err := b.readManifest(ctx, last)
	if damaged(err) || errors.Is(err, blob.ErrAbsent) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	edits, err := decodeEdits(env.Body)
	return err == nil && slices.ContainsFunc(edits, func(e edit) bool { return e.kind() == kindDropped }), nil
}
