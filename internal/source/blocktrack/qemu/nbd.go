package qemu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// client reads one export of QEMU's NBD server. One goroutine uses it at a time.
// After an error other than a *nbdError it is finished.
type client struct {
	nc       net.Conn
	size     int64
	contexts map[string]uint32 // of block status, by name
	cookie   uint64
}

// nbdError is the server's refusal of a request.
type nbdError struct {
	command uint16
	code    uint32
}

func (e *nbdError) Error() string { return fmt.Sprintf("nbd command %d: error %d", e.command, e.code) }

// extent is a run of bytes of one status.
type extent struct {
	length int64
	flags  uint32
}

const (
	nbdTimeout = 60 * time.Second // of one exchange; a disk may take long over one read
	maxReply   = 64 << 20

	magicOption      = 0x49484156454F5054
	magicOptionReply = 0x3e889045565a9
	magicRequest     = 0x25609513
	magicSimple      = 0x67446698
	magicStructured  = 0x668e33ef

	optGo, optStructured, optSetContext = 7, 8, 10

	replyAck, replyInfo, replyContext = 1, 3, 4

	cmdRead, cmdDisconnect, cmdStatus = 0, 2, 7

	chunkData, chunkHole, chunkStatus = 1, 2, 5
	chunkError                        = 1 << 15
)

// dialNBD opens the export with the status contexts asked for, all of which the
// server must have.
func dialNBD(ctx context.Context, socket, export string, contexts ...string) (*client, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("nbd: %w", err)
	}
	c := &client{nc: nc, contexts: map[string]uint32{}}
	stop := context.AfterFunc(ctx, func() { _ = nc.Close() })
	err = c.negotiate(export, contexts)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = nc.Close() // read only: nothing can be lost
		return nil, fmt.Errorf("nbd export %q: %w", export, err)
	}
	return c, nil
}

func (c *client) close() { _ = c.nc.Close() }

func (c *client) limit() error { return c.nc.SetDeadline(time.Now().Add(nbdTimeout)) }

func (c *client) negotiate(export string, contexts []string) error {
	if err := c.limit(); err != nil {
		return err
	}
	greeting, err := c.take(18)
	if err != nil {
		return err
	}
	if string(greeting[:16]) != "NBDMAGICIHAVEOPT" || greeting[17]&3 != 3 {
		return errors.New("not a server of the fixed newstyle without padding")
	}
	if _, err := c.nc.Write([]byte{0, 0, 0, 3}); err != nil {
		return err
	}
	if err := c.option(optStructured, nil, nil); err != nil {
		return fmt.Errorf("structured replies: %w", err)
	}
	named := binary.BigEndian.AppendUint32(nil, uint32(len(export)))
	named = append(named, export...)
	query := binary.BigEndian.AppendUint32(named[:len(named):len(named)], uint32(len(contexts)))
	for _, name := range contexts {
		query = binary.BigEndian.AppendUint32(query, uint32(len(name)))
		query = append(query, name...)
	}
	err = c.option(optSetContext, query, func(kind uint32, data []byte) {
		if kind == replyContext && len(data) > 4 {
			c.contexts[string(data[4:])] = binary.BigEndian.Uint32(data)
		}
	})
	if err != nil {
		return fmt.Errorf("block status: %w", err)
	}
	for _, name := range contexts {
		if _, ok := c.contexts[name]; !ok {
			return fmt.Errorf("the server knows no block status %q", name)
		}
	}
	c.size = -1
	err = c.option(optGo, append(named[:len(named):len(named)], 0, 0), func(kind uint32, data []byte) {
		if kind == replyInfo && len(data) == 12 && data[0] == 0 && data[1] == 0 {
			c.size = int64(binary.BigEndian.Uint64(data[2:]))
		}
	})
	if err == nil && c.size < 0 {
		err = errors.New("the server did not tell its size")
	}
	return err
}

// option sends an option and hands on its replies until the last.
func (c *client) option(option uint32, data []byte, reply func(kind uint32, data []byte)) error {
	b := binary.BigEndian.AppendUint64(nil, magicOption)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	if _, err := c.nc.Write(append(b, data...)); err != nil {
		return err
	}
	for {
		h, err := c.take(20)
		if err != nil {
			return err
		}
		kind, n := binary.BigEndian.Uint32(h[12:]), binary.BigEndian.Uint32(h[16:])
		if binary.BigEndian.Uint64(h) != magicOptionReply || binary.BigEndian.Uint32(h[8:]) != option || n > 64<<10 {
			return errors.New("malformed reply to an option")
		}
		body, err := c.take(int(n))
		switch {
		case err != nil:
			return err
		case kind == replyAck:
			return nil
		case kind >= 1<<31:
			return fmt.Errorf("the server refuses option %d with %#x: %q", option, kind, body)
		case reply != nil:
			reply(kind, body)
		}
	}
}

func (c *client) take(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(c.nc, b)
	return b, err
}

// request sends a command and hands on the chunks of its reply.
func (c *client) request(command uint16, off, length int64, chunk func(kind uint16, length int64) error) error {
	if err := c.limit(); err != nil {
		return err
	}
	c.cookie++
	b := binary.BigEndian.AppendUint32(nil, magicRequest)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint16(b, command)
	b = binary.BigEndian.AppendUint64(b, c.cookie)
	b = binary.BigEndian.AppendUint64(b, uint64(off))
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	if _, err := c.nc.Write(b); err != nil {
		return err
	}
	var refused error
	for {
		h, err := c.take(16)
		if err != nil {
			return err
		}
		if binary.BigEndian.Uint32(h) == magicSimple { // an error: a reply with data has a structure
			return &nbdError{command, binary.BigEndian.Uint32(h[4:])}
		}
		rest, err := c.take(4)
		if err != nil {
			return err
		}
		flags, kind := binary.BigEndian.Uint16(h[4:]), binary.BigEndian.Uint16(h[6:])
		n := int64(binary.BigEndian.Uint32(rest))
		if binary.BigEndian.Uint32(h) != magicStructured || binary.BigEndian.Uint64(h[8:]) != c.cookie || n > maxReply {
			return errors.New("malformed reply")
		}
		switch {
		case kind&chunkError != 0:
			body, err := c.take(int(n))
			if err != nil {
				return err
			}
			if len(body) < 4 {
				return errors.New("malformed reply: an error without a code")
			}
			refused = &nbdError{command, binary.BigEndian.Uint32(body)}
		case kind == 0 && n == 0:
		default:
			if err := chunk(kind, n); err != nil {
				return err
			}
		}
		if flags&1 != 0 {
			return refused
		}
	}
}

// read fills p from off on.
func (c *client) read(p []byte, off int64) error {
	filled := 0
	err := c.request(cmdRead, off, int64(len(p)), func(kind uint16, n int64) error {
		if kind != chunkData && kind != chunkHole || n < 8 || kind == chunkHole && n != 12 {
			return fmt.Errorf("malformed reply: chunk %d of %d bytes to a read", kind, n)
		}
		head, err := c.take(8)
		if err != nil {
			return err
		}
		length := n - 8
		if kind == chunkHole {
			b, err := c.take(4)
			if err != nil {
				return err
			}
			length = int64(binary.BigEndian.Uint32(b))
		}
		at := int64(binary.BigEndian.Uint64(head)) - off
		if at < 0 || length > int64(len(p)) || at > int64(len(p))-length {
			return errors.New("malformed reply: data that was not asked for")
		}
		filled += int(length)
		if kind == chunkHole {
			clear(p[at : at+length])
			return nil
		}
		_, err = io.ReadFull(c.nc, p[at:at+length])
		return err
	})
	if err == nil && filled != len(p) {
		err = fmt.Errorf("malformed reply: %d bytes of %d", filled, len(p))
	}
	return err
}

// maxStatus is how much one request for block status may cover.
const maxStatus = 1 << 30

// status asks for the extents of a context from off on; they cover at least one
// byte, and at most length and maxStatus.
func (c *client) status(name string, off, length int64) (found []extent, err error) {
	length = min(length, maxStatus)
	id := c.contexts[name]
	err = c.request(cmdStatus, off, length, func(kind uint16, n int64) error {
		b, err := c.take(int(n))
		if err != nil {
			return err
		}
		if kind != chunkStatus || n < 12 || n%8 != 4 {
			return fmt.Errorf("malformed reply: chunk %d of %d bytes to a block status", kind, n)
		}
		if binary.BigEndian.Uint32(b) != id {
			return nil
		}
		for b = b[4:]; len(b) > 0 && length > 0; b = b[8:] {
			e := extent{min(int64(binary.BigEndian.Uint32(b)), length), binary.BigEndian.Uint32(b[4:])}
			if e.length == 0 {
				return errors.New("malformed reply: an empty extent")
			}
			length -= e.length
			found = append(found, e)
		}
		return nil
	})
	if err == nil && len(found) == 0 {
		err = errors.New("malformed reply: no extents")
	}
	return found, err
}
