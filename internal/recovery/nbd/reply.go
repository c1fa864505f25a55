package nbd

import (
	"encoding/binary"
	"log/slog"
	"math/bits"
	"net"
	"sync"
	"sync/atomic"
)

// succeed makes the reply a simple one without error.
func (r *request) succeed() { r.simple(0) }

func (r *request) simple(e code) {
	r.head = binary.BigEndian.AppendUint32(r.head[:0], magicSimple)
	r.head = binary.BigEndian.AppendUint32(r.head, uint32(e))
	r.head = binary.BigEndian.AppendUint64(r.head, r.cookie)
	r.pieces = append(r.pieces[:0], r.head)
}

func appendChunkHeader(b []byte, r *request, kind uint16, length uint32, last bool) []byte {
	var flags uint16
	if last {
		flags = replyFlagDone
	}
	b = binary.BigEndian.AppendUint32(b, magicStructured)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint64(b, r.cookie)
	return binary.BigEndian.AppendUint32(b, length)
}

// fail answers r with an error, dropping what was prepared as its reply.
func (c *conn) fail(r *request, e code) {
	if c.structured {
		r.head = appendChunkHeader(r.head[:0], r, replyError, 6, true)
		r.head = binary.BigEndian.AppendUint32(r.head, uint32(e))
		r.head = binary.BigEndian.AppendUint16(r.head, 0) // no text
		r.pieces = append(r.pieces[:0], r.head)
	} else {
		r.simple(e)
	}
	c.send(r)
}

// outbox holds the replies that wait for the socket. Whoever finds nobody
// writing writes everything that has gathered, in one system call where that is
// possible; the others leave their reply and go on.
type outbox struct {
	mu      sync.Mutex
	writing bool
	queue   []*request
	spare   []*request // the queue written last, to be used again
	err     error      // of the first failed write; nothing is written after it

	// Owned by whoever set writing.
	pieces [][]byte
	buffer net.Buffers
	joined []byte // small pieces on their way through TLS
}

// send queues the reply of r and gives r away.
func (c *conn) send(r *request) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	o.queue = append(o.queue, r)
	if o.writing {
		return
	}
	o.writing = true
	for len(o.queue) > 0 {
		batch, err := o.queue, o.err
		o.queue = o.spare[:0]
		o.mu.Unlock()
		if err == nil {
			err = c.deliver(batch)
		}
		for i, r := range batch {
			c.done(r)
			batch[i] = nil
		}
		o.mu.Lock()
		if err != nil && o.err == nil {
			o.err = err
			c.nc.Close() // nobody can be answered: stop reading, too
		}
		o.spare = batch
	}
	o.writing = false
}

// deliver writes the replies of a batch.
func (c *conn) deliver(batch []*request) error {
	o := &c.out
	o.pieces = o.pieces[:0]
	for _, r := range batch {
		o.pieces = append(o.pieces, r.pieces...)
	}
	defer clear(o.pieces)
	if c.secure != nil {
		return o.join(c.secure)
	}
	o.buffer = o.pieces
	_, err := o.buffer.WriteTo(c.nc)
	return err
}

// done returns what the request held.
func (c *conn) done(r *request) {
	if r.cost > 0 {
		c.memory.Release(r.cost)
	}
	r.free()
}

// faultLog keeps a failing device from filling the log: of the errors of one
// connection it reports the 1st, 2nd, 4th, 8th and so on.
type faultLog struct{ count atomic.Uint64 }

func (f *faultLog) note(log *slog.Logger, r *request, e code, err error) {
	n := f.count.Add(1)
	if e == codeNotSup || bits.OnesCount64(n) != 1 {
		return
	}
	log.Error("nbd request failed", "op", r.cmd.String(), "off", r.offset, "bytes", r.length, "count", n, "err", err)
}
