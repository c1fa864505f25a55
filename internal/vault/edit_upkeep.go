package vault

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/segment"
)

// The edits of upkeep change how the history of a branch is kept, not what was
// written.

// decodeUpkeep reads the fields of such an edit, or returns nil for a kind that is
// not known.
func decodeUpkeep(kind uint8, f *cursor) edit {
	switch kind {
	case kindDropMany:
		e := make(dropManyEdit, 0, f.count(2))
		for range cap(e) {
			e = append(e, drs.RecoverySnapshotID(f.str()))
		}
		return e
	case kindHold:
		return holdEdit{hold{seq: f.u64(), branch: f.str(), point: drs.RecoverySnapshotID(f.str())}}
	case kindRelease:
		return releaseEdit(f.str())
	case kindLock:
		return lockEdit{until: f.time(), id: drs.RecoverySnapshotID(f.str())}
	case kindPromise:
		var e promiseEdit
		copy(e.id[:], f.take(16))
		e.segments = make([]segment.ID, f.count(16))
		for i := range e.segments {
			copy(e.segments[i][:], f.take(16))
		}
		return e
	case kindFulfil:
		var e fulfilEdit
		copy(e[:], f.take(16))
		return e
	case kindFold:
		return decodeFold(f)
	case kindRestated:
		return restatedEdit{restated{checkpoint: f.u64(), floor: f.u64()}}
	case kindTip:
		return tipEdit{f.u64(), written{f.u64(), f.hash()}}
	case kindLoose:
		e := make(looseEdit, f.count(8))
		for i := range e {
			e[i] = f.u64()
		}
		return e
	}
	return nil
}

// dropManyEdit forgets points. What they alone held becomes loose.
type dropManyEdit []drs.RecoverySnapshotID

func (dropManyEdit) kind() uint8 { return kindDropMany }

func (e dropManyEdit) put(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e)))
	for _, id := range e {
		b = putString(b, string(id))
	}
	return b
}

func (e dropManyEdit) apply(s *state) error { return s.dropPoints(e) }

func (s *state) dropPoints(ids []drs.RecoverySnapshotID) error {
	drop := make(map[drs.RecoverySnapshotID]bool, len(ids))
	for _, id := range ids {
		if s.holdsPoint(id) {
			return fmt.Errorf("point %s is dropped, although a branch began at it", id)
		}
		drop[id] = true
	}
	var gone []uint64
	keep := func(p pointRef) bool {
		if drop[p.point.ID] {
			gone = append(gone, p.seq)
			delete(drop, p.point.ID)
			return false
		}
		return true
	}
	s.points = s.points.filter(keep, s.private)
	if len(drop) > 0 {
		return fmt.Errorf("%d points are dropped that were never added", len(drop))
	}
	s.loosen(gone)
	return nil
}

// loosen notes where the branch need not be readable any more.
func (s *state) loosen(seqs []uint64) {
	if len(seqs) > 0 {
		all := slices.Concat(s.loose, seqs)
		slices.Sort(all)
		s.loose = slices.Compact(all)
	}
}

// holdEdit keeps a point for a branch that is about to begin at it.
type holdEdit struct{ hold }

func (holdEdit) kind() uint8 { return kindHold }

func (e holdEdit) put(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, e.seq)
	b = putString(b, e.branch)
	return putString(b, string(e.point))
}

func (e holdEdit) apply(s *state) error {
	if err := checkBranch(e.branch); err != nil {
		return err
	}
	if s.dropped {
		return fmt.Errorf("branch %s was dropped: %w", s.branch, ErrAbsent)
	}
	if p, ok := s.point(e.point); !ok || p.seq != e.seq {
		return fmt.Errorf("point %s: %w", e.point, ErrAbsent)
	}
	i, there := s.findHold(e.branch)
	if there {
		return fmt.Errorf("a hold for branch %s: %w", e.branch, ErrExists)
	}
	s.holds = slices.Insert(slices.Clone(s.holds), i, e.hold)
	return nil
}

func (s *state) findHold(branch string) (int, bool) {
	return slices.BinarySearchFunc(s.holds, branch, func(h hold, name string) int { return cmp.Compare(h.branch, name) })
}

// releaseEdit ends the hold for a branch.
type releaseEdit string

func (releaseEdit) kind() uint8           { return kindRelease }
func (e releaseEdit) put(b []byte) []byte { return putString(b, string(e)) }

func (e releaseEdit) apply(s *state) error {
	i, there := s.findHold(string(e))
	if !there {
		return fmt.Errorf("a hold for branch %s: %w", string(e), ErrAbsent)
	}
	seq := s.holds[i].seq
	s.holds = slices.Delete(slices.Clone(s.holds), i, i+1)
	s.loosen([]uint64{seq})
	return nil
}

// lockEdit keeps a point until a date.
type lockEdit struct {
	id    drs.RecoverySnapshotID
	until time.Time
}

func (lockEdit) kind() uint8 { return kindLock }

func (e lockEdit) put(b []byte) []byte { return putString(putTime(b, e.until), string(e.id)) }

func (e lockEdit) apply(s *state) error {
	for i, p := range slices.Backward(s.points.items) {
		if p.point.ID != e.id {
			continue
		}
		if !e.until.After(p.locked) {
			return fmt.Errorf("point %s is locked until %s already", e.id, p.locked.Format(time.RFC3339))
		}
		p.locked = e.until
		s.points = s.points.replaced(i, p, s.private)
		return nil
	}
	return fmt.Errorf("point %s: %w", e.id, ErrAbsent)
}

// promiseEdit keeps segments that are being written from being collected.
type promiseEdit struct{ promise }

func (promiseEdit) kind() uint8 { return kindPromise }

func (e promiseEdit) put(b []byte) []byte {
	b = append(b, e.id[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e.segments)))
	for _, id := range e.segments {
		b = append(b, id[:]...)
	}
	return b
}

func (e promiseEdit) apply(s *state) error {
	if s.findPromise(e.id) >= 0 {
		return fmt.Errorf("promise %x twice", e.id)
	}
	s.promises = append(slices.Clip(s.promises), e.promise)
	return nil
}

func (s *state) findPromise(id [16]byte) int {
	return slices.IndexFunc(s.promises, func(p promise) bool { return p.id == id })
}

// fulfilEdit ends a promise: it was kept by the folds beside it, or is void.
type fulfilEdit [16]byte

func (fulfilEdit) kind() uint8           { return kindFulfil }
func (e fulfilEdit) put(b []byte) []byte { return append(b, e[:]...) }

func (e fulfilEdit) apply(s *state) error {
	i := s.findPromise(e)
	if i < 0 {
		return errVoid
	}
	s.promises = slices.Delete(slices.Clone(s.promises), i, i+1)
	return nil
}

// restatedEdit says that a checkpoint, which is there, may be relied upon.
type restatedEdit struct{ restated }

func (restatedEdit) kind() uint8 { return kindRestated }

func (e restatedEdit) put(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, e.checkpoint)
	return binary.LittleEndian.AppendUint64(b, e.floor)
}

func (e restatedEdit) apply(s *state) error {
	if e.checkpoint < s.restated.checkpoint || e.floor < s.restated.floor || e.floor > e.checkpoint || e.checkpoint > s.number {
		return fmt.Errorf("restated at %d with floor %d after %d with %d", e.checkpoint, e.floor, s.restated.checkpoint, s.restated.floor)
	}
	s.restated, s.outlived = e.restated, 0
	return nil
}

// tipEdit says, in a checkpoint, what the segments and points do not tell.
type tipEdit struct {
	seq     uint64
	written written
}

func (tipEdit) kind() uint8 { return kindTip }

func (e tipEdit) put(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, e.seq)
	b = binary.LittleEndian.AppendUint64(b, e.written.number)
	return append(b, e.written.hash[:]...)
}

func (e tipEdit) apply(s *state) error {
	if e.seq < s.seq {
		return fmt.Errorf("the last sequence is %d, after %d", e.seq, s.seq)
	}
	s.seq, s.written = e.seq, e.written
	return nil
}

// looseEdit says, in a checkpoint, what is to be folded.
type looseEdit []uint64

func (looseEdit) kind() uint8 { return kindLoose }

func (e looseEdit) put(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(e)))
	for _, seq := range e {
		b = binary.LittleEndian.AppendUint64(b, seq)
	}
	return b
}

func (e looseEdit) apply(s *state) error {
	s.loosen(e)
	return nil
}
