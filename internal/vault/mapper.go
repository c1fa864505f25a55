package vault

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"sort"

	"golang.org/x/sync/errgroup"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/extent"
	"lifeboat/internal/vault/seal"
	"lifeboat/internal/vault/segment"
)

// mapper merges the extents of many segments into one map per volume, by way
// of map runs where they are there.
type mapper struct {
	b     *branch
	segs  []segmentRef // ascending by sequence
	after uint64       // they are all of those behind this sequence,
	upTo  uint64       // up to this one
}

// volumeMaps are maps whose records count segments as the mapper does.
type volumeMaps map[VolumeID][]extent.Record

// span is a stretch of segments that is merged as one: a run of its level, or a
// single segment at level 0.
type span struct {
	level  int
	lo, hi int    // segs[lo:hi]
	start  uint64 // the sequences are start+1 to start+size
}

// merge returns the map of all segments.
func (m mapper) merge(ctx context.Context) (volumeMaps, error) {
	spans := m.plan()
	maps := make([]volumeMaps, len(spans))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(m.b.v.distance.manifests)
	for i, s := range spans {
		g.Go(func() (err error) {
			maps[i], err = m.read(ctx, s)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return overlay(maps), nil
}

// plan covers the segments with the largest runs that may exist, of which there are
// few: at most fanout of each level.
func (m mapper) plan() []span {
	var out []span
	for i := 0; i < len(m.segs); {
		best := m.single(i)
		for level := 1; m.size(level) <= m.upTo; level++ {
			if s, ok := m.group(level, i); ok {
				best = s
			}
		}
		out = append(out, best)
		i = best.hi
	}
	return out
}

// single is the span of one segment.
func (m mapper) single(i int) span { return span{0, i, i + 1, m.segs[i].seq - 1} }

// group returns the run of a level that begins with segment i, if one does and it is
// complete. Folding thins out the sequences: a run of a single segment is of no use.
func (m mapper) group(level, i int) (span, bool) {
	size := m.size(level)
	start := (m.segs[i].seq - 1) / size * size
	if start < m.after || m.upTo < start+size || i > 0 && m.segs[i-1].seq > start {
		return span{}, false
	}
	hi := sort.Search(len(m.segs), func(j int) bool { return m.segs[j].seq > start+size })
	return span{level, i, hi, start}, hi > i+1
}

// size returns how many sequences a run of a level covers.
func (m mapper) size(level int) uint64 {
	size, fanout := uint64(1), uint64(m.b.v.limits.fanout)
	for range level {
		if size > math.MaxUint64/fanout {
			return math.MaxUint64
		}
		size *= fanout
	}
	return size
}

// parts returns the spans, at least one level below, that make up s.
func (m mapper) parts(s span) []span {
	var out []span
	for i := s.lo; i < s.hi; {
		p := m.single(i)
		for level := s.level - 1; level > 0 && p.level == 0; level-- {
			if g, ok := m.group(level, i); ok {
				p = g
			}
		}
		out = append(out, p)
		i = p.hi
	}
	return out
}

// read returns the maps of a span: from its run, else from its parts, in
// which case the run is written for the next time.
func (m mapper) read(ctx context.Context, s span) (volumeMaps, error) {
	if s.level == 0 {
		return m.readSegment(ctx, s.lo)
	}
	maps, err := m.readRun(ctx, s)
	if err == nil {
		return maps, nil
	}
	if !m.runMissing(err) {
		return nil, err
	}
	if maps, err = m.readParts(ctx, s); err != nil {
		return nil, err
	}
	m.b.derive("run "+m.runName(s), func(ctx context.Context) error { return m.writeRun(ctx, s, maps) })
	return maps, nil
}

func (m mapper) readParts(ctx context.Context, s span) (volumeMaps, error) {
	var maps []volumeMaps
	for _, p := range m.parts(s) {
		vm, err := m.read(ctx, p)
		if err != nil {
			return nil, err
		}
		maps = append(maps, vm)
	}
	return overlay(maps), nil
}

func (m mapper) readSegment(ctx context.Context, i int) (volumeMaps, error) {
	ix, err := m.b.v.readIndex(ctx, m.b.server, m.b.key, &m.segs[i])
	if err != nil {
		return nil, err
	}
	maps := volumeMaps{}
	for _, vol := range ix.Volumes {
		for j := range vol.Extents {
			if !vol.Extents[j].Zero() {
				vol.Extents[j].Seg = uint32(i)
			}
		}
		maps[VolumeID(vol.ID)] = vol.Extents
	}
	return maps, nil
}

// overlay lays later maps on earlier ones.
func overlay(maps []volumeMaps) volumeMaps {
	if len(maps) == 1 {
		return maps[0]
	}
	layers := map[VolumeID][][]extent.Record{}
	for _, vm := range maps {
		for id, records := range vm {
			layers[id] = append(layers[id], records)
		}
	}
	out := volumeMaps{}
	for id, l := range layers {
		out[id] = extent.Merge(l)
	}
	return out
}

// readIndex reads and checks the index of a segment.
func (v *Vault) readIndex(ctx context.Context, server drs.SourceServerID, key seal.Key, ref *segmentRef) (*segment.Index, error) {
	object := ref.object(server)
	tail := make([]byte, ref.length-ref.index)
	var ix *segment.Index
	err := v.readSegment(ctx, server, ref, tail, ref.index, func() (err error) {
		ix, err = segment.DecodeIndex(object, tail, ref.index, key)
		if errors.Is(err, ErrNewerFormat) { // told before all else
			return err
		}
		if sha256.Sum256(tail) != ref.sum {
			return &CorruptError{Object: object, Offset: ref.offset + ref.index, Reason: "not the index that was committed: its hash differs"}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if ix.Header.Cipher != v.cipher {
		return nil, &CorruptError{Object: object, Reason: "forged: it is not encrypted as this vault is"}
	}
	if ix.Header.ID != ref.id || ix.Header.Sequence != ref.seq {
		return nil, &CorruptError{Object: object, Reason: fmt.Sprintf("swapped: it is segment %s, wanted %s", ix.Header.ID, ref.id)}
	}
	return ix, nil
}
