package vault

import (
	"encoding/binary"
	"fmt"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/segment"
)

// edit is one change to the state of a branch. A manifest's body is a list of
// edits; so is a checkpoint's, from nothing. Each is stored as its kind (1 byte),
// its length (4) and its fields.
type edit interface {
	kind() uint8
	put(b []byte) []byte
	apply(s *state) error
}

const (
	kindSegment   = 1
	kindVolume    = 2
	kindPoint     = 3
	kindDropPoint = 4
	kindBase      = 5
	kindSeed      = 6
	kindDropped   = 7
)

func putEdits(edits []edit) []byte {
	var b []byte
	for _, e := range edits {
		b = append(b, e.kind(), 0, 0, 0, 0)
		begin := len(b)
		b = e.put(b)
		binary.LittleEndian.PutUint32(b[begin-4:], uint32(len(b)-begin))
	}
	return b
}

// decodeEdits reads a body. An edit of an unknown kind means a newer program:
// leaving it out could show a wrong state.
func decodeEdits(body []byte) ([]edit, error) {
	edits := make([]edit, 0, countEdits(body))
	c := cursor{b: body}
	for len(c.b) > 0 {
		kind := c.u8()
		f := cursor{b: c.take(uint64(c.u32()))}
		if c.short {
			return nil, errShort
		}
		var e edit
		switch kind {
		case kindSegment:
			e = decodeSegment(&f)
		case kindVolume:
			e = volumeEdit{Volume{ID: VolumeID(f.u32()), Size: int64(f.u64()), Device: f.str()}}
		case kindPoint:
			e = decodePoint(&f)
		case kindDropPoint:
			e = dropPointEdit{drs.RecoverySnapshotID(f.str())}
		case kindBase:
			e = &base{number: f.u64(), seq: f.u64(), branch: f.str(), point: drs.RecoverySnapshotID(f.str())}
		case kindSeed:
			e = seedEdit(f.u64())
		case kindDropped:
			e = droppedEdit{}
		default:
			return nil, fmt.Errorf("edit of kind %d: %w", kind, ErrNewerFormat)
		}
		if err := f.end(); err != nil {
			return nil, fmt.Errorf("edit of kind %d: %w", kind, err)
		}
		edits = append(edits, e)
	}
	return edits, nil
}

// countEdits returns how many edits there are, as far as the body is whole.
func countEdits(body []byte) (n int) {
	for c := (cursor{b: body}); len(c.b) > 0 && !c.short; n++ {
		c.u8()
		c.take(uint64(c.u32()))
	}
	return n
}

// segmentEdit adds a segment to the branch.
type segmentEdit struct{ segmentRef }

func (segmentEdit) kind() uint8 { return kindSegment }

func (e segmentEdit) put(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, e.seq)
	b = append(b, e.id[:]...)
	b = binary.LittleEndian.AppendUint64(b, e.host)
	b = binary.LittleEndian.AppendUint64(b, uint64(e.offset))
	b = binary.LittleEndian.AppendUint64(b, uint64(e.length))
	b = binary.LittleEndian.AppendUint64(b, uint64(e.index))
	return append(b, e.sum[:]...)
}

func decodeSegment(f *cursor) segmentEdit {
	var e segmentEdit
	e.seq = f.u64()
	copy(e.id[:], f.take(16))
	e.host = f.u64()
	e.offset, e.length, e.index = int64(f.u64()), int64(f.u64()), int64(f.u64())
	e.sum = f.hash()
	return e
}

func (e segmentEdit) apply(s *state) error {
	if e.seq <= s.seq {
		return fmt.Errorf("segment sequence %d after %d", e.seq, s.seq)
	}
	if e.offset < 0 || e.index < 0 || e.length-e.index <= 0 || e.length-e.index > segment.MaxIndex {
		return fmt.Errorf("segment %s: impossible lengths", e.id)
	}
	ref := e.segmentRef
	ref.branch = s.branch
	s.segments = s.segments.with(ref)
	s.seq = e.seq
	return nil
}

// volumeEdit adds a volume or changes its size or device.
type volumeEdit struct{ Volume }

func (volumeEdit) kind() uint8 { return kindVolume }

func (e volumeEdit) put(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(e.ID))
	b = binary.LittleEndian.AppendUint64(b, uint64(e.Size))
	return putString(b, e.Device)
}

func (e volumeEdit) apply(s *state) error {
	if err := checkVolume(e.Volume); err != nil {
		return err
	}
	s.volumes = withVolume(s.volumes, e.Volume)
	return nil
}

// pointEdit makes everything up to a sequence a recovery point.
type pointEdit struct {
	point drs.RecoveryPoint
	seq   uint64
}

func (pointEdit) kind() uint8 { return kindPoint }

func (e pointEdit) put(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, e.seq)
	b = putTime(b, e.point.Expected)
	b = putTime(b, e.point.Taken)
	b = binary.LittleEndian.AppendUint64(b, e.point.Epoch)
	b = putString(b, string(e.point.ID))
	b = putString(b, string(e.point.Consistency))
	return putString(b, string(e.point.Method))
}

func decodePoint(f *cursor) pointEdit {
	e := pointEdit{seq: f.u64()}
	e.point.Expected, e.point.Taken, e.point.Epoch = f.time(), f.time(), f.u64()
	e.point.ID = drs.RecoverySnapshotID(f.str())
	e.point.Consistency, e.point.Method = drs.Consistency(f.str()), drs.CutMethod(f.str())
	return e
}

func (e pointEdit) apply(s *state) error {
	if e.seq > s.seq {
		return fmt.Errorf("point %s is ahead of its branch", e.point.ID)
	}
	p := e.point
	p.SourceServer = s.server
	s.points = s.points.with(pointRef{point: p, seq: e.seq, volumes: s.volumes})
	return nil
}

// dropPointEdit forgets a point; its segments stay while others need them.
type dropPointEdit struct{ id drs.RecoverySnapshotID }

func (dropPointEdit) kind() uint8           { return kindDropPoint }
func (e dropPointEdit) put(b []byte) []byte { return putString(b, string(e.id)) }

func (e dropPointEdit) apply(s *state) error {
	kept := newShared[pointRef](len(s.points.items))
	for _, p := range s.points.items {
		if p.point.ID != e.id {
			kept = kept.with(p)
		}
	}
	if len(kept.items) == len(s.points.items) {
		return fmt.Errorf("point %s is dropped but was never added", e.id)
	}
	s.points = kept
	return nil
}

// base says where a branch begins: at a sequence of another branch.
type base struct {
	number uint64 // of the parent's manifest that made the point
	seq    uint64 // the last sequence that belongs to this branch too
	branch string
	point  drs.RecoverySnapshotID
}

func (*base) kind() uint8 { return kindBase }

func (e *base) put(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, e.number)
	b = binary.LittleEndian.AppendUint64(b, e.seq)
	b = putString(b, e.branch)
	return putString(b, string(e.point))
}

func (e *base) apply(s *state) error {
	if s.base != nil || s.seq != 0 {
		return fmt.Errorf("branch begins at %s after it began", e.branch)
	}
	if err := checkBranch(e.branch); err != nil {
		return err
	}
	s.base, s.seq = e, e.seq
	return nil
}

// seedEdit sets the seed of content digests.
type seedEdit uint64

func (seedEdit) kind() uint8           { return kindSeed }
func (e seedEdit) put(b []byte) []byte { return binary.LittleEndian.AppendUint64(b, uint64(e)) }
func (e seedEdit) apply(s *state) error {
	s.seed = uint64(e)
	return nil
}

// droppedEdit ends the branch for good: what is left of it is being deleted.
type droppedEdit struct{}

func (droppedEdit) kind() uint8         { return kindDropped }
func (droppedEdit) put(b []byte) []byte { return b }
func (droppedEdit) apply(s *state) error {
	s.dropped = true
	return nil
}
