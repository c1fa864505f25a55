// Package qmp speaks the QEMU Machine Protocol: commands to a running QEMU and
// the events it reports, as lines of JSON over a socket.
//
// A Conn is safe for concurrent use. Answers are matched to commands by id,
// every wait is bounded by the caller's context, and a peer that sends a line
// longer than MaxLine or anything that is not JSON ends the connection: QEMU runs
// foreign code, so it is not trusted to be well behaved for ever.
package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// MaxLine bounds one message from QEMU, in bytes. Answers to the commands used
// here are below 100 KiB.
const MaxLine = 1 << 20

// writeTimeout bounds the sending of a command, a line of at most a few KiB.
const writeTimeout = 10 * time.Second

// ErrClosed is in the error of every call made after the connection ended.
var ErrClosed = errors.New("qmp connection closed")

// Error is QEMU's refusal of a command; the connection is still good.
type Error struct {
	Command string
	Class   string
	Desc    string
}

func (e *Error) Error() string { return fmt.Sprintf("qemu refused %s: %s", e.Command, e.Desc) }

// Event is something that happened to the machine.
type Event struct {
	Name string
	At   time.Time // by QEMU's clock, microseconds
	Data json.RawMessage
}

// Conn is a connection in command mode.
type Conn struct {
	nc     net.Conn
	events chan Event
	done   chan struct{} // closed when the reader has ended
	closed chan struct{} // closed by Close
	once   sync.Once     // for closed

	write sync.Mutex // one command line at a time

	mu      sync.Mutex
	nextID  uint64
	waiting map[uint64]chan answer
	err     error // why the reader ended
}

// answer is a command's result.
type answer struct {
	value json.RawMessage
	err   *Error
}

// message is any line that QEMU sends.
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	Return   json.RawMessage `json:"return"`
	Error    *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	ID        *uint64         `json:"id"`
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

// New takes over nc, waits for QEMU's greeting and leaves negotiation mode. It
// closes nc when it returns an error. QEMU serves one client at a time: while
// another is connected the greeting does not come, and New ends with ctx.
func New(ctx context.Context, nc net.Conn) (*Conn, error) {
	c := &Conn{
		nc:      nc,
		events:  make(chan Event, 64),
		done:    make(chan struct{}),
		closed:  make(chan struct{}),
		waiting: map[uint64]chan answer{},
	}
	lines := bufio.NewScanner(nc)
	lines.Buffer(make([]byte, 0, 4096), MaxLine)
	if err := greet(ctx, nc, lines); err != nil {
		nc.Close()
		return nil, fmt.Errorf("qmp greeting: %w", err)
	}
	go c.read(lines)
	if err := c.Run(ctx, "qmp_capabilities", nil, nil); err != nil {
		_ = c.Close() // what went wrong before tells more
		return nil, err
	}
	return c, nil
}

// greet reads the first line, until ctx ends.
func greet(ctx context.Context, nc net.Conn, lines *bufio.Scanner) error {
	// It fails on a closed socket only, whose read ends anyway.
	stop := context.AfterFunc(ctx, func() { _ = nc.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if !lines.Scan() {
		err := lines.Err()
		switch {
		case ctx.Err() != nil && (err == nil || errors.Is(err, os.ErrDeadlineExceeded)):
			return ctx.Err()
		case err == nil:
			return io.ErrUnexpectedEOF
		}
		return err
	}
	if !stop() {
		return ctx.Err()
	}
	var m message
	if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
		return err
	}
	if m.Greeting == nil {
		return errors.New("the peer is not a QMP server")
	}
	return nil
}

// Events delivers what happens, in order, and is closed when the connection
// ends. Somebody must receive: an event nobody takes holds up all answers.
func (c *Conn) Events() <-chan Event { return c.events }

// Done is closed when the connection has ended for any reason; Err then tells.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended, nil while it lives.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection. The machine goes on.
func (c *Conn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.nc.Close()
}

// Run carries out a command and decodes its result into result, unless nil. The
// error is an *Error when QEMU refused, wraps ErrClosed when the connection
// ended, and is the context's when that ended first; the command may then still
// have been carried out.
func (c *Conn) Run(ctx context.Context, command string, arguments, result any) error {
	id, reply, err := c.expect()
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	defer c.forget(id)
	if err := c.send(ctx, id, command, arguments); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	select {
	case a := <-reply:
		return a.decode(command, result)
	case <-c.done:
		select {
		case a := <-reply: // answered with its last breath
			return a.decode(command, result)
		default:
		}
		return fmt.Errorf("%s: %w", command, c.Err())
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", command, ctx.Err())
	}
}

func (a answer) decode(command string, result any) error {
	if a.err != nil {
		a.err.Command = command
		return a.err
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(a.value, result); err != nil {
		return fmt.Errorf("%s: result: %w", command, err)
	}
	return nil
}

func (c *Conn) expect() (uint64, chan answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, nil, c.err
	}
	c.nextID++
	reply := make(chan answer, 1)
	c.waiting[c.nextID] = reply
	return c.nextID, reply, nil
}

func (c *Conn) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c *Conn) send(ctx context.Context, id uint64, command string, arguments any) error {
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, arguments, id})
	if err != nil {
		return err
	}
	c.write.Lock()
	defer c.write.Unlock()
	// A peer that does not read must not hold the caller; a line cut short leaves
	// the stream unusable, so the connection ends with it.
	deadline := time.Now().Add(writeTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	err = c.nc.SetWriteDeadline(deadline)
	if err == nil {
		_, err = c.nc.Write(append(line, '\n'))
	}
	if err != nil {
		c.nc.Close()
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return nil
}

// read is the only receiver. It ends when the socket does.
func (c *Conn) read(lines *bufio.Scanner) {
	err := c.receive(lines)
	if err == nil {
		err = io.EOF
	}
	c.nc.Close()
	c.mu.Lock()
	c.err = fmt.Errorf("%w: %w", ErrClosed, err)
	c.mu.Unlock()
	close(c.done)
	close(c.events)
}

func (c *Conn) receive(lines *bufio.Scanner) error {
	for lines.Scan() {
		var m message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return fmt.Errorf("message: %w", err)
		}
		switch {
		case m.Event != "":
			at := time.Unix(m.Timestamp.Seconds, m.Timestamp.Microseconds*1000)
			select {
			case c.events <- Event{Name: m.Event, At: at, Data: m.Data}:
			case <-c.closed:
				return nil
			}
		case m.ID != nil:
			c.deliver(m)
		case m.Error != nil:
			return fmt.Errorf("qemu could not read a command: %s", m.Error.Desc)
		}
	}
	return lines.Err()
}

func (c *Conn) deliver(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	reply, ok := c.waiting[*m.ID]
	if !ok {
		return // its caller has given up
	}
	delete(c.waiting, *m.ID)
	a := answer{value: m.Return}
	if m.Error != nil {
		a.err = &Error{Class: m.Error.Class, Desc: m.Error.Desc}
	}
	reply <- a
}
