package replication

import (
	"bufio"
	"net"
)

// coalesced reads the socket in large pieces: crypto/tls asks for one record of
// 16 KiB at a time, which costs a system call each.
type coalesced struct {
	net.Conn
	r *bufio.Reader
}

func coalesce(c net.Conn) net.Conn {
	return &coalesced{Conn: c, r: bufio.NewReaderSize(c, 256<<10)}
}

func (c *coalesced) Read(p []byte) (int, error) { return c.r.Read(p) }
