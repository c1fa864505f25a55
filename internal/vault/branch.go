package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

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

	mu     sync.Mutex
	st     *state       // nil until read; guarded by mu
	damage *DamageError // why st is not the newest state; guarded by mu
	writer *Writer      // the live one; guarded by mu
	merged uint64       // map runs are there up to this sequence; guarded by mu
}

// DamageError says that a branch cannot be read to its end, and what that hurts.
// What lies before the damage can still be read. It unwraps to a *CorruptError.
type DamageError struct {
	Server drs.SourceServerID
	Branch string
	Points []drs.RecoverySnapshotID // that cannot be trusted any more
	Cause  *CorruptError
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
	if b.st == nil || b.damage != nil {
		return b.readLocked(ctx)
	}
	for {
		st, err := b.follow(ctx, b.st)
		if errors.Is(err, blob.ErrAbsent) {
			return b.st, nil
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
		b.st = st
	}
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
	edits, err := decodeEdits(env.Body)
	if err == nil {
		st, err = st.next(env.Number, env.Hash, edits)
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

// readLocked reads the branch from the store: the newest good checkpoint and all
// manifests after it.
func (b *branch) readLocked(ctx context.Context) (*state, error) {
	b.st, b.damage = nil, nil
	names, err := b.v.store.List(ctx, branchFolder(b.server, b.name))
	if err != nil {
		return nil, err
	}
	numbers := numbered(names, ".manifest")
	if len(numbers) == 0 {
		if b.name == MainBranch {
			if err := b.v.checkUnused(ctx, b.server); err != nil {
				return nil, err
			}
		}
		return nil, fmt.Errorf("branch %s of %s: %w", b.name, b.server, ErrAbsent)
	}
	last := numbers[len(numbers)-1]
	good := uint64(0) // the manifests up to here are all present
	for _, n := range numbers {
		if n != good+1 {
			break
		}
		good = n
	}
	if good < last {
		if dropped, err := b.endsDropped(ctx, last); err != nil {
			return nil, err
		} else if dropped {
			return nil, fmt.Errorf("branch %s of %s: %w", b.name, b.server, ErrAbsent)
		}
	}
	st, err := b.startingState(ctx, names, good)
	if err != nil {
		return nil, err
	}
	from := st.number
	st, err = b.replay(ctx, st, good)
	if err == nil && good < last {
		err = &CorruptError{Object: manifestName(b.server, b.name, good+1), Reason: "absent, although later manifests exist"}
	}
	var cause *CorruptError
	if errors.As(err, &cause) {
		b.st, b.damage = st, &DamageError{Server: b.server, Branch: b.name, Cause: cause}
		b.damage.Points = b.pointsAfter(ctx, names, st.number)
		return st, b.damage
	}
	if err != nil {
		return nil, err
	}
	if st.dropped {
		return nil, fmt.Errorf("branch %s of %s: %w", b.name, b.server, ErrAbsent)
	}
	b.st = st
	if st.number >= from+b.v.limits.checkpoint {
		b.checkpoint(st)
	}
	return st, nil
}

// replay applies the manifests after st up to number last. When it fails it
// returns the state reached.
func (b *branch) replay(ctx context.Context, st *state, last uint64) (*state, error) {
	const batch = 64
	for st.number < last {
		begin, n := st.number+1, min(batch, last-st.number)
		envs, errs := make([]*envelope.Envelope, n), make([]error, n)
		var g errgroup.Group
		g.SetLimit(8)
		for i := range n {
			g.Go(func() error {
				envs[i], errs[i] = b.readManifest(ctx, begin+i)
				return nil
			})
		}
		_ = g.Wait() // each has its own error
		for i := range n {
			err := errs[i]
			if errors.Is(err, blob.ErrAbsent) {
				err = &CorruptError{Object: manifestName(b.server, b.name, begin+i), Reason: "vanished while the branch was read"}
			}
			if err != nil {
				return st, err
			}
			next, err := b.apply(st, envs[i])
			if err != nil {
				return st, err
			}
			st = next
		}
	}
	return st, nil
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

// pointsAfter names the points that manifests after number made, as far as a
// checkpoint or those manifests can be read.
func (b *branch) pointsAfter(ctx context.Context, names []string, number uint64) []drs.RecoverySnapshotID {
	var out []drs.RecoverySnapshotID
	for _, n := range slices.Backward(numbered(names, ".checkpoint")) {
		if n <= number {
			break
		}
		if st, err := b.readCheckpoint(ctx, n); err == nil {
			for _, p := range st.points.items {
				if p.point.Epoch > number {
					out = append(out, p.point.ID)
				}
			}
			number = n
			break
		}
	}
	for _, n := range numbered(names, ".manifest") {
		if n <= number {
			continue
		}
		env, err := b.readManifest(ctx, n)
		if err != nil {
			continue
		}
		edits, err := decodeEdits(env.Body)
		if err != nil {
			continue
		}
		for _, e := range edits {
			if p, ok := e.(pointEdit); ok {
				out = append(out, p.point.ID)
			}
		}
	}
	return out
}
