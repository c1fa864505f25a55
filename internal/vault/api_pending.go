package vault

import (
	"context"
	"log/slog"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
)

// Bodies follow; the signatures here are meant to stay.

type KeyWrapper interface {
	// ID names the master key without telling anything about it; at most 64 bytes.
	ID() string
	// Wrap seals a data key; context must be given to Unwrap again.
	Wrap(ctx context.Context, key, context []byte) ([]byte, error)
	// Unwrap returns ErrWrongKey when another master key or context sealed it.
	Unwrap(ctx context.Context, wrapped, context []byte) ([]byte, error)
}

// CreateKeyFile makes a new random master key at path, mode 0600. ErrExists if there is a file.
func CreateKeyFile(path string) (KeyWrapper, error) { panic("pending") }

// LoadKeyFile reads a master key. ErrAbsent if there is none.
func LoadKeyFile(path string) (KeyWrapper, error) { panic("pending") }

type Options struct {
	Logger     *slog.Logger // nil: discard
	CacheBytes int64        // decoded frames kept in memory; 0: 64 MiB
	Plain      bool         // Create only: store without encryption
}

type Vault struct{}

func Create(ctx context.Context, store blob.Store, keys KeyWrapper, opt Options) (*Vault, error) {
	panic("pending")
}
func Open(ctx context.Context, store blob.Store, keys KeyWrapper, opt Options) (*Vault, error) {
	panic("pending")
}
func (v *Vault) Close() error                                                      { panic("pending") }
func (v *Vault) CreateServer(ctx context.Context, server drs.SourceServerID) error { panic("pending") }
func (v *Vault) Servers(ctx context.Context) ([]drs.SourceServerID, error)         { panic("pending") }
func (v *Vault) Branches(ctx context.Context, server drs.SourceServerID) ([]string, error) {
	panic("pending")
}
func (v *Vault) Points(ctx context.Context, server drs.SourceServerID) ([]drs.RecoveryPoint, error) {
	panic("pending")
}

// Writer opens the branch for appending. An older writer of the same branch is finished by it (ErrFenced).
func (v *Vault) Writer(ctx context.Context, server drs.SourceServerID, branch string) (*Writer, error) {
	panic("pending")
}
func (v *Vault) Fork(ctx context.Context, server drs.SourceServerID, point drs.RecoverySnapshotID, branch string) error {
	panic("pending")
}
func (v *Vault) DropBranch(ctx context.Context, server drs.SourceServerID, branch string) error {
	panic("pending")
}
func (v *Vault) OpenPoint(ctx context.Context, server drs.SourceServerID, point drs.RecoverySnapshotID) (*Image, error) {
	panic("pending")
}
func (v *Vault) OpenHead(ctx context.Context, server drs.SourceServerID, branch string) (*Image, error) {
	panic("pending")
}

type Writer struct{}

func (w *Writer) Head() Head                                               { panic("pending") }
func (w *Writer) Begin(ctx context.Context, vols []Volume) (*Epoch, error) { panic("pending") }
func (w *Writer) Close() error                                             { panic("pending") }

type Epoch struct{}

func (e *Epoch) Append(f Frame) error                                   { panic("pending") }
func (e *Epoch) Zero(volume VolumeID, block uint64, count uint32) error { panic("pending") }

// Commit makes the epoch durable; with a point it becomes a recovery point (Epoch is set to the manifest number).
func (e *Epoch) Commit(ctx context.Context, point *drs.RecoveryPoint) (Head, error) { panic("pending") }
func (e *Epoch) Abort()                                                             { panic("pending") }

type Image struct{}

func (m *Image) Volumes() []Volume                         { panic("pending") }
func (m *Image) Volume(id VolumeID) (*VolumeReader, error) { panic("pending") }
func (m *Image) Close() error                              { panic("pending") }

type VolumeReader struct{}

// Span is a run of bytes of a volume that is all data or all hole (reads as zeros).
type Span struct {
	Offset, Length int64
	Hole           bool
}

func (r *VolumeReader) Size() int64                             { panic("pending") }
func (r *VolumeReader) ReadAt(p []byte, off int64) (int, error) { panic("pending") }

// Extents describes [off, off+n) without gaps.
func (r *VolumeReader) Extents(ctx context.Context, off, n int64) ([]Span, error) { panic("pending") }

// Digests returns ChunkDigest of n chunks from chunk first on.
func (r *VolumeReader) Digests(ctx context.Context, first uint64, n int) ([][16]byte, error) {
	panic("pending")
}
