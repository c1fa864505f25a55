package vault

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/extent"
	"lifeboat/internal/vault/segment"
)

// Image is all disks of a server at one moment. What it reads as never changes,
// whatever is committed, dropped or folded later. Safe for concurrent use.
//
// What it reads is pinned: as long as it is open this process folds nothing across its
// moment. Where the segments lie does change; the image looks for them anew
// when they are gone. If another process folds across a moment that is not a
// kept point, reads fail with ErrAbsent.
type Image struct {
	v       *Vault
	b       *branch
	seq     uint64 // everything up to here
	began   uint64 // where its branch did; 0: main
	server  drs.SourceServerID
	seed    uint64
	volumes []Volume
	readers map[VolumeID]*VolumeReader

	view     atomic.Pointer[view]
	renewing sync.Mutex // held while a new view is made

	recorder atomic.Pointer[Recorder] // nil: what is read is not noted
	demand   demand

	ctx    context.Context //nolint:containedctx // ends at Close: the scope of reads and read-ahead
	cancel context.CancelCauseFunc
	ahead  chan struct{} // a token per read-ahead under way

	mu     sync.Mutex
	closed bool           // guarded by mu
	wg     sync.WaitGroup // the read-aheads; added to under mu while not closed
}

// view is where the bytes of an image lie. It never changes: a fold makes another one.
type view struct {
	segs []segmentRef // what records' Seg counts
	maps volumeMaps   // clipped to the volumes
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
	m := &Image{
		v: b.v, b: b, seq: seq, server: b.server, seed: st.seed, volumes: slices.Clone(volumes),
		readers: map[VolumeID]*VolumeReader{},
		ahead:   make(chan struct{}, b.v.distance.aheads),
	}
	if st.base != nil {
		m.began = st.base.seq
	}
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	for _, vol := range volumes {
		m.readers[vol.ID] = &VolumeReader{image: m, volume: vol}
	}
	m.pin()
	b.viewing.Lock() // who opens the same moment next finds our view
	defer b.viewing.Unlock()
	if vw := m.shared(); vw != nil {
		m.view.Store(vw)
		return m, nil
	}
	segs, err := b.lineage(ctx, st, seq)
	var vw *view
	if err == nil {
		if vw, err = m.look(ctx, segs); missing(err) {
			vw, err = m.lookAgain(ctx, segs, err)
		}
	}
	if err != nil {
		m.unpin()
		return nil, err
	}
	m.view.Store(vw)
	return m, nil
}

// shared returns the view of another open image of the same moment, or nil. If it
// has been folded away since, reads find out.
func (m *Image) shared() *view {
	m.v.mu.Lock()
	defer m.v.mu.Unlock()
	for other := range m.v.images {
		if other.b == m.b && other.seq == m.seq && slices.Equal(other.volumes, m.volumes) {
			if vw := other.view.Load(); vw != nil {
				return vw
			}
		}
	}
	return nil
}

// look makes the view of the image from the segments of its moment.
func (m *Image) look(ctx context.Context, segs []segmentRef) (*view, error) {
	maps, err := mapper{b: m.b, segs: segs, upTo: m.seq}.merge(ctx)
	if err != nil {
		return nil, err
	}
	vw := &view{segs: segs, maps: volumeMaps{}}
	for _, vol := range m.volumes {
		vw.maps[vol.ID] = clip(maps[vol.ID], vol.Blocks())
	}
	return vw, nil
}

// renewals bounds how often an image looks anew for segments that are gone.
const renewals = 100

// lookAgain makes a view after one of these segments was met to be missing, which it may be
// since it was folded away. It returns the error itself when nothing has changed: it is lost.
func (m *Image) lookAgain(ctx context.Context, segs []segmentRef, met error) (*view, error) {
	for i := 0; i < renewals; i++ {
		st, err := m.b.current(ctx)
		if err != nil && (st == nil || !damaged(err)) {
			return nil, err
		}
		now, err := m.b.lineage(ctx, st, m.seq)
		if err != nil {
			return nil, err
		}
		if slices.EqualFunc(now, segs, func(a, b segmentRef) bool { return a.id == b.id }) {
			break
		}
		vw, err := m.look(ctx, now)
		if !missing(err) {
			return vw, err
		}
		segs, met = now, err // folded once more meanwhile
	}
	return nil, met
}

// renew makes another view after a read met a segment that is not there. It returns
// the error itself when nothing has changed: the segment is lost.
func (m *Image) renew(ctx context.Context, old *view, met error) error {
	m.renewing.Lock()
	defer m.renewing.Unlock()
	if m.view.Load() != old {
		return nil
	}
	vw, err := m.lookAgain(ctx, old.segs, met)
	if err != nil {
		return err
	}
	m.view.Store(vw)
	return nil
}

// pin keeps the image's moment from being folded away by this process.
func (m *Image) pin() {
	m.v.mu.Lock()
	defer m.v.mu.Unlock()
	m.v.images[m] = struct{}{}
}

func (m *Image) unpin() {
	m.v.mu.Lock()
	defer m.v.mu.Unlock()
	delete(m.v.images, m)
}

// pins returns the moments of a branch that open images of this process read.
func (b *branch) pins() []uint64 {
	b.v.mu.Lock()
	defer b.v.mu.Unlock()
	var out []uint64
	for m := range b.v.images {
		if m.server == b.server && m.b.name == b.name {
			out = append(out, m.seq)
		}
	}
	return out
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
	m.unpin()
	return nil
}

// index returns the frame table of a segment of the view.
func (m *Image) index(ctx context.Context, vw *view, seg uint32) (*segment.Index, error) {
	ref := &vw.segs[seg]
	return m.v.indexes.get(ctx, ref.id, func() (*segment.Index, int64, error) {
		ix, err := m.v.readIndex(ctx, m.server, m.b.key, ref)
		if err != nil {
			return nil, 0, err
		}
		ix.Volumes = nil // they are in the merged map
		return ix, int64(1024 + 40*len(ix.Frames)), nil
	})
}
