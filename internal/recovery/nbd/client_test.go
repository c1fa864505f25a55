package nbd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// client speaks the wire protocol by hand, so that tests can say wrong things.
type client struct {
	t testing.TB
	net.Conn
}

func dial(t testing.TB, socket string) *client {
	t.Helper()
	nc, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	// Nothing below waits for long; this only ends a test that hangs.
	nc.SetDeadline(time.Now().Add(3 * time.Minute))
	c := &client{t, nc}
	want := append([]byte("NBDMAGICIHAVEOPT"), 0, 3)
	if got := c.take(18); !bytes.Equal(got, want) {
		t.Fatalf("greeting %q, want %q", got, want)
	}
	c.put(uint32(3))
	return c
}

// put writes integers big endian, and bytes and strings as they are.
func (c *client) put(values ...any) {
	c.t.Helper()
	if _, err := c.Write(encode(values...)); err != nil {
		c.t.Fatal(err)
	}
}

func encode(values ...any) []byte {
	var b bytes.Buffer
	for _, v := range values {
		switch v := v.(type) {
		case string:
			b.WriteString(v)
		default:
			binary.Write(&b, binary.BigEndian, v)
		}
	}
	return b.Bytes()
}

func (c *client) take(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		c.t.Fatalf("read %d bytes: %v", n, err)
	}
	return b
}

// gone checks that the server hangs up without another byte.
func (c *client) gone() {
	c.t.Helper()
	rest, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal("the server did not hang up")
	}
	if len(rest) > 0 {
		c.t.Fatalf("the server sent %d bytes more: %x", len(rest), rest)
	}
}

func (c *client) option(opt uint32, data []byte) {
	c.t.Helper()
	c.put("IHAVEOPT", opt, uint32(len(data)), data)
}

// optionReply reads one reply to opt.
func (c *client) optionReply(opt uint32) (kind uint32, data []byte) {
	c.t.Helper()
	h := c.take(20)
	if m := binary.BigEndian.Uint64(h); m != 0x3e889045565a9 {
		c.t.Fatalf("option reply magic %#x", m)
	}
	if o := binary.BigEndian.Uint32(h[8:]); o != opt {
		c.t.Fatalf("reply to option %d, want %d", o, opt)
	}
	return binary.BigEndian.Uint32(h[12:]), c.take(int(binary.BigEndian.Uint32(h[16:])))
}

// ask sends an option and returns the kind of its final reply.
func (c *client) ask(opt uint32, data []byte) uint32 {
	c.t.Helper()
	c.option(opt, data)
	for {
		kind, _ := c.optionReply(opt)
		if kind == 1 || kind >= 1<<31 {
			return kind
		}
	}
}

func infoData(name string, wants ...uint16) []byte {
	return encode(uint32(len(name)), name, uint16(len(wants)), wants)
}

func contextData(name string, queries ...string) []byte {
	b := encode(uint32(len(name)), name, uint32(len(queries)))
	for _, q := range queries {
		b = append(b, encode(uint32(len(q)), q)...)
	}
	return b
}

// enter negotiates the export, with structured replies and base:allocation if
// asked for.
func (c *client) enter(name string, structured bool) {
	c.t.Helper()
	if structured {
		if k := c.ask(8, nil); k != 1 {
			c.t.Fatalf("structured replies: %#x", k)
		}
		if k := c.ask(10, contextData(name, "base:allocation")); k != 1 {
			c.t.Fatalf("set context: %#x", k)
		}
	}
	if k := c.ask(7, infoData(name)); k != 1 {
		c.t.Fatalf("go: %#x", k)
	}
}

func (c *client) request(flags, cmd uint16, cookie, off uint64, n uint32, payload []byte) {
	c.t.Helper()
	c.put(uint32(0x25609513), flags, cmd, cookie, off, n, payload)
}

// simpleReply reads a simple reply without data.
func (c *client) simpleReply() (cookie uint64, code uint32) {
	c.t.Helper()
	h := c.take(16)
	if m := binary.BigEndian.Uint32(h); m != 0x67446698 {
		c.t.Fatalf("simple reply magic %#x", m)
	}
	return binary.BigEndian.Uint64(h[8:]), binary.BigEndian.Uint32(h[4:])
}

// chunk reads one chunk of a structured reply.
func (c *client) chunk() (cookie uint64, kind uint16, last bool, data []byte) {
	c.t.Helper()
	h := c.take(20)
	if m := binary.BigEndian.Uint32(h); m != 0x668e33ef {
		c.t.Fatalf("structured reply magic %#x", m)
	}
	return binary.BigEndian.Uint64(h[8:]), binary.BigEndian.Uint16(h[6:]), binary.BigEndian.Uint16(h[4:]) == 1,
		c.take(int(binary.BigEndian.Uint32(h[16:])))
}

// code sends a request and returns the error code of its reply, whatever form
// the reply has.
func (c *client) code(structured bool, flags, cmd uint16, off uint64, n uint32, payload []byte) uint32 {
	c.t.Helper()
	c.request(flags, cmd, 7, off, n, payload)
	if !structured {
		cookie, code := c.simpleReply()
		if cookie != 7 {
			c.t.Fatalf("cookie %d", cookie)
		}
		if code == 0 && cmd == 0 {
			c.take(int(n))
		}
		return code
	}
	h := c.take(4)
	if binary.BigEndian.Uint32(h) == 0x67446698 {
		return binary.BigEndian.Uint32(c.take(12))
	}
	for code := uint32(0); ; {
		h = append(h[:4], c.take(16)...)
		data := c.take(int(binary.BigEndian.Uint32(h[16:])))
		if kind := binary.BigEndian.Uint16(h[6:]); kind == 1<<15+1 {
			code = binary.BigEndian.Uint32(data)
		}
		if binary.BigEndian.Uint16(h[4:]) == 1 {
			return code
		}
		c.take(4)
	}
}
