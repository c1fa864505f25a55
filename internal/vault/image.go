package vault

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/extent"
	"lifeboat/internal/vault/seal"
	"lifeboat/internal/vault/segment"
)

// Image is all disks of a server at one moment. It never changes, whatever is
// committed later. Safe for concurrent use.
type Image struct {
	v       *Vault
	server  drs.SourceServerID
	key     seal.Key
	seed    uint64
	segs    []segmentRef // what records' Seg counts
	volumes []Volume
	readers map[VolumeID]*VolumeReader

	ctx    context.Context //nolint:containedctx // ends at Close: the scope of reads and read-ahead
	cancel context.CancelCauseFunc
	ahead  chan struct{} // a token per read-ahead under way

	mu     sync.Mutex
	closed bool           // guarded by mu
	wg     sync.WaitGroup // the read-aheads; added to under mu while not closed
}

// OpenPoint opens a recovery point. ErrAbsent: no such server or point.
func (v *Vault) OpenPoint(ctx context.Context, server drs.SourceServerID, point drs.RecoverySnapshotID) (*Image, error) {
	b, st, p, err := v.findPoint(ctx, server, point)
	if err != nil {
		return nil, fmt.Errorf("open recovery point: %w", err)
	}
	m, err := b.open(ctx, st, p.seq, p.volumes)
	if err != nil {
		return nil, fmt.Errorf("open recovery point %s: %w", point, err)
	}
	return m, nil
}

// OpenHead opens the newest commit of a branch, whether it is a recovery point
// or not. ErrAbsent: no such server or branch.
func (v *Vault) OpenHead(ctx context.Context, server drs.SourceServerID, branch string) (*Image, error) {
	b, err := v.branch(ctx, server, branch)
	if err != nil {
		return nil, fmt.Errorf("open branch %s: %w", branch, err)
	}
	st, err := b.current(ctx)
	if err != nil {
		return nil, fmt.Errorf("open branch %s of %s: %w", branch, server, err)
	}
	m, err := b.open(ctx, st, st.seq, st.volumes)
	if err != nil {
		return nil, fmt.Errorf("open branch %s of %s: %w", branch, server, err)
	}
	return m, nil
}

// open merges the map of the branch up to a sequence.
func (b *branch) open(ctx context.Context, st *state, seq uint64, volumes []Volume) (*Image, error) {
	segs, err := b.lineage(ctx, st, seq)
	if err != nil {
		return nil, err
	}
	maps, err := mapper{b: b, segs: segs}.merge(ctx)
	if err != nil {
		return nil, err
	}
	m := &Image{
		v: b.v, server: b.server, key: b.key, seed: st.seed, segs: segs, volumes: slices.Clone(volumes),
		readers: map[VolumeID]*VolumeReader{},
		ahead:   make(chan struct{}, readAheads),
	}
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	for _, vol := range volumes {
		m.readers[vol.ID] = &VolumeReader{image: m, volume: vol, records: clip(maps[vol.ID], vol.Blocks())}
	}
	return m, nil
}

// clip drops what lies beyond the end of a volume.
func clip(m []extent.Record, blocks uint64) []extent.Record {
	n := extent.Find(m, blocks-1)
	if n == len(m) {
		return m
	}
	m = slices.Clone(m[:n+1])
	last := &m[n]
	if last.Block >= blocks {
		return m[:n]
	}
	last.Count = uint32(min(uint64(last.Count), blocks-last.Block))
	return m
}

// Volumes returns the volumes, sorted by ID.
func (m *Image) Volumes() []Volume { return slices.Clone(m.volumes) }

// DigestSeed returns the seed of the server's chunk digests.
func (m *Image) DigestSeed() uint64 { return m.seed }

// Volume returns the reader of a volume, or ErrAbsent.
func (m *Image) Volume(id VolumeID) (*VolumeReader, error) {
	r := m.readers[id]
	if r == nil {
		return nil, fmt.Errorf("volume %d of %s: %w", id, m.server, ErrAbsent)
	}
	return r, nil
}

// Close ends reads under way and frees the image. Closing twice is safe.
func (m *Image) Close() error {
	m.cancel(fmt.Errorf("image: %w", ErrClosed))
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.wg.Wait()
	return nil
}

// index returns the frame table of a segment of the image.
func (m *Image) index(ctx context.Context, seg uint32) (*segment.Index, error) {
	ref := &m.segs[seg]
	return m.v.indexes.get(ctx, ref.id, func() (*segment.Index, int64, error) {
		ix, err := m.v.readIndex(ctx, m.server, m.key, ref)
		if err != nil {
			return nil, 0, err
		}
		ix.Volumes = nil // they are in the merged map
		return ix, int64(1024 + 40*len(ix.Frames)), nil
	})
}
