package nbd_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"lifeboat/internal/recovery/nbd"
)

// pipeListener hands out the server's end of one in-memory connection.
type pipeListener struct {
	conns chan net.Conn
	close func()
}

func newPipeListener() *pipeListener {
	l := &pipeListener{conns: make(chan net.Conn, 1)}
	l.close = sync.OnceFunc(func() { close(l.conns) })
	return l
}

func (l *pipeListener) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l *pipeListener) Close() error   { l.close(); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// FuzzConversation throws bytes at the server, in negotiation or after it, or in
// the clear at one that speaks TLS only.
// Whatever they are, the server ends the connection when the peer hangs up, and
// its next client is served.
func FuzzConversation(f *testing.F) {
	header := func(flags, cmd uint16, off uint64, n uint32) []byte {
		return encode(uint32(0x25609513), flags, cmd, uint64(7), off, n)
	}
	option := func(opt uint32, data []byte) []byte { return encode("IHAVEOPT", opt, uint32(len(data)), data) }
	f.Add(byte(0), encode(uint32(3), option(8, nil), option(7, infoData("", 3)), header(0, 0, 0, 4096)))
	f.Add(byte(0), encode(uint32(3), option(10, contextData("", "base:allocation"))))
	f.Add(byte(0), encode(uint32(3), option(3, nil), option(2, nil)))
	f.Add(byte(0), encode(uint32(1), option(1, nil)))
	f.Add(byte(1), encode(header(0, 1, 4095, 5), "hello", header(1, 3, 0, 0), header(0, 2, 0, 0)))
	f.Add(byte(1), encode(header(2, 6, 100, 70000), header(16, 6, 0, 1), header(0, 4, 1, 99999)))
	f.Add(byte(2), encode(header(0, 7, 0, 1<<20), header(8, 7, 5, 1<<19), header(4, 0, 3, 65536), header(0, 0, 0, 1<<20)))
	f.Add(byte(2), encode(header(0, 0, 0, 1<<31), header(0, 1, 0, 1<<31)))

	f.Add(byte(3), encode(uint32(3), option(3, nil), option(7, infoData("", 3)), option(5, nil), "\x16\x03\x01\x00\x05hello"))
	f.Add(byte(3), encode(uint32(3), option(5, []byte{1}), option(5, nil), option(1, nil)))

	secure := newAuthority(f).serverTLS(f)
	d := newFileDevice(f, 1<<20)
	f.Fuzz(func(t *testing.T, phase byte, input []byte) {
		cfg := nbd.Config{
			Open: exports(map[string]*nbd.Export{"": {Device: d, Shared: true}}),
			List: func(context.Context) ([]string, error) { return []string{""}, nil },
			Log:  slog.New(slog.DiscardHandler),
		}
		phase %= 4
		if phase == 3 {
			cfg.TLS = secure
			cfg.Open = func(context.Context, string) (*nbd.Export, error) {
				t.Error("an export was opened in the clear")
				return nil, nbd.ErrUnknownExport
			}
		}
		srv := nbd.New(cfg)
		ln := newPipeListener()
		done := make(chan error, 1)
		go func() { done <- srv.Serve(context.Background(), ln) }()
		defer func() {
			srv.Close()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()

		ours, theirs := net.Pipe()
		ln.conns <- theirs
		ours.SetDeadline(time.Now().Add(3 * time.Minute))
		c := &client{t, ours}
		c.take(18)
		if phase == 1 || phase == 2 {
			c.put(uint32(3))
			c.enter("", phase == 2)
		}
		drained := make(chan struct{})
		go func() {
			io.Copy(io.Discard, ours)
			close(drained)
		}()
		ours.Write(input)
		ours.Close()
		<-drained
	})
}
