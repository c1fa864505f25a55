package nbd

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
)

const (
	// holeWorthAsking is the length of a read, in bytes, from which asking the
	// device for holes pays: below it the answer costs more than the zeros.
	holeWorthAsking = 16 << 10

	// maxChunks bounds the pieces of one read's reply; what comes after them
	// is sent as data.
	maxChunks = 128

	// maxDescriptors bounds the answer to one block status request. The client
	// asks again from where it ends.
	maxDescriptors = 8192
)

// chunk is a piece of the device, all zeros or not known to be.
type chunk struct {
	length uint32
	hole   bool
}

// read fills the reply with the data, or with holes where the client
// understands them and the device knows of them.
func (c *conn) read(ctx context.Context, r *request) error {
	if !c.structured {
		if err := c.fetch(r); err != nil {
			return err
		}
		r.succeed()
		r.pieces = append(r.pieces, r.bytes())
		return nil
	}
	if r.length == 0 {
		r.head = appendChunkHeader(r.head, r, replyNone, 0, true)
		r.pieces = append(r.pieces, r.head)
		return nil
	}
	if c.target.extent == nil || r.flags&cmdFlagDF != 0 || r.length < holeWorthAsking {
		if err := c.fetch(r); err != nil {
			return err
		}
		r.head = appendChunkHeader(r.head, r, replyOffsetData, 8+r.length, true)
		r.head = binary.BigEndian.AppendUint64(r.head, r.offset)
		r.pieces = append(r.pieces, r.head, r.payload.bytes)
		return nil
	}
	return c.readSparse(ctx, r)
}

// bytes is the payload of a request, which may have none.
func (r *request) bytes() []byte {
	if r.payload == nil {
		return nil
	}
	return r.payload.bytes
}

// fetch reads the whole range into a buffer.
func (c *conn) fetch(r *request) error {
	if r.length == 0 {
		return nil
	}
	r.payload = getBuffer(int(r.length))
	return readFull(c.target.reader, r.payload.bytes, int64(r.offset))
}

// readFull is ReadAt that forgives the io.EOF of a read up to the very end.
func readFull(dev io.ReaderAt, p []byte, off int64) error {
	n, err := dev.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes at %d: %w", len(p), off, err)
}

func (c *conn) readSparse(ctx context.Context, r *request) error {
	rest, err := c.target.chunks(ctx, r, maxChunks)
	if err != nil {
		return err
	}
	if rest > 0 {
		r.chunks = append(r.chunks, chunk{length: rest})
	}
	off := r.offset
	for i, ch := range r.chunks {
		last := i == len(r.chunks)-1
		start := len(r.head)
		if ch.hole {
			r.head = appendChunkHeader(r.head, r, replyOffsetHole, 12, last)
			r.head = binary.BigEndian.AppendUint64(r.head, off)
			r.head = binary.BigEndian.AppendUint32(r.head, ch.length)
			r.pieces = append(r.pieces, r.head[start:])
		} else {
			if r.payload == nil {
				r.payload = getBuffer(int(r.length))
			}
			at := off - r.offset
			data := r.payload.bytes[at : at+uint64(ch.length)]
			if err := readFull(c.target.reader, data, int64(off)); err != nil {
				return err
			}
			r.head = appendChunkHeader(r.head, r, replyOffsetData, 8+ch.length, last)
			r.head = binary.BigEndian.AppendUint64(r.head, off)
			r.pieces = append(r.pieces, r.head[start:], data)
		}
		off += uint64(ch.length)
	}
	return nil
}

// chunks fills r.chunks with at most limit pieces, one or more, of what the
// device says of the request's range, neighbours of one kind merged. rest is
// what they leave of the range. A device that says too little is taken to have
// data there.
func (t *target) chunks(ctx context.Context, r *request, limit int) (rest uint32, err error) {
	rest = r.length
	err = t.extent.Extents(ctx, int64(r.offset), int64(r.length), func(length int64, hole bool) bool {
		n := uint32(min(max(length, 0), int64(rest)))
		last := len(r.chunks) - 1
		switch {
		case n == 0:
		case last >= 0 && r.chunks[last].hole == hole:
			r.chunks[last].length += n
		case len(r.chunks) == limit:
			return false
		default:
			r.chunks = append(r.chunks, chunk{n, hole})
		}
		rest -= n
		return rest > 0
	})
	if err != nil {
		return 0, fmt.Errorf("extents of %d bytes at %d: %w", r.length, r.offset, err)
	}
	if len(r.chunks) == 0 {
		r.chunks = append(r.chunks, chunk{length: r.length})
		rest = 0
	}
	return rest, nil
}

// blockStatus answers with the device's extents under base:allocation.
func (c *conn) blockStatus(ctx context.Context, r *request) error {
	limit := maxDescriptors
	if r.flags&cmdFlagReqOne != 0 {
		limit = 1
	}
	if _, err := c.target.chunks(ctx, r, limit); err != nil {
		return err
	}
	r.head = appendChunkHeader(r.head, r, replyBlockStatus, uint32(4+8*len(r.chunks)), true)
	r.head = binary.BigEndian.AppendUint32(r.head, contextAllocationID)
	for _, ch := range r.chunks {
		var state uint32
		if ch.hole {
			state = stateHole | stateZero
		}
		r.head = binary.BigEndian.AppendUint32(r.head, ch.length)
		r.head = binary.BigEndian.AppendUint32(r.head, state)
	}
	r.pieces = append(r.pieces, r.head)
	return nil
}
