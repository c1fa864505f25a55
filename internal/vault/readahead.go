package vault

const (
	// aheadChunk is the bytes of the volume that one read-ahead covers.
	aheadChunk = 512 << 10
	// nearby is how far requests of one sequential reader may be out of order.
	nearby = 1 << 20
	// streamMin is how many bytes make a reader sequential.
	streamMin = 256 << 10
)

// stream recognises a sequential reader.
type stream struct {
	next  int64 // the end of the furthest read
	run   int64 // bytes read one behind the other
	ahead int64 // read ahead up to here
}

// readAhead notes a read and, when it belongs to a sequential stream, has what comes
// next loaded into the frame cache. It returns how many bytes behind its own the
// read should load as well, if it has to load anything: a reader that has caught up
// with the read-ahead would go on frame by frame otherwise.
func (r *VolumeReader) readAhead(off int64, n int) (more int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.stream
	if off < s.next-nearby || off > s.next+nearby {
		*s = stream{next: off + int64(n), run: int64(n)}
		return 0
	}
	s.next = max(s.next, off+int64(n))
	s.run += int64(n)
	if s.run < streamMin {
		return 0
	}
	end := min(r.volume.Size, s.next+r.image.v.distance.window)
	for s.ahead = max(s.ahead, s.next); s.ahead < end; {
		k := min(aheadChunk, r.volume.Size-s.ahead)
		if !r.startAhead(s.ahead, k) {
			break
		}
		s.ahead += k
	}
	return max(0, min(aheadChunk, r.volume.Size-off-int64(n)))
}

// startAhead loads [off, off+n) in the background, unless enough of that is going on.
func (r *VolumeReader) startAhead(off, n int64) bool {
	m := r.image
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	select {
	case m.ahead <- struct{}{}:
	default:
		return false
	}
	m.wg.Go(func() {
		defer func() { <-m.ahead }()
		pieces, err := r.pieces(m.ctx, m.view.Load(), nil, nil, off, n)
		if err != nil {
			return // the read itself will meet it and say so
		}
		m.loadAhead(m.ctx, pieces)
	})
	return true
}
