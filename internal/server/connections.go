package server

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// maxConnections bounds the connections to the API at a time. One costs the server
// up to 100 KiB.
const maxConnections = 1024

// crowd is a listener with a bound on its connections. For one too many, the one
// that has been idle for longest is closed, as the server may do at any time; while
// none is idle, the new one waits. No client that is being served loses its place.
type crowd struct {
	net.Listener
	most int

	mu     sync.Mutex
	change *sync.Cond // of what follows, which mu guards
	open   int
	idle   map[net.Conn]uint64 // to when it became so
	moment uint64              // counts up
	closed bool
}

func newCrowd(l net.Listener, most int) *crowd {
	c := &crowd{Listener: l, most: most, idle: map[net.Conn]uint64{}}
	c.change = sync.NewCond(&c.mu)
	return c
}

// Accept implements net.Listener.
func (c *crowd) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.open >= c.most && !c.closed {
		if !c.dropIdleLocked() {
			c.change.Wait()
		}
	}
	if c.closed {
		_ = conn.Close() // nobody serves it any more
		return nil, net.ErrClosed
	}
	c.open++
	return &member{Conn: conn, leave: sync.OnceFunc(c.left)}, nil
}

// Close implements net.Listener.
func (c *crowd) Close() error {
	c.mu.Lock()
	c.closed = true
	c.change.Broadcast()
	c.mu.Unlock()
	return c.Listener.Close()
}

// dropIdleLocked closes the connection that has been idle for longest, if any.
func (c *crowd) dropIdleLocked() bool {
	var longest net.Conn
	for conn, since := range c.idle {
		if longest == nil || since < c.idle[longest] {
			longest = conn
		}
	}
	if longest == nil {
		return false
	}
	delete(c.idle, longest)
	c.mu.Unlock()
	_ = longest.Close() // it is gone either way
	c.mu.Lock()
	return true
}

func (c *crowd) left() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	c.change.Broadcast()
}

// state is told by the HTTP server what becomes of its connections.
func (c *crowd) state(conn net.Conn, now http.ConnState) {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn() // to close which waits for nobody
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.idle, conn)
	if now == http.StateIdle {
		c.moment++
		c.idle[conn] = c.moment
		c.change.Broadcast()
	}
}

// member is one connection of a crowd.
type member struct {
	net.Conn
	leave func()
}

func (m *member) Close() error {
	err := m.Conn.Close()
	m.leave()
	return err
}
