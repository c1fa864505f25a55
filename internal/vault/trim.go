package vault

import (
	"context"
	"errors"
	"fmt"

	"lifeboat/internal/vault/blob"
)

// restate makes a new begin for readers of the branch, if that lets go of enough: its
// cost, which grows with the volume, is kept small beside what was committed since the
// one before.
func (b *branch) restate(ctx context.Context) error {
	st, err := b.latest(ctx)
	if err != nil {
		return err
	}
	const manifest = 512 // bytes of one without what is inline, about
	since := st.number - st.restated.checkpoint
	size := 128*int64(len(st.segments.items)) + 160*int64(len(st.points.items))
	if since < b.v.limits.restate || int64(since)*manifest+st.outlived < 4*size {
		return nil
	}
	if err := b.writeCheckpoint(ctx, st); err != nil {
		return err
	}
	_, err = b.amend(ctx, func(now *state) (proposal, error) {
		if now.restated != st.restated {
			return proposal{}, nil // another process did
		}
		return propose(restatedEdit{restated{checkpoint: st.number, floor: max(1, st.restated.checkpoint)}}), nil
	})
	return err
}

// trim deletes the manifests, checkpoints and packs that nothing needs any more, those
// first that are older: while a manifest is there, so are all after it.
func (b *branch) trim(ctx context.Context, freed *Freed) (more bool, err error) {
	st, err := b.latest(ctx)
	if err != nil || st.restated.floor <= 1 {
		return false, err
	}
	floor := st.restated.floor
	names, err := b.v.store.List(ctx, branchFolder(b.server, b.name))
	if err != nil {
		return false, err
	}
	for _, n := range numbered(names, ".checkpoint") {
		if n < floor {
			if err := b.v.free(ctx, checkpointName(b.server, b.name, n), &freed.Checkpoints); err != nil {
				return false, err
			}
		}
	}
	for _, n := range numbered(names, ".pack") {
		if n <= floor {
			if err := b.v.free(ctx, packName(b, n), &freed.Packs); err != nil {
				return false, err
			}
		}
	}
	for i := range st.segments.items {
		if h := st.segments.items[i].host; h != 0 {
			floor = min(floor, h)
		}
	}
	const most = 4096 // in one call
	for i, n := range numbered(names, ".manifest") {
		if n >= floor {
			break
		}
		if i == most {
			return true, nil
		}
		if err := b.v.free(ctx, manifestName(b.server, b.name, n), &freed.Manifests); err != nil {
			return false, err
		}
	}
	return false, nil
}

// free deletes an object and counts it.
func (v *Vault) free(ctx context.Context, name string, c *Count) error {
	size, err := v.store.Size(ctx, name)
	if err == nil {
		err = v.store.Delete(ctx, name)
	}
	if errors.Is(err, blob.ErrAbsent) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("free %s: %w", name, err)
	}
	c.Objects++
	c.Bytes += size
	return nil
}
