package vault

import (
	"encoding/binary"
	"fmt"
	"time"

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
	kindSegment2  = 8
	kindDropMany  = 9
	kindHold      = 10
	kindRelease   = 11
	kindLock      = 12
	kindPromise   = 13
	kindFulfil    = 14
	kindFold      = 15
	kindRestated  = 16
	kindTip       = 17
	kindLoose     = 18
	kindVolume2   = 19
	kindPoint2    = 20
	kindClock     = 21
	kindVolume3   = 22
)

// upkeep tells whether edits leave alone what writers build on. A writer goes
// on behind such a manifest, and is fenced by any other.
func upkeep(edits []edit) bool {
	for _, e := range edits {
		switch e.kind() {
		case kindDropPoint, kindDropMany, kindHold, kindRelease, kindLock, kindPromise, kindFulfil, kindFold, kindRestated:
		default:
			return false
		}
	}
	return true
}

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
		case kindSegment, kindSegment2:
			e = decodeSegment(&f, kind == kindSegment)
		case kindVolume:
			e = volumeEdit{Volume{ID: VolumeID(f.u32()), Size: int64(f.u64()), Device: f.str()}}
		case kindVolume2:
			v := Volume{ID: VolumeID(f.u32()), Size: int64(f.u64()), Device: f.str(), Identity: f.str()}
			if v.Identity == "" {
				return nil, fmt.Errorf("edit of kind %d: volume %d without an identity", kind, v.ID)
			}
			e = volumeEdit{v}
		case kindVolume3:
			v := Volume{ID: VolumeID(f.u32()), Size: int64(f.u64()), Device: f.str(), Identity: f.str(), Apart: Apart(f.u8())}
			if v.Apart != SetAside && v.Apart != Emptied {
				return nil, fmt.Errorf("edit of kind %d: volume %d stands %s", kind, v.ID, v.Apart)
			}
			e = volumeEdit{v}
		case kindPoint:
			e = decodePoint(&f)
		case kindPoint2:
			p := decodePoint(&f)
			if p.point.Freeze = time.Duration(f.u64()); p.point.Freeze <= 0 {
				return nil, fmt.Errorf("edit of kind %d: point %s of a freeze of %d ns", kind, p.point.ID, p.point.Freeze)
			}
			e = p
		case kindClock:
			e = clockEdit{f.time()}
		case kindDropPoint:
			e = dropPointEdit{drs.RecoverySnapshotID(f.str())}
		case kindBase:
			e = &base{number: f.u64(), seq: f.u64(), branch: f.str(), point: drs.RecoverySnapshotID(f.str())}
		case kindSeed:
			e = seedEdit(f.u64())
		case kindDropped:
			e = droppedEdit{}
		default:
			if e = decodeUpkeep(kind, &f); e == nil {
				return nil, fmt.Errorf("edit of kind %d: %w", kind, ErrNewerFormat)
			}
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
type segmentEdit struct {
	segmentRef
	old bool // as kind 1, which does not tell what the segment holds
}

func (e segmentEdit) kind() uint8 {
	if e.old {
		return kindSegment
	}
	return kindSegment2
}

func (e segmentEdit) put(b []byte) []byte {
	b = e.putPlace(b)
	if e.old {
		return b
	}
	return e.putContents(b)
}

func (r *segmentRef) putPlace(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, r.seq)
	b = append(b, r.id[:]...)
	b = binary.LittleEndian.AppendUint64(b, r.host)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.offset))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.length))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.index))
	return append(b, r.sum[:]...)
}

func (r *segmentRef) putContents(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, r.from)
	b = binary.LittleEndian.AppendUint64(b, r.to)
	b = binary.LittleEndian.AppendUint32(b, r.blocks)
	return binary.LittleEndian.AppendUint32(b, r.zeros)
}

func decodeSegment(f *cursor, old bool) segmentEdit {
	e := segmentEdit{old: old}
	e.seq = f.u64()
	copy(e.id[:], f.take(16))
	e.host = f.u64()
	e.offset, e.length, e.index = int64(f.u64()), int64(f.u64()), int64(f.u64())
	e.sum = f.hash()
	e.from, e.to = e.seq, e.seq
	if !old {
		e.from, e.to, e.blocks, e.zeros = f.u64(), f.u64(), f.u32(), f.u32()
	}
	return e
}

func (e segmentEdit) apply(s *state) error {
	if e.seq <= s.seq {
		return fmt.Errorf("segment sequence %d after %d", e.seq, s.seq)
	}
	ref := e.segmentRef
	if err := ref.check(); err != nil {
		return err
	}
	ref.branch = s.branch
	s.segments = s.segments.with(ref)
	s.seq = e.seq
	return nil
}

func (r *segmentRef) check() error {
	if r.offset < 0 || r.index < 0 || r.length-r.index <= 0 || r.length-r.index > segment.MaxIndex {
		return fmt.Errorf("segment %s: impossible lengths", r.id)
	}
	if r.from > r.seq || r.seq > r.to {
		return fmt.Errorf("segment %s: sequence %d is not among those it holds, %d to %d", r.id, r.seq, r.from, r.to)
	}
	return nil
}

// volumeEdit adds a volume or changes its size or device.
type volumeEdit struct{ Volume }

func (e volumeEdit) kind() uint8 {
	switch {
	case e.Apart != Within:
		return kindVolume3
	case e.Identity != "":
		return kindVolume2
	}
	return kindVolume
}

func (e volumeEdit) put(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(e.ID))
	b = binary.LittleEndian.AppendUint64(b, uint64(e.Size))
	b = putString(b, e.Device)
	if e.kind() != kindVolume {
		b = putString(b, e.Identity)
	}
	if e.kind() == kindVolume3 {
		b = append(b, byte(e.Apart))
	}
	return b
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

func (e pointEdit) kind() uint8 {
	if e.point.Freeze > 0 {
		return kindPoint2
	}
	return kindPoint
}

func (e pointEdit) put(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, e.seq)
	b = putTime(b, e.point.Expected)
	b = putTime(b, e.point.Taken)
	b = binary.LittleEndian.AppendUint64(b, e.point.Epoch)
	b = putString(b, string(e.point.ID))
	b = putString(b, string(e.point.Consistency))
	b = putString(b, string(e.point.Method))
	if e.point.Freeze > 0 {
		b = binary.LittleEndian.AppendUint64(b, uint64(e.point.Freeze))
	}
	return b
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
	if n := len(s.points.items); n > 0 && e.seq < s.points.items[n-1].seq {
		return fmt.Errorf("point %s lies before the one that was made before it", e.point.ID)
	}
	p := e.point
	p.SourceServer = s.server
	s.points = s.points.with(pointRef{point: p, seq: e.seq, volumes: within(s.volumes), clock: s.clock})
	return nil
}

// dropPointEdit forgets a point; its segments stay while others need them.
type dropPointEdit struct{ id drs.RecoverySnapshotID }

func (dropPointEdit) kind() uint8           { return kindDropPoint }
func (e dropPointEdit) put(b []byte) []byte { return putString(b, string(e.id)) }

func (e dropPointEdit) apply(s *state) error {
	return s.dropPoints([]drs.RecoverySnapshotID{e.id})
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
	if len(s.holds) > 0 {
		return fmt.Errorf("branch %s began at one of its points", s.holds[0].branch)
	}
	s.dropped = true
	return nil
}
