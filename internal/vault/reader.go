package vault

import (
	"context"
	"fmt"
	"io"
	"sync"

	"lifeboat/internal/vault/extent"
)

// VolumeReader reads one volume of an image. Safe for concurrent use, and valid
// until the image is closed.
type VolumeReader struct {
	image  *Image
	volume Volume

	mu     sync.Mutex
	stream stream // guarded by mu
}

// Span is a run of bytes of a volume that is all data or all hole. A hole reads as
// zeros; data may be zeros, too.
type Span struct {
	Offset, Length int64
	Hole           bool
}

// records returns the volume's map in a view.
func (r *VolumeReader) records(vw *view) []extent.Record { return vw.maps[r.volume.ID] }

// Size returns the size of the volume in bytes.
func (r *VolumeReader) Size() int64 { return r.volume.Size }

// readWindow bounds how much of a large read is held in memory twice.
const readWindow = 4 << 20

// ReadAt implements io.ReaderAt. Damage to what it reads is a *CorruptError; then
// the contents of p are undefined.
func (r *VolumeReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read volume %d: negative offset %d", r.volume.ID, off)
	}
	left := r.volume.Size - off
	if left <= 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), left))
	if rec := r.image.recorder.Load(); rec != nil {
		rec.note(r.volume.ID, off, int64(n))
	}
	for done := 0; done < n; {
		part := min(n-done, readWindow)
		more := r.readAhead(off+int64(done), part)
		if err := r.read(r.image.ctx, p[done:done+part], off+int64(done), more); err != nil {
			return done, fmt.Errorf("read volume %d of %s at %d: %w", r.volume.ID, r.image.server, off+int64(done), err)
		}
		done += part
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// read fills p and, where it has to load a frame, loads those of that many bytes
// more. All lies within the volume.
func (r *VolumeReader) read(ctx context.Context, p []byte, off, more int64) error {
	return r.viewed(ctx, func(vw *view) error { return r.readView(ctx, vw, p, off, more) })
}

// viewed calls f with the newest view, and again when what f looked for was folded away.
func (r *VolumeReader) viewed(ctx context.Context, f func(*view) error) error {
	for {
		vw := r.image.view.Load()
		err := f(vw)
		if !missing(err) || ctx.Err() != nil {
			return err
		}
		// It ends: either somebody has folded since, or the segment is lost.
		if err := r.image.renew(ctx, vw, err); err != nil {
			return err
		}
	}
}

func (r *VolumeReader) readView(ctx context.Context, vw *view, p []byte, off, more int64) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var few [4]piece
	pieces, err := r.pieces(ctx, vw, few[:0], p, off, int64(len(p)))
	if err != nil {
		return err
	}
	needed := len(pieces)
	mine := r.image.claim(pieces)
	if mine > 0 && more > 0 {
		ahead, err := r.pieces(ctx, vw, nil, nil, off+int64(len(p)), more)
		if err == nil { // else it concerns a later read
			mine += r.image.claim(ahead)
			pieces = append(pieces, ahead...)
		}
	}
	r.image.demand.waiting.Add(1)
	defer r.image.demand.waiting.Add(-1)
	r.image.fetch(ctx, pieces, mine)
	for i := 0; i < needed && err == nil; i++ {
		err = r.image.copyOut(ctx, &pieces[i])
	}
	r.image.release(pieces)
	return err
}

// walkMap calls f for every record and every gap between records, cut to [off, off+n),
// in order. For gaps the record is nil.
func walkMap(records []extent.Record, off, n int64, f func(off, n int64, rec *extent.Record) error) error {
	end := off + n
	i := extent.Find(records, uint64(off)/BlockSize)
	for off < end {
		until, rec := end, (*extent.Record)(nil)
		if i < len(records) {
			if begin := int64(records[i].Block) * BlockSize; begin > off {
				until = min(end, begin)
			} else {
				rec = &records[i]
				until = min(end, int64(rec.End())*BlockSize)
				i++
			}
		}
		if err := f(off, until-off, rec); err != nil {
			return err
		}
		off = until
	}
	return nil
}

// Extents describes [off, off+n) without gaps, in order.
func (r *VolumeReader) Extents(ctx context.Context, off, n int64) ([]Span, error) {
	if off < 0 || n < 0 || off > r.volume.Size {
		return nil, fmt.Errorf("extents of volume %d: %d+%d lie outside of its %d bytes", r.volume.ID, off, n, r.volume.Size)
	}
	n = min(n, r.volume.Size-off)
	var out []Span
	err := walkMap(r.records(r.image.view.Load()), off, n, func(off, n int64, rec *extent.Record) error {
		hole := rec == nil || rec.Zero()
		if k := len(out); k > 0 && out[k-1].Hole == hole {
			out[k-1].Length += n
		} else {
			out = append(out, Span{off, n, hole})
		}
		return ctx.Err()
	})
	return out, err
}

// Own describes, in order, what the image's branch has written since it began, of the main
// branch everything. A hole is blocks that it made zeros, or that were before.
func (r *VolumeReader) Own() []Span {
	vw := r.image.view.Load()
	var out []Span
	for _, rec := range r.records(vw) {
		if !rec.Zero() && vw.segs[rec.Seg].seq <= r.image.began {
			continue
		}
		off := int64(rec.Block) * BlockSize
		out = append(out, Span{off, min(int64(rec.End())*BlockSize, r.volume.Size) - off, rec.Zero()})
	}
	return out
}
