package export

import (
	"context"
	"errors"
	"fmt"
	"io"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
)

// Disk is one disk at one recovery point. ReadAt and Extents may be called from
// many goroutines at once.
type Disk interface {
	io.ReaderAt
	io.Closer
	// Size is in bytes.
	Size() int64
	// Extents describes the n bytes from off on, in order and without gaps.
	Extents(ctx context.Context, off, n int64) ([]vault.Span, error)
}

// OpenDisk opens the nth disk of a server at a point: vault.ErrAbsent when the
// server has no such point, *NoDiskError when the point has no such disk. What
// it opens holds the point until it is closed.
type OpenDisk func(ctx context.Context, server drs.SourceServer, point drs.RecoverySnapshotID, n int) (Disk, error)

// NoDiskError refuses a disk number that a point does not have.
type NoDiskError struct {
	Number, Disks int
}

func (e *NoDiskError) Error() string {
	if e.Disks == 1 {
		return fmt.Sprintf("The point has no disk %d: its only disk is number 0.", e.Number)
	}
	return fmt.Sprintf("The point has no disk %d: its disks are numbered 0 to %d.", e.Number, e.Disks-1)
}

// Refused tells that the request itself was turned down.
func (e *NoDiskError) Refused() bool { return true }

// FromVault opens disks of the vault's points.
func FromVault(v *vault.Vault) OpenDisk {
	return func(ctx context.Context, server drs.SourceServer, point drs.RecoverySnapshotID, n int) (Disk, error) {
		image, err := v.OpenPoint(ctx, server.ID, point)
		if err != nil {
			return nil, err
		}
		disk, err := volumeOf(image, server.Properties.Disks, n)
		if err != nil {
			return nil, errors.Join(err, image.Close())
		}
		return disk, nil
	}
}

// volumeOf counts the disks as the server lists them: the boot disk is number 0.
func volumeOf(image *vault.Image, disks []drs.Disk, n int) (Disk, error) {
	volumes := drs.InDiskOrder(disks, image.Volumes(), func(v vault.Volume) drs.DiskName { return drs.DiskName{Device: v.Device, Identity: v.Identity} })
	if n >= len(volumes) {
		return nil, &NoDiskError{Number: n, Disks: len(volumes)}
	}
	reader, err := image.Volume(volumes[n].ID)
	if err != nil {
		return nil, err
	}
	return volume{reader, image}, nil
}

// volume is a disk that closes the image it belongs to.
type volume struct {
	*vault.VolumeReader
	image *vault.Image
}

func (v volume) Close() error { return v.image.Close() }
