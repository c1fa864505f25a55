package vault

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/envelope"
	"lifeboat/internal/vault/extent"
)

// A map run holds the merged extents of a stretch of segments. It is derived: its
// name tells exactly which segments it covers, so that it is either right or
// absent, and it is made again when it is absent or damaged.

const (
	runRecordSize = 20
	// maxRunRecords bounds the size of a run. Larger ones are not written: their
	// parts are merged each time.
	maxRunRecords = 8 << 20
)

// covers identifies the segments of a span.
func (m mapper) covers(s span) [32]byte {
	h := sha256.New()
	for i := s.lo; i < s.hi; i++ {
		h.Write(m.segs[i].id[:])
	}
	return [32]byte(h.Sum(nil))
}

func (m mapper) runName(s span) string { return runName(m.b.server, s.level, m.covers(s)) }

// runMissing tells whether a run that could not be read is to be done without.
func (m mapper) runMissing(err error) bool {
	return errors.Is(err, blob.ErrAbsent) || errors.Is(err, ErrNewerFormat) || damaged(err)
}

func (m mapper) readRun(ctx context.Context, s span) (volumeMaps, error) {
	covers := m.covers(s)
	name := runName(m.b.server, s.level, covers)
	env, err := m.b.v.readSealed(ctx, name, envelope.MapRun, m.b.key)
	if err != nil {
		return nil, err
	}
	if env.Link != covers || env.Number != uint64(s.level) || env.Server != string(m.b.server) {
		return nil, &CorruptError{Object: name, Reason: "swapped with another run"}
	}
	maps, err := decodeRun(env.Body)
	if err == nil {
		err = m.absolute(maps, s)
	}
	if err != nil {
		return nil, &CorruptError{Object: name, Offset: envelope.HeaderSize, Reason: err.Error()}
	}
	return maps, nil
}

// absolute turns segment numbers within the span into the mapper's.
func (m mapper) absolute(maps volumeMaps, s span) error {
	table := make(map[uint32]uint32, s.hi-s.lo) // by sequence
	for i := s.lo; i < s.hi; i++ {
		table[uint32(m.segs[i].seq-s.start-1)] = uint32(i)
	}
	for id, records := range maps {
		for i := range records {
			r := &records[i]
			if r.Zero() {
				continue
			}
			i, ok := table[r.Seg]
			if !ok {
				return fmt.Errorf("volume %d: record of a segment that is not covered", id)
			}
			r.Seg = i
		}
	}
	return nil
}

// writeRun stores the maps of a span.
func (m mapper) writeRun(ctx context.Context, s span, maps volumeMaps) error {
	body, ok := m.encodeRun(s, maps)
	if !ok {
		return nil
	}
	covers := m.covers(s)
	name := runName(m.b.server, s.level, covers)
	stored, _, err := envelope.Encode(envelope.Header{
		Kind: envelope.MapRun, Cipher: m.b.v.cipher, Number: uint64(s.level), Server: string(m.b.server), Link: covers,
	}, m.b.key, body)
	if err != nil {
		return err
	}
	err = m.b.v.store.PutIfAbsent(ctx, name, stored)
	if !errors.Is(err, blob.ErrExists) {
		return err
	}
	if _, err := m.readRun(ctx, s); errors.Is(err, ErrNewerFormat) {
		return nil
	} else if !damaged(err) {
		return err // nil: somebody else made it
	}
	if err := m.b.v.store.Delete(ctx, name); err != nil {
		return err
	}
	return m.b.v.store.PutIfAbsent(ctx, name, stored)
}

func (m mapper) encodeRun(s span, maps volumeMaps) (body []byte, ok bool) {
	ids, total := make([]VolumeID, 0, len(maps)), 0
	for id, records := range maps {
		ids = append(ids, id)
		total += len(records)
	}
	if total > maxRunRecords {
		return nil, false
	}
	slices.Sort(ids)
	body = make([]byte, 0, 4+8*len(ids)+runRecordSize*total)
	body = binary.LittleEndian.AppendUint32(body, uint32(len(ids)))
	for _, id := range ids {
		body = binary.LittleEndian.AppendUint32(body, uint32(id))
		body = binary.LittleEndian.AppendUint32(body, uint32(len(maps[id])))
		for _, r := range maps[id] {
			seg := uint32(0)
			if !r.Zero() {
				seg = uint32(m.segs[r.Seg].seq - s.start - 1)
			}
			body = binary.LittleEndian.AppendUint64(body, r.Block)
			body = binary.LittleEndian.AppendUint32(body, r.Count)
			body = binary.LittleEndian.AppendUint32(body, seg)
			body = binary.LittleEndian.AppendUint32(body, r.Pos)
		}
	}
	return body, true
}

// decodeRun reads a run's body; Seg counts from the begin of the span.
func decodeRun(body []byte) (volumeMaps, error) {
	c := cursor{b: body}
	volumes := c.u32()
	maps := volumeMaps{}
	for range volumes {
		id, count := VolumeID(c.u32()), c.u32()
		raw := c.take(uint64(count) * runRecordSize)
		if c.short {
			return nil, errShort
		}
		if _, twice := maps[id]; twice {
			return nil, fmt.Errorf("volume %d twice", id)
		}
		records := make([]extent.Record, count)
		for i := range records {
			b := raw[i*runRecordSize:]
			records[i] = extent.Record{
				Block: binary.LittleEndian.Uint64(b), Count: binary.LittleEndian.Uint32(b[8:]),
				Seg: binary.LittleEndian.Uint32(b[12:]), Pos: binary.LittleEndian.Uint32(b[16:]),
			}
		}
		if !extent.Sorted(records) {
			return nil, fmt.Errorf("volume %d: records out of order", id)
		}
		maps[id] = records
	}
	return maps, c.end()
}

// mergeRuns sees to it that the runs are there which a commit, that brought the
// branch from one sequence to another, completed.
func (b *branch) mergeRuns(from, to uint64) {
	fanout := uint64(b.v.limits.fanout)
	if from/fanout == to/fanout {
		return
	}
	b.derive("runs "+branchFolder(b.server, b.name), func(ctx context.Context) error {
		b.mu.Lock()
		st, merged := b.st, b.merged
		b.mu.Unlock()
		if st == nil {
			return nil
		}
		segs, err := b.lineage(ctx, st, st.seq)
		if err != nil {
			return err
		}
		m := mapper{b: b, segs: segs, upTo: st.seq}
		for level := 1; m.size(level) <= st.seq; level++ {
			if err := m.makeRuns(ctx, level, merged); err != nil {
				return err
			}
		}
		b.mu.Lock()
		b.merged = max(b.merged, st.seq)
		b.mu.Unlock()
		return nil
	})
}

// makeRuns makes the runs of a level that are absent and end after a sequence.
func (m mapper) makeRuns(ctx context.Context, level int, merged uint64) error {
	size := m.size(level)
	for i := 0; i < len(m.segs); {
		s, ok := m.group(level, i)
		if !ok {
			i++ // not complete yet, or of no use
			continue
		}
		i = s.hi
		if s.start+size <= merged {
			continue
		}
		_, err := m.b.v.store.Size(ctx, m.runName(s))
		if err == nil {
			continue
		}
		if !errors.Is(err, blob.ErrAbsent) {
			return err
		}
		maps, err := m.readParts(ctx, s)
		if err != nil {
			return err
		}
		if err := m.writeRun(ctx, s, maps); err != nil {
			return err
		}
	}
	return nil
}
