package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Config says what a Server serves and how much it may use. Open is required.
type Config struct {
	// Open finds the export that a client asks for by name ("" is the default
	// export). It is called for each connection, and again for each question
	// about an export; ctx ends with the connection, and PeerCertificates of it
	// tells who asks.
	Open func(ctx context.Context, name string) (*Export, error)

	// List names the exports a client may be told of. nil: clients that ask
	// are refused.
	List func(ctx context.Context) ([]string, error)

	// TLS, if not nil, is what every client must negotiate (STARTTLS) before
	// anything else; one that does not is told so and gets nothing.
	TLS *tls.Config

	Log *slog.Logger // nil: slog.Default()

	MaxConns    int // connections at once; 0: 64. Further ones are hung up on
	MaxInFlight int // requests worked on at once per connection; 0: 64

	// MaxMemory bounds the payload bytes in memory per connection; requests
	// beyond it wait. 0: 64 MiB; less than 32 MiB counts as 32 MiB, the
	// largest payload.
	MaxMemory int64

	HandshakeTimeout time.Duration // 0: 30 s
}

// ErrClosed is what Serve returns on a Server that was shut down before.
var ErrClosed = errors.New("nbd server is closed")

// Server serves exports on any number of listeners. Its methods are safe for
// concurrent use.
type Server struct {
	cfg Config
	log *slog.Logger

	mu        sync.Mutex
	closed    bool
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	idle      *sync.Cond // signalled when conns shrinks
}

// New returns a Server; Serve makes it answer.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = 64
	}
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = 64
	}
	if cfg.MaxMemory == 0 {
		cfg.MaxMemory = 64 << 20
	}
	cfg.MaxMemory = max(cfg.MaxMemory, maxPayload)
	if cfg.HandshakeTimeout <= 0 {
		cfg.HandshakeTimeout = 30 * time.Second
	}
	s := &Server{
		cfg:       cfg,
		log:       cfg.Log,
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*conn]struct{}),
	}
	s.idle = sync.NewCond(&s.mu)
	return s
}

// Serve accepts connections on ln until ctx ends, ln fails, or Shutdown or Close
// is called. It closes ln, and it returns only when every connection that it
// accepted has ended: at once (as after Close) when ctx ends, drained after
// Shutdown. The error is nil after Shutdown, Close and the end of ctx.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errors.Join(ErrClosed, ln.Close())
	}
	s.listeners[ln] = struct{}{}
	s.mu.Unlock()

	var conns sync.WaitGroup
	defer conns.Wait()
	// It may be closed more than once, which the later calls complain of.
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer func() {
		stop()
		_ = ln.Close()
		s.mu.Lock()
		delete(s.listeners, ln)
		s.mu.Unlock()
	}()

	for {
		nc, err := accept(ctx, ln)
		if err != nil {
			if s.isClosed() || ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept nbd connection on %s: %w", ln.Addr(), err)
		}
		c, connCtx := newConn(ctx, s, nc)
		if err := s.track(c); err != nil {
			s.log.Warn("nbd connection refused", "peer", nc.RemoteAddr().String(), "err", err)
			c.cancel()
			nc.Close()
			continue
		}
		conns.Go(func() {
			defer s.untrack(c)
			c.run(connCtx)
		})
	}
}

// accept rides out the errors that pass by themselves, such as a full file
// table.
func accept(ctx context.Context, ln net.Listener) (net.Conn, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		nc, err := ln.Accept()
		if err == nil || !isTransient(err) {
			return nc, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// Shutdown stops accepting, lets every connection answer the requests that it
// has read, hangs up and returns nil. When ctx ends first, the rest is closed
// as by Close and the error is that of ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopListening((*conn).drain)
	stop := context.AfterFunc(ctx, func() { s.stopListening((*conn).hangUp) })
	defer stop()
	s.wait()
	if !stop() {
		return fmt.Errorf("drain nbd connections: %w", context.Cause(ctx))
	}
	return nil
}

// Close hangs up on everyone at once and returns when no Device is in use any
// more. Requests without an answer may have been done or not.
func (s *Server) Close() error {
	s.stopListening((*conn).hangUp)
	s.wait()
	return nil
}

func (s *Server) stopListening(end func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for ln := range s.listeners {
		_ = ln.Close()
	}
	for c := range s.conns {
		end(c)
	}
}

func (s *Server) wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.conns) > 0 {
		s.idle.Wait()
	}
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Server) track(c *conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if len(s.conns) >= s.cfg.MaxConns {
		return fmt.Errorf("all %d connections are in use", s.cfg.MaxConns)
	}
	s.conns[c] = struct{}{}
	return nil
}

func (s *Server) untrack(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.idle.Broadcast()
}
