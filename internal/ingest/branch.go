package ingest

import (
	"context"
	"fmt"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
)

// Vault opens the main branches of servers.
type Vault interface {
	// OpenBranch opens the server's main branch for appending, and ends any other
	// writer. Registration made the branch: one that is absent was lost, and is
	// never made anew in silence (vault.ErrAbsent).
	OpenBranch(ctx context.Context, server drs.SourceServerID) (Branch, error)
}

// Branch is a main branch open for appending, by one goroutine. After a failed
// Append, Zero or Commit it must be opened anew.
type Branch interface {
	Head() vault.Head
	Begin(ctx context.Context, volumes []vault.Volume) (Epoch, error)
	// Digests are the content digests of n chunks at the head.
	Digests(ctx context.Context, volume vault.VolumeID, first uint64, n int) ([][16]byte, error)
	Close() error
}

// Epoch is a set of changes on its way into the vault.
type Epoch interface {
	// Append copies the frame's payload.
	Append(vault.Frame) error
	Zero(volume vault.VolumeID, block uint64, count uint32) error
	// Commit returns nil only when the epoch is durable.
	Commit(ctx context.Context, point *drs.RecoveryPoint) (vault.Head, error)
	Abort()
}

// OnVault makes a vault.Vault fit.
func OnVault(v *vault.Vault) Vault { return onVault{v} }

type onVault struct{ v *vault.Vault }

func (o onVault) OpenBranch(ctx context.Context, server drs.SourceServerID) (Branch, error) {
	w, err := o.v.Writer(ctx, server, vault.MainBranch)
	if err != nil {
		return nil, err
	}
	return &onBranch{Writer: w, v: o.v, server: server}, nil
}

type onBranch struct {
	*vault.Writer
	v      *vault.Vault
	server drs.SourceServerID

	image *vault.Image // of the head, for digests; nil until asked for
}

func (b *onBranch) Begin(ctx context.Context, volumes []vault.Volume) (Epoch, error) {
	b.closeImage()
	return b.Writer.Begin(ctx, volumes)
}

func (b *onBranch) Digests(ctx context.Context, volume vault.VolumeID, first uint64, n int) ([][16]byte, error) {
	if b.image == nil {
		image, err := b.v.OpenHead(ctx, b.server, vault.MainBranch)
		if err != nil {
			return nil, err
		}
		b.image = image
	}
	reader, err := b.image.Volume(volume)
	if err != nil {
		return nil, fmt.Errorf("digests of volume %d: %w", volume, err)
	}
	return reader.Digests(ctx, first, n)
}

func (b *onBranch) closeImage() {
	if b.image != nil {
		_ = b.image.Close() // read only: nothing can be lost
		b.image = nil
	}
}

func (b *onBranch) Close() error {
	b.closeImage()
	return b.Writer.Close()
}
