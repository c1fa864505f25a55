package vault

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/segment"
)

// state is what the manifests of a branch add up to. A state in use is never
// changed: next makes the one after it, sharing what is equal.
type state struct {
	server drs.SourceServerID
	branch string

	number   uint64   // of the last manifest
	hash     [32]byte // of the last manifest
	seq      uint64   // of the last segment, the base's included
	base     *base    // nil for the main branch
	volumes  []Volume // sorted by ID; replaced, never changed
	segments shared[segmentRef]
	points   shared[pointRef] // oldest first
	seed     uint64
	dropped  bool
}

// segmentRef says where a segment lies and how to know it.
type segmentRef struct {
	seq    uint64
	id     segment.ID
	branch string // whose manifest names it
	host   uint64 // the manifest that carries it inline; 0: it is an object
	offset int64  // where it begins in its object, in bytes
	length int64  // in bytes
	index  int64  // where its index begins, from the segment's begin
	sum    [32]byte
}

// object names the blob that holds the segment.
func (r *segmentRef) object(server drs.SourceServerID) string {
	if r.host == 0 {
		return segmentName(server, r.id)
	}
	return manifestName(server, r.branch, r.host)
}

// pointRef is a recovery point with what it consists of.
type pointRef struct {
	point   drs.RecoveryPoint
	seq     uint64 // everything up to this sequence
	volumes []Volume
}

// next applies the edits of the manifest that follows s.
func (s *state) next(number uint64, hash [32]byte, edits []edit) (*state, error) {
	n := *s
	n.number, n.hash = number, hash
	for _, e := range edits {
		if err := e.apply(&n); err != nil {
			return nil, err
		}
	}
	return &n, nil
}

// edits returns what builds s from nothing.
func (s *state) edits() []edit {
	out := []edit{seedEdit(s.seed)}
	if s.base != nil {
		out = append(out, s.base)
	}
	for _, r := range s.segments.items {
		out = append(out, segmentEdit{r})
	}
	var volumes []Volume
	change := func(to []Volume) {
		for _, v := range to {
			if !slices.Contains(volumes, v) {
				out = append(out, volumeEdit{v})
			}
		}
		volumes = to
	}
	for _, p := range s.points.items {
		change(p.volumes)
		out = append(out, pointEdit{p.point, p.seq})
	}
	change(s.volumes)
	return out
}

func (s *state) head() Head {
	h := Head{Number: s.number, Hash: s.hash, Volumes: slices.Clone(s.volumes), DigestSeed: s.seed}
	if n := len(s.points.items); n > 0 {
		p := s.points.items[n-1].point
		h.LastPoint = &p
	}
	return h
}

// upTo returns the branch's own segments up to a sequence.
func (s *state) upTo(seq uint64) []segmentRef {
	all := s.segments.items
	n := sort.Search(len(all), func(i int) bool { return all[i].seq > seq })
	return all[:n:n]
}

func (s *state) point(id drs.RecoverySnapshotID) (pointRef, bool) {
	for _, p := range slices.Backward(s.points.items) {
		if p.point.ID == id {
			return p, true
		}
	}
	return pointRef{}, false
}

func findVolume(volumes []Volume, id VolumeID) (int, bool) {
	return slices.BinarySearchFunc(volumes, id, func(v Volume, id VolumeID) int { return int(int64(v.ID) - int64(id)) })
}

// withVolume returns volumes with v added or replaced.
func withVolume(volumes []Volume, v Volume) []Volume {
	i, ok := findVolume(volumes, v.ID)
	out := slices.Clone(volumes)
	if ok {
		out[i] = v
		return out
	}
	return slices.Insert(out, i, v)
}

// maxVolumeSize keeps block numbers and sums of them far from overflow.
const maxVolumeSize = math.MaxInt64 / 16

func checkVolume(v Volume) error {
	if v.Size <= 0 || v.Size > maxVolumeSize {
		return fmt.Errorf("volume %d (%s): impossible size of %d bytes", v.ID, v.Device, v.Size)
	}
	if len(v.Device) > 1024 {
		return fmt.Errorf("volume %d: device name of %d bytes, want at most 1024", v.ID, len(v.Device))
	}
	return nil
}
