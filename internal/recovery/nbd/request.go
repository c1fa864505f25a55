package nbd

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// request is one command of the client and, once it has been worked on, the
// reply to it. It is owned by the reading goroutine, then by one worker, then
// by the outbox.
type request struct {
	flags  uint16
	cmd    command
	cookie uint64
	offset uint64
	length uint32

	payload *buffer // of a write, or room for what a read finds
	cost    int64   // bytes held of the connection's memory budget

	chunks []chunk  // what the device has in the range
	head   []byte   // reply headers
	pieces [][]byte // the reply in order: parts of head and of payload
}

var requestPool = sync.Pool{New: func() any { return new(request) }}

// free gives the request and its buffer back. The memory budget is the
// connection's business.
func (r *request) free() {
	if r.payload != nil {
		putBuffer(r.payload)
	}
	clear(r.pieces)
	*r = request{chunks: r.chunks[:0], head: r.head[:0], pieces: r.pieces[:0]}
	requestPool.Put(r)
}

// decode reads a request header of requestLen bytes. An error means that the
// stream cannot be followed any further.
func (r *request) decode(b []byte) error {
	if m := binary.BigEndian.Uint32(b); m != magicRequest {
		return fmt.Errorf("request magic %#x is wrong", m)
	}
	r.flags = binary.BigEndian.Uint16(b[4:])
	r.cmd = command(binary.BigEndian.Uint16(b[6:]))
	r.cookie = binary.BigEndian.Uint64(b[8:])
	r.offset = binary.BigEndian.Uint64(b[16:])
	r.length = binary.BigEndian.Uint32(b[24:])
	if r.cmd == cmdWrite && r.length > maxPayload {
		return fmt.Errorf("a write of %d bytes is longer than the %d that were agreed", r.length, maxPayload)
	}
	return nil
}

// check returns the code a request deserves before any work, 0 if it is good.
func (c *conn) check(r *request) code {
	t := c.target
	allowed := uint16(cmdFlagFUA)
	switch r.cmd {
	case cmdRead:
		if c.structured {
			allowed |= cmdFlagDF
		}
	case cmdWriteZeroes:
		allowed |= cmdFlagNoHole | cmdFlagFastZero
	case cmdBlockStatus:
		allowed |= cmdFlagReqOne
	}
	if r.flags&^allowed != 0 {
		return codeInval
	}

	outside := uint64(r.length) > t.size || r.offset > t.size-uint64(r.length)
	switch r.cmd {
	case cmdFlush:
		if r.offset != 0 || r.length != 0 {
			return codeInval
		}
		return 0
	case cmdRead:
		if outside || r.length > maxPayload {
			return codeInval
		}
		return 0
	case cmdCache:
		if outside || t.cache == nil {
			return codeInval
		}
		return 0
	case cmdBlockStatus:
		if outside || r.length == 0 || !c.allocation {
			return codeInval
		}
		return 0
	case cmdWrite, cmdWriteZeroes, cmdTrim:
		switch {
		case t.writer == nil:
			return codePerm
		case r.cmd == cmdTrim && (t.trim == nil || outside):
			return codeInval
		case outside:
			return codeNoSpace
		}
		return 0
	}
	return codeInval
}
