package vault

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/envelope"
)

// Trace tells which parts of a server's volumes a machine read when it booted, in the
// order in which it first did. It holds for any point of the server: which frames
// those are, the point's map tells.
type Trace []TraceRun

// TraceRun is a stretch of chunks of ChunkSize bytes that were read one after another.
type TraceRun struct {
	Volume       VolumeID
	Chunk, Count uint32
}

// maxTraceChunks bounds a trace: 4 GiB of a volume.
const maxTraceChunks = 1 << 16

// Chunks returns how many chunks a trace has.
func (t Trace) Chunks() int {
	n := 0
	for _, run := range t {
		n += int(run.Count)
	}
	return n
}

// SaveTrace keeps the trace of a server's boot for the next one. It is derived data: to
// lose it loses time only.
func (v *Vault) SaveTrace(ctx context.Context, server drs.SourceServerID, t Trace) error {
	key, err := v.dataKey(ctx, server)
	if err == nil && t.Chunks() > maxTraceChunks {
		err = fmt.Errorf("%d chunks, want at most %d", t.Chunks(), maxTraceChunks)
	}
	if err == nil {
		err = v.documents(tracesFolder(server), ".trace", envelope.Trace, server, key).put(ctx, encodeTrace(t), nil)
	}
	if err != nil {
		return fmt.Errorf("save boot trace of %s: %w", server, err)
	}
	return nil
}

// Trace returns the newest trace of a server. ErrAbsent: there is none that is whole.
func (v *Vault) Trace(ctx context.Context, server drs.SourceServerID) (Trace, error) {
	key, err := v.dataKey(ctx, server)
	if err != nil {
		return nil, fmt.Errorf("read boot trace: %w", err)
	}
	body, _, err := v.documents(tracesFolder(server), ".trace", envelope.Trace, server, key).newest(ctx)
	if err == nil {
		var t Trace
		if t, err = decodeTrace(body); err == nil {
			return t, nil
		}
		err = errors.Join(err, ErrAbsent)
	} else if damaged(err) || errors.Is(err, ErrNewerFormat) {
		err = errors.Join(err, ErrAbsent)
	}
	return nil, fmt.Errorf("read boot trace of %s: %w", server, err)
}

func encodeTrace(t Trace) []byte {
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+12*len(t)), uint32(len(t)))
	for _, run := range t {
		b = binary.LittleEndian.AppendUint32(b, uint32(run.Volume))
		b = binary.LittleEndian.AppendUint32(b, run.Chunk)
		b = binary.LittleEndian.AppendUint32(b, run.Count)
	}
	return b
}

func decodeTrace(body []byte) (Trace, error) {
	c := cursor{b: body}
	n := c.u32()
	if uint64(n)*12 != uint64(len(c.b)) {
		return nil, errShort
	}
	t, total := make(Trace, n), uint64(0)
	for i := range t {
		run := TraceRun{Volume: VolumeID(c.u32()), Chunk: c.u32(), Count: c.u32()}
		total += uint64(run.Count)
		if run.Count == 0 || total > maxTraceChunks || uint64(run.Chunk)+uint64(run.Count) > 1<<32 {
			return nil, fmt.Errorf("run %d: %d chunks from %d", i, run.Count, run.Chunk)
		}
		t[i] = run
	}
	return t, c.end()
}

// Recorder notes what is read of an image.
type Recorder struct {
	image *Image

	mu    sync.Mutex
	seen  map[chunkOf]struct{} // guarded by mu
	trace Trace                // guarded by mu
}

type chunkOf struct {
	volume VolumeID
	chunk  uint32
}

// Record begins to note what is read of the image, in place of an earlier recorder.
func (m *Image) Record() *Recorder {
	r := &Recorder{image: m, seen: map[chunkOf]struct{}{}}
	m.recorder.Store(r)
	return r
}

// Stop ends the noting and returns what was noted.
func (r *Recorder) Stop() Trace {
	r.image.recorder.CompareAndSwap(r, nil)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.trace
}

func (r *Recorder) note(volume VolumeID, off, n int64) {
	if n <= 0 {
		return
	}
	first, last := uint64(off)/ChunkSize, uint64(off+n-1)/ChunkSize
	r.mu.Lock()
	defer r.mu.Unlock()
	for chunk := first; chunk <= last && chunk < 1<<32 && len(r.seen) < maxTraceChunks; chunk++ {
		at := chunkOf{volume, uint32(chunk)}
		if _, known := r.seen[at]; known {
			continue
		}
		r.seen[at] = struct{}{}
		if k := len(r.trace) - 1; k >= 0 && r.trace[k].Volume == volume && uint64(r.trace[k].Chunk)+uint64(r.trace[k].Count) == chunk {
			r.trace[k].Count++
			continue
		}
		r.trace = append(r.trace, TraceRun{volume, uint32(chunk), 1})
	}
}
