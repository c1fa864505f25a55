package replication

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

// A frame is a header of 12 bytes and a payload: kind, three zero bytes, the
// payload's length, and the CRC-32C of those 8 bytes and the payload.
const headerLen = 12

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// dataBuffers hold received Data payloads between Receive and Release.
var dataBuffers = sync.Pool{New: func() any { b := make([]byte, 0, MaxData+512); return &b }}

// Release gives the payload's memory back. Neither Payload nor the message may
// be used afterwards. Not calling it costs only garbage.
func (m *Data) Release() {
	if m.buf != nil {
		buf := m.buf
		*m = Data{Extents: m.Extents[:0]}
		dataBuffers.Put(buf)
	}
}

// writeFrame writes m; scratch is a buffer to build small payloads in.
func writeFrame(w io.Writer, m Message, scratch *[]byte) error {
	e := encoder{b: append((*scratch)[:0], make([]byte, headerLen)...)}
	var tail []byte
	if data, ok := m.(*Data); ok && len(data.Extents) <= MaxExtents && len(data.Payload) <= MaxData {
		data.encodeHead(&e)
		tail = data.Payload
	} else {
		m.encode(&e)
	}
	*scratch = e.b
	n := len(e.b) - headerLen + len(tail)
	if e.err == nil && n > MaxPayload {
		e.fail("payload of %d bytes, at most %d", n, MaxPayload)
	}
	if e.err != nil {
		return e.err
	}
	e.b[0] = byte(m.kind())
	binary.LittleEndian.PutUint32(e.b[4:], uint32(n))
	sum := crc32.Update(0, castagnoli, e.b[:8])
	sum = crc32.Update(sum, castagnoli, e.b[headerLen:])
	sum = crc32.Update(sum, castagnoli, tail)
	binary.LittleEndian.PutUint32(e.b[8:], sum)
	if _, err := w.Write(e.b); err != nil {
		return err
	}
	if len(tail) > 0 {
		if _, err := w.Write(tail); err != nil {
			return err
		}
	}
	return nil
}

// readFrame reads one message. io.EOF means that the stream ended between two.
func readFrame(r io.Reader) (Message, error) {
	var head [headerLen]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head[4:])
	if head[1]|head[2]|head[3] != 0 || n > MaxPayload {
		return nil, fmt.Errorf("%w: header % x", ErrMalformed, head)
	}
	m, err := newMessage(Kind(head[0]))
	if err != nil {
		return nil, err
	}
	var payload []byte
	data, isData := m.(*Data)
	if isData && n <= MaxData+512 {
		data.buf = dataBuffers.Get().(*[]byte)
		payload = (*data.buf)[:n]
	} else {
		payload = make([]byte, n)
	}
	if _, err := io.ReadFull(r, payload); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	sum := crc32.Update(crc32.Update(0, castagnoli, head[:8]), castagnoli, payload)
	if sum != binary.LittleEndian.Uint32(head[8:]) {
		return nil, fmt.Errorf("%w: checksum of a message of kind %d and %d bytes", ErrMalformed, head[0], n)
	}
	d := decoder{b: payload}
	m.decode(&d)
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d bytes too many in a message of kind %d", len(d.b), head[0])
	}
	if d.err != nil {
		return nil, d.err
	}
	return m, nil
}
