package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/extent"
)

// KindUsage counts stored objects of one kind.
type KindUsage struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

// Usage is what a server takes in the store, and what it gets for that.
type Usage struct {
	Server drs.SourceServerID `json:"server"`
	// Logical is the size of the disks, Data what the newest state holds of them, both
	// uncompressed.
	Logical int64                `json:"logicalBytes"`
	Data    int64                `json:"dataBytes"`
	Stored  int64                `json:"storedBytes"` // in the store, all objects
	Kinds   map[string]KindUsage `json:"kinds"`
	Points  int                  `json:"points"`
	// Branches counts the main one, too.
	Branches int `json:"branches"`
}

// Amplification is how many bytes are stored for each byte that the newest state
// holds; 0 when it holds none.
func (u Usage) Amplification() float64 {
	if u.Data == 0 {
		return 0
	}
	return float64(u.Stored) / float64(u.Data)
}

// Usage looks at all objects of a server. What it knows the length of, it does not ask
// the store for.
func (v *Vault) Usage(ctx context.Context, server drs.SourceServerID) (Usage, error) {
	u := Usage{Server: server, Kinds: map[string]KindUsage{}}
	names, err := walk(ctx, v.store, serverFolder(server))
	if err != nil {
		return u, fmt.Errorf("usage of %s: %w", server, err)
	}
	lengths := map[string]int64{}
	damage, err := v.eachBranch(ctx, server, func(b *branch, st *state) bool {
		u.Branches++
		u.Points += len(st.points.items)
		for i := range st.segments.items {
			if r := &st.segments.items[i]; r.host == 0 {
				lengths[r.object(server)] = r.length
			}
		}
		if b.name == MainBranch {
			for _, vol := range within(st.volumes) {
				u.Logical += vol.Size
			}
		}
		return true
	})
	if err != nil || damage != nil {
		return u, fmt.Errorf("usage of %s: %w", server, errors.Join(err, damage))
	}
	var mu sync.Mutex
	g, within := errgroup.WithContext(ctx)
	g.SetLimit(16)
	count := func(name string, size int64) {
		mu.Lock()
		defer mu.Unlock()
		kind := string(placeOf(name).kind)
		k := u.Kinds[kind]
		u.Kinds[kind] = KindUsage{k.Objects + 1, k.Bytes + size}
		u.Stored += size
	}
	for _, name := range names {
		if size, ok := lengths[name]; ok {
			count(name, size)
			continue
		}
		g.Go(func() error {
			size, err := v.store.Size(within, name)
			if errors.Is(err, blob.ErrAbsent) {
				return nil // collected meanwhile
			}
			if err == nil {
				count(name, size)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return u, fmt.Errorf("usage of %s: %w", server, err)
	}
	image, err := v.OpenHead(ctx, server, MainBranch)
	if err != nil {
		return u, fmt.Errorf("usage of %s: %w", server, err)
	}
	for _, records := range image.view.Load().maps {
		u.Data += dataBytes(records)
	}
	return u, image.Close()
}

// dataBytes adds up what is not a hole.
func dataBytes(records []extent.Record) (n int64) {
	for _, r := range records {
		if !r.Zero() {
			n += int64(r.Count) * BlockSize
		}
	}
	return n
}

// PointUsage is what one recovery point holds.
type PointUsage struct {
	Point drs.RecoverySnapshotID `json:"point"`
	Data  int64                  `json:"dataBytes"` // uncompressed
	// Unique is the part of Data that neither the point before nor the one after shares:
	// about what forgetting it would free, before compression.
	Unique int64 `json:"uniqueBytes"`
}

// PointUsages goes through the main branch's points, oldest first, and calls each. It
// opens every one of them, so that it takes a while where there are thousands. It
// holds three maps in memory.
func (v *Vault) PointUsages(ctx context.Context, server drs.SourceServerID, each func(PointUsage) error) error {
	b, err := v.branch(ctx, server, MainBranch)
	if err != nil {
		return fmt.Errorf("usage of points: %w", err)
	}
	st, err := b.current(ctx)
	if err != nil {
		return fmt.Errorf("usage of points of %s: %w", server, err)
	}
	points := st.points.items
	load := func(i int) (map[VolumeID][]extent.Record, error) {
		if i < 0 || i >= len(points) {
			return nil, nil
		}
		image, err := b.open(ctx, st, points[i].seq, points[i].volumes)
		if err != nil {
			return nil, fmt.Errorf("usage of point %s: %w", points[i].point.ID, err)
		}
		maps := map[VolumeID][]extent.Record{}
		vw := image.view.Load()
		for id, records := range vw.maps {
			// Segments are counted anew in each image; by sequence they compare.
			maps[id] = slices.Clone(records)
			for j := range maps[id] {
				if rec := &maps[id][j]; !rec.Zero() {
					rec.Seg = uint32(vw.segs[rec.Seg].seq)
				}
			}
		}
		return maps, image.Close()
	}
	before, now := map[VolumeID][]extent.Record(nil), map[VolumeID][]extent.Record(nil)
	if now, err = load(0); err != nil {
		return err
	}
	for i := range points {
		after, err := load(i + 1)
		if err != nil {
			return err
		}
		u := PointUsage{Point: points[i].point.ID}
		for id, records := range now {
			u.Data += dataBytes(records)
			u.Unique += unshared(records, before[id], after[id])
		}
		if err := each(u); err != nil {
			return err
		}
		before, now = now, after
	}
	return nil
}

// unshared counts the bytes of records that lie elsewhere in a and in b.
func unshared(records, a, b []extent.Record) (n int64) {
	for _, r := range records {
		if r.Zero() {
			continue
		}
		var same []span64
		for _, other := range [][]extent.Record{a, b} {
			for i := extent.Find(other, r.Block); i < len(other) && other[i].Block < r.End(); i++ {
				o := other[i]
				if o.Zero() || o.Seg != r.Seg || int64(o.Pos)-int64(o.Block) != int64(r.Pos)-int64(r.Block) {
					continue
				}
				same = append(same, span64{max(o.Block, r.Block), min(o.End(), r.End())})
			}
		}
		n += int64(uint64(r.Count)-covered(same)) * BlockSize
	}
	return n
}

type span64 struct{ begin, end uint64 }

// covered counts what any of the spans covers.
func covered(spans []span64) (n uint64) {
	slices.SortFunc(spans, func(a, b span64) int {
		if a.begin < b.begin {
			return -1
		} else if a.begin > b.begin {
			return 1
		}
		return 0
	})
	var at uint64
	for _, s := range spans {
		if s.begin = max(s.begin, at); s.begin < s.end {
			n, at = n+s.end-s.begin, s.end
		}
	}
	return n
}
