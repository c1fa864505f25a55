package replication

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// ErrSilent: the peer said nothing for IdleTimeout.
var ErrSilent = errors.New("the peer fell silent")

// Conn carries messages over a connection, which should be TLS. Sending is safe
// for concurrent use; one goroutine at a time may receive. After an error from
// either direction the Conn is of no more use.
type Conn struct {
	net net.Conn
	// line is net with the deadlines of an idle peer.
	line *patient
	r    *bufio.Reader

	ended atomic.Bool // End reads the rest

	mu      sync.Mutex // covers the fields below and the order of frames
	w       *bufio.Writer
	scratch []byte
	failed  error
}

// writeBuffer is what one TLS write carries when the sender is busy.
const writeBuffer = 128 << 10

// NewConn wraps an established connection.
func NewConn(c net.Conn) *Conn {
	line := &patient{Conn: c, idle: IdleTimeout}
	return &Conn{net: c, line: line, r: bufio.NewReaderSize(line, 4<<10), w: bufio.NewWriterSize(line, writeBuffer)}
}

// Remote is the peer's network address.
func (c *Conn) Remote() string { return c.net.RemoteAddr().String() }

// Queue puts a message into the write buffer; it may stay there until Flush.
// The message may be used again when Queue returns.
func (c *Conn) Queue(m Message) error { return c.write(m, false) }

// Send queues a message and flushes.
func (c *Conn) Send(m Message) error { return c.write(m, true) }

// Flush sends what is queued.
func (c *Conn) Flush() error { return c.write(nil, true) }

func (c *Conn) write(m Message, flush bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return c.failed
	}
	var err error
	if m != nil {
		err = writeFrame(c.w, m, &c.scratch)
	}
	if err == nil && flush {
		err = c.w.Flush()
	}
	if err != nil {
		c.failed = fmt.Errorf("send to %s: %w", c.Remote(), silent(err))
	}
	return c.failed
}

// Receive returns the next message. An Error message of the peer is returned as
// an error (*Error), a Bye as io.EOF.
func (c *Conn) Receive() (Message, error) {
	if c.ended.Load() {
		return nil, net.ErrClosed
	}
	m, err := readFrame(c.r)
	switch m := m.(type) {
	case *Error:
		return nil, m
	case *Bye:
		return nil, io.EOF
	}
	if err != nil {
		return nil, fmt.Errorf("receive from %s: %w", c.Remote(), silent(err))
	}
	return m, nil
}

func silent(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w (%s)", ErrSilent, IdleTimeout)
	}
	return err
}

// Close ends the connection at once. Messages not flushed are lost.
func (c *Conn) Close() error { return c.net.Close() }

// Refuse tells the peer why the session ends and closes the connection.
func (c *Conn) Refuse(e *Error) { c.End(e) }

// End sends a last message, as far as that goes without waiting long, and closes
// the connection.
func (c *Conn) End(last Message) {
	c.line.ending.Store(true)
	// A deadline cannot be set on a closed connection only, where nothing waits.
	_ = c.net.SetWriteDeadline(time.Now().Add(time.Second)) // unblocks a writer, too
	c.mu.Lock()
	if c.failed == nil {
		_ = c.net.SetWriteDeadline(time.Now().Add(2 * time.Second))
		if c.failed = writeFrame(c.w, last, &c.scratch); c.failed == nil {
			c.failed = c.w.Flush()
		}
	}
	sent := c.failed == nil
	if sent {
		c.failed = net.ErrClosed
	}
	c.mu.Unlock()
	if half, ok := c.net.(interface{ CloseWrite() error }); ok && sent && half.CloseWrite() == nil {
		// Closing with unread bytes would reset the connection and could take
		// the last message with it: read on until the peer has closed.
		c.ended.Store(true)
		_ = c.net.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.Copy(io.Discard, c.net) // however it ends, it is over
	}
	c.net.Close()
}
