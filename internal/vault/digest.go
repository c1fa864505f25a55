package vault

import (
	"context"
	"fmt"

	"lifeboat/internal/vault/extent"
)

// Digests returns ChunkDigest of n chunks of the volume from chunk first on. It
// takes them from the index where a chunk was written as one frame with a
// digest, and reads and hashes the others.
func (r *VolumeReader) Digests(ctx context.Context, first uint64, n int) ([][16]byte, error) {
	chunks := r.volume.Chunks()
	if n < 0 || first > chunks || uint64(n) > chunks-first {
		return nil, fmt.Errorf("digests of volume %d: chunks %d+%d lie beyond its %d", r.volume.ID, first, n, chunks)
	}
	h := hasher{r: r, zeros: map[int][16]byte{}}
	out := make([][16]byte, n)
	for i := range out {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		err := r.viewed(ctx, func(vw *view) (err error) {
			h.records, h.view = r.records(vw), vw
			out[i], err = h.digest(ctx, first+uint64(i))
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("digest of chunk %d of volume %d of %s: %w", first+uint64(i), r.volume.ID, r.image.server, err)
		}
	}
	return out, nil
}

type hasher struct {
	r       *VolumeReader
	view    *view
	records []extent.Record
	buf     []byte
	zeros   map[int][16]byte // by length
}

func (h *hasher) digest(ctx context.Context, chunk uint64) ([16]byte, error) {
	r := h.r
	block := chunk * FrameBlocks
	blocks := min(FrameBlocks, r.volume.Blocks()-block)
	length := int(blocks) * BlockSize

	i := extent.Find(h.records, block)
	if h.hole(i, block+blocks) {
		d, ok := h.zeros[length]
		if !ok {
			d = ChunkDigest(r.image.seed, make([]byte, length))
			h.zeros[length] = d
		}
		return d, nil
	}
	if d, ok, err := h.known(ctx, h.records[i], block, blocks); ok || err != nil {
		return d, err
	}
	if h.buf == nil {
		h.buf = make([]byte, ChunkSize)
	}
	buf := h.buf[:length]
	off := int64(block) * BlockSize
	n := min(int64(length), r.volume.Size-off)
	clear(buf[n:])
	more := r.readAhead(off, int(n))
	if err := r.read(ctx, buf[:n], off, more); err != nil {
		return [16]byte{}, err
	}
	return ChunkDigest(r.image.seed, buf), nil
}

// hole tells whether all records from i on that begin before end are zeros.
func (h *hasher) hole(i int, end uint64) bool {
	for ; i < len(h.records) && h.records[i].Block < end; i++ {
		if !h.records[i].Zero() {
			return false
		}
	}
	return true
}

// known returns the digest that came with the frame, if the chunk is exactly one.
func (h *hasher) known(ctx context.Context, rec extent.Record, block, blocks uint64) (d [16]byte, ok bool, err error) {
	if rec.Zero() || rec.Block > block || rec.End() < block+blocks {
		return d, false, nil
	}
	ix, err := h.r.image.index(ctx, h.view, rec.Seg)
	if err != nil {
		return d, false, err
	}
	frame, from := ix.Place(rec.Pos + uint32(block-rec.Block))
	if ix.Digests == nil || from != 0 || frame >= len(ix.Frames) || uint64(ix.Frames[frame].Raw) != blocks*BlockSize {
		return d, false, nil
	}
	d = ix.Digests[frame]
	return d, d != [16]byte{}, nil
}
