package nbd

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// readAhead is how many bytes of requests one read of the socket may bring:
// many headers and small writes in one call.
const readAhead = 64 << 10

// conn is one client. Its life: negotiate, then read requests in one goroutine,
// work on them in several, and write their replies from whichever worker
// finished first.
type conn struct {
	srv    *Server
	log    *slog.Logger
	nc     net.Conn           // as it was accepted: to close it, and for its deadlines
	stream io.ReadWriter      // what is said on it: nc, or TLS on top
	secure *tls.Conn          // the latter; nil without
	br     *bufio.Reader      // of stream
	cancel context.CancelFunc // ends the connection; see hangUp

	// Settled by negotiation, constant afterwards.
	noZeroes    bool
	structured  bool
	allocation  bool   // base:allocation was chosen ...
	contextName string // ... for this export
	target      *target

	work    chan *request // to idle workers
	workers sync.WaitGroup
	memory  *semaphore.Weighted // payload bytes
	out     outbox
	faults  faultLog

	mu       sync.Mutex
	draining bool
}

// newConn returns a connection and the context in which to run it.
func newConn(ctx context.Context, s *Server, nc net.Conn) (*conn, context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	return &conn{
		cancel: cancel,
		srv:    s,
		log:    s.log.With("peer", nc.RemoteAddr().String()),
		nc:     nc,
		stream: nc,
		br:     bufio.NewReaderSize(nc, readAhead),
		work:   make(chan *request),
		memory: semaphore.NewWeighted(s.cfg.MaxMemory),
	}, ctx
}

// run serves the client until it leaves, breaks the protocol, or ctx ends.
func (c *conn) run(ctx context.Context) {
	defer c.cancel()
	defer c.nc.Close()
	defer context.AfterFunc(ctx, func() { c.nc.Close() })()

	c.setDeadline(time.Now().Add(c.srv.cfg.HandshakeTimeout))
	err := c.negotiate(ctx)
	if c.target == nil {
		c.logEnd("nbd negotiation ended", err)
		return
	}
	defer c.target.export.release()
	if end := c.target.export.End; end != nil {
		go func() { // ends with the connection
			select {
			case <-end:
				c.hangUp()
			case <-ctx.Done():
			}
		}()
	}
	if err == nil {
		c.setDeadline(time.Time{})
		err = c.transmit(ctx)
	}
	c.logEnd("nbd connection ended", err)
}

// drain makes the connection stop reading and finish what it has read.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // fails on a closed connection only
}

// hangUp ends the connection as if the peer had gone, and with it the context
// of the device calls in progress.
func (c *conn) hangUp() { c.cancel() }

// setDeadline limits reading and writing; a drained connection reads no more.
func (c *conn) setDeadline(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Both fail on a closed connection only, which the next read will tell.
	_ = c.nc.SetWriteDeadline(t)
	if !c.draining {
		_ = c.nc.SetReadDeadline(t)
	}
}

func (c *conn) isDraining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining
}

// logEnd says why the connection ended: quietly when it is an ordinary end, as
// a warning when the peer broke the protocol or went in the middle of a message.
func (c *conn) logEnd(msg string, err error) {
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled):
		c.log.Debug(msg)
	case errors.Is(err, os.ErrDeadlineExceeded) && c.isDraining():
		c.log.Debug(msg, "reason", "shutdown")
	default:
		c.log.Warn(msg, "err", err)
	}
}
