package vault

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/seal"
	"lifeboat/internal/vault/segment"
)

// state is what the manifests of a branch add up to. A state in use is never
// changed: next makes the one after it, sharing what is equal.
type state struct {
	server drs.SourceServerID
	branch string

	number  uint64    // of the last manifest
	hash    [32]byte  // of the last manifest
	salt    seal.Salt // of the last manifest: tells it from any other of that number
	written written   // the last manifest that a writer made
	seq     uint64    // of the last segment ever, the base's included
	base    *base     // nil for the main branch
	seed    uint64
	dropped bool
	clock   time.Time // of the vault, at the last point ever; zero: made by a version that had none

	segments shared[segmentRef]
	points   shared[pointRef] // oldest first

	// Replaced, never changed:
	volumes  []Volume  // sorted by ID
	holds    []hold    // sorted by branch
	promises []promise // oldest first
	loose    []uint64  // ascending: where points were that are gone, and nothing was folded since
	restated restated
	outlived int64 // bytes of segments inline in manifests, folded since the state was restated

	// private lists belong to this state alone, which may change them in place:
	// it is being replayed, and nobody sees it yet.
	private bool
}

// written identifies a branch's history as its writers know it: upkeep does not
// change it.
type written struct {
	number uint64
	hash   [32]byte
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

	// from and to are the sequences whose changes it holds the end of: a state between
	// them cannot be read any more. Both are seq unless it was folded.
	from, to uint64
	blocks   uint32 // blocks in its frames; 0: not known, as in manifests of old
	zeros    uint32 // runs of zeros, about
}

// known tells whether blocks and zeros are.
func (r *segmentRef) known() bool { return r.blocks != 0 || r.zeros != 0 }

// spans tells whether the segment took the place of changes on both sides of seq.
func (r *segmentRef) spans(seq uint64) bool { return r.from <= seq && seq < r.to }

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
	locked  time.Time // it stays until then by the vault's clock; zero: no lock
	clock   time.Time // of the vault, when it was committed; zero: not known
}

// hold keeps a point for a branch that begins at it.
type hold struct {
	branch string
	seq    uint64
	point  drs.RecoverySnapshotID
}

// promise names the segments that a fold is going to write. It lasts until the fold is
// committed, or somebody voids it.
type promise struct {
	id       [16]byte
	segments []segment.ID
}

// restated says where reading the branch may begin.
type restated struct {
	checkpoint uint64 // the newest checkpoint that is not derived; 0: none
	floor      uint64 // older manifests are of use only for what is inline in them
}

// next applies the edits of the manifest that follows s.
func (s *state) next(number uint64, hash [32]byte, salt seal.Salt, edits []edit) (*state, error) {
	n := *s
	n.number, n.hash, n.salt = number, hash, salt
	if !upkeep(edits) {
		n.written = written{number, hash}
	}
	for _, e := range edits {
		if err := e.apply(&n); err != nil {
			return nil, err
		}
	}
	return &n, nil
}

// edits returns what builds s from nothing.
func (s *state) edits() []edit {
	out := make([]edit, 0, len(s.segments.items)+len(s.points.items)+8)
	out = append(out, seedEdit(s.seed))
	if s.base != nil {
		out = append(out, s.base)
	}
	for _, r := range s.segments.items {
		out = append(out, segmentEdit{segmentRef: r})
	}
	out = append(out, tipEdit{s.seq, s.written})
	var volumes []Volume
	set := func(v Volume) {
		if !slices.Contains(volumes, v) {
			volumes = withVolume(volumes, v)
			out = append(out, volumeEdit{v})
		}
	}
	change := func(to []Volume) {
		for _, v := range volumes {
			if _, stays := findVolume(to, v.ID); !stays {
				v.Apart = max(v.Apart, SetAside)
				set(v)
			}
		}
		for _, v := range to {
			set(v)
		}
	}
	var clock time.Time
	tick := func(to time.Time) {
		if !to.Equal(clock) {
			out = append(out, clockEdit{to})
		}
		clock = to
	}
	for _, p := range s.points.items {
		change(p.volumes)
		tick(p.clock)
		out = append(out, pointEdit{p.point, p.seq})
		if !p.locked.IsZero() {
			out = append(out, lockEdit{p.point.ID, p.locked})
		}
	}
	change(s.volumes)
	tick(s.clock)
	for _, h := range s.holds {
		out = append(out, holdEdit{h})
	}
	for _, p := range s.promises {
		out = append(out, promiseEdit{p})
	}
	if len(s.loose) > 0 {
		out = append(out, looseEdit(s.loose))
	}
	if s.restated != (restated{}) {
		out = append(out, restatedEdit{s.restated})
	}
	return out
}

// weight is about how many bytes of memory the lists take.
func (s *state) weight() int64 {
	return 512 + 144*int64(len(s.segments.items)) + 256*int64(len(s.points.items))
}

func (s *state) head() Head {
	h := Head{Number: s.written.number, Hash: s.written.hash, Volumes: slices.Clone(s.volumes), DigestSeed: s.seed}
	if n := len(s.points.items); n > 0 {
		p := s.points.items[n-1].point
		h.LastPoint = &p
	}
	for _, v := range s.volumes {
		if v.Apart == SetAside && !s.pointsHold(v.ID) {
			h.Unheld = append(h.Unheld, v.ID)
		}
	}
	return h
}

// pointsHold tells whether a kept point holds the volume.
func (s *state) pointsHold(id VolumeID) bool {
	return slices.ContainsFunc(s.points.items, func(p pointRef) bool {
		_, holds := findVolume(p.volumes, id)
		return holds
	})
}

// within returns the volumes that points hold; all of them as they are, where points hold all.
func within(volumes []Volume) []Volume {
	apart := func(v Volume) bool { return v.Apart != Within }
	if !slices.ContainsFunc(volumes, apart) {
		return volumes
	}
	return slices.DeleteFunc(slices.Clone(volumes), apart)
}

// upTo returns the branch's own segments up to a sequence.
func (s *state) upTo(seq uint64) []segmentRef {
	all := s.segments.items
	n := sort.Search(len(all), func(i int) bool { return all[i].seq > seq })
	return all[:n:n]
}

func (s *state) heldAt(seq uint64) bool {
	return slices.ContainsFunc(s.holds, func(h hold) bool { return h.seq == seq })
}

func (s *state) holdsPoint(id drs.RecoverySnapshotID) bool {
	return slices.ContainsFunc(s.holds, func(h hold) bool { return h.point == id })
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
	if len(v.Identity) > 256 {
		return fmt.Errorf("volume %d: identity of %d bytes, want at most 256", v.ID, len(v.Identity))
	}
	if v.Apart > Emptied {
		return fmt.Errorf("volume %d: stands %s", v.ID, v.Apart)
	}
	return nil
}
