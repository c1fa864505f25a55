package vault

import (
	"context"
	"errors"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
)

// distance says how much is kept under way to hide how long the store takes.
type distance struct {
	fetches   int   // requests of one read
	aheads    int   // read-aheads of an image
	window    int64 // how far before a sequential reader they run, in bytes
	manifests int   // manifests and maps read at once while a branch is opened
	// indexes are read at once before a read; 0: one by one, as they are met.
	indexes int
}

var (
	near = distance{fetches: 4, aheads: 4, window: 4 << 20, manifests: 8}
	far  = distance{fetches: 16, aheads: 16, window: 8 << 20, manifests: 32, indexes: 16}
)

// SegmentReader reads parts of objects of the store that hold segments. What lies in a
// segment never changes; that it can be read here does not mean that it is still
// in the store. Safe for concurrent use.
type SegmentReader interface {
	// ReadAt is that of blob.Store.
	ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error)
	// Forget drops what is kept of n bytes at an offset: they are damaged.
	Forget(name string, off, n int64)
}

// uncached reads the segments where they lie.
type uncached struct{ blob.Store }

func (uncached) Forget(string, int64, int64) {}

// readSegment fills p from an offset of a segment and has it checked. What is damaged
// is forgotten and read once more, from the store itself if a cache was between.
func (v *Vault) readSegment(ctx context.Context, server drs.SourceServerID, ref *segmentRef, p []byte, off int64, check func() error) error {
	object := ref.object(server)
	err := readFull(ctx, v.segments, object, p, ref.offset+off)
	if err == nil {
		err = check()
	}
	if _, direct := v.segments.(uncached); direct || !damaged(err) && !errors.Is(err, ErrNewerFormat) {
		return err
	}
	v.segments.Forget(object, ref.offset+off, int64(len(p)))
	if err := readFull(ctx, v.store, object, p, ref.offset+off); err != nil {
		return err
	}
	return check()
}
