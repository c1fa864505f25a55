package branchlog

import (
	"crypto/rand"
	"fmt"
)

// appendBatch appends the operations in groups as large as can be. An operation
// fails when a group with a part of it does; the others go on. The caller holds
// append.mu, as it does in all of this file.
func (l *Log) appendBatch(batch []*op) {
	l.append.group.reset()
	var members []*op // with a part in the group being built
	commit := func() {
		if err := l.appendGroup(); err != nil {
			for _, o := range members {
				o.err = err
			}
		}
		members = members[:0]
	}
	for _, o := range batch {
		if o.patch != nil || o.moved != nil {
			commit() // they need the map as it is before them
		}
		if o.err = l.resolve(o); o.err != nil {
			continue
		}
		for _, p := range o.parts {
			for o.err == nil && p.count > 0 {
				if l.append.group.room() == 0 {
					commit()
				}
				key, err := l.begin()
				if err != nil {
					o.err = err
					break
				}
				p = l.append.group.add(key, p)
				members = append(members, o)
			}
		}
	}
	commit()
}

// resolve decides what o appends, from the map as it is now.
func (l *Log) resolve(o *op) error {
	if err := l.err(); err != nil {
		return err
	}
	switch {
	case o.patch != nil:
		if err := l.readHeld(o.patch.base[:], o.first); err != nil {
			return err
		}
		copy(o.patch.base[o.patch.at:], o.patch.data)
		o.parts = append(o.parts, part{o.span, o.patch.base[:]})
	case o.moved != nil:
		o.parts = l.stillThere(o)
	default:
		o.parts = append(o.parts, part{o.span, o.data})
	}
	return nil
}

// readHeld fills b with the block as the log holds it, if it does.
func (l *Log) readHeld(b []byte, block uint64) error {
	var held extent
	l.mu.RLock()
	l.extents.walk(block, block+1, func(x extent) bool { held = x; return false })
	f := l.logs[held.file]
	l.mu.RUnlock()
	switch held.kind {
	case Data:
		return f.readBlocks(b, held.pos, held.index, 1)
	case Zero, Trim:
		clear(b)
	}
	return nil
}

// add takes as much of p as the group has room for and returns the rest.
func (g *groupBuffer) add(key *fileKey, p part) part {
	if p.kind != Data {
		g.addSpan(p.span)
		return part{}
	}
	n := uint32(min(int(p.count), g.room()))
	g.addData(key, p.first, p.data[:n*BlockSize])
	p.first, p.count, p.data = p.first+uint64(n), p.count-n, p.data[n*BlockSize:]
	return p
}

// begin gives the group that is being built its sequence and a file, unless it
// has them.
func (l *Log) begin() (*fileKey, error) {
	g := l.append.group
	if g.sequence != 0 {
		return l.current.key, nil
	}
	if err := l.err(); err != nil {
		return nil, err
	}
	if l.current == nil || l.current.end+1+maxGroupBlocks > l.limit {
		if err := l.roll(); err != nil {
			return nil, err
		}
	}
	l.append.sequence++
	g.sequence = l.append.sequence
	g.durable = l.syncs.upTo()
	return l.current.key, nil
}

// roll makes everything durable and begins a new file.
func (l *Log) roll() error {
	if err := l.flush(); err != nil {
		return err
	}
	if l.current != nil {
		if err := l.unpad(l.current); err != nil {
			return err
		}
	}
	l.append.number++
	h := fileHeader{id: l.header.id, number: l.append.number, after: l.append.sequence}
	rand.Read(h.salt[:])
	f, err := createLogFile(l.files, l.dir, l.key, h)
	if err != nil {
		if !noSpace(err) {
			l.finish(err)
		}
		return err
	}
	l.mu.Lock()
	l.logs[f.number] = f
	l.current = f
	l.mu.Unlock()
	l.wakeCollector()
	return nil
}

// appendGroup writes the group that was built to the file and into the map, and
// begins an empty one. When there is no space the file is as it was before.
func (l *Log) appendGroup() error {
	g := l.append.group
	defer g.reset()
	if len(g.spans) == 0 {
		return nil
	}
	f := l.current
	at := int64(f.end) * BlockSize
	b := g.finish(f.key)
	if err := l.pad(f, at, int64(len(b))); err != nil {
		return err
	}
	if _, err := f.f.WriteAt(b, at); err != nil {
		if terr := f.f.Truncate(at); terr != nil || !noSpace(err) {
			l.finish(fmt.Errorf("append to branch log: %w", err))
		}
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.applyLocked(f, f.end, &g.group)
	f.end += 1 + uint32(g.blocks)
	return nil
}

// applyLocked puts the spans of a group with its header at pos into the map.
func (l *Log) applyLocked(f *logFile, pos uint32, g *group) {
	index := uint8(0)
	for _, s := range g.spans {
		x := extent{start: s.first, count: s.count, file: f.number, kind: s.kind}
		if s.kind == Data {
			x.pos, x.index = pos+1+uint32(index), index
			index += uint8(s.count)
			f.live += int64(s.count)
		} else {
			f.liveZeros += int64(s.count)
		}
		l.extents.set(x, l.supersededLocked)
	}
	f.total += int64(g.blocks)
	f.last = g.sequence
	l.sequence = g.sequence
}

// supersededLocked counts off what is not current any more.
func (l *Log) supersededLocked(x extent) {
	f := l.logs[x.file]
	if x.kind == Data {
		f.live -= int64(x.count)
	} else {
		f.liveZeros -= int64(x.count)
	}
	if f != l.current && l.worthCollectingLocked(f) {
		l.wakeCollector()
	}
}
