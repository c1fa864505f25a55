package replication

import (
	"net"
	"sync/atomic"
	"time"
)

// patient gives a connection up once nothing at all has got through for idle, however
// long a message takes: on a poor line each may take minutes.
type patient struct {
	net.Conn
	idle   time.Duration
	ending atomic.Bool // deadlines are End's to set
}

// writeStep is what has to get through within idle: one record of TLS.
const writeStep = 16 << 10

func (p *patient) Read(b []byte) (int, error) {
	if !p.ending.Load() {
		if err := p.SetReadDeadline(time.Now().Add(p.idle)); err != nil {
			return 0, err
		}
		if p.ending.Load() { // it was set meanwhile
			_ = p.SetReadDeadline(time.Now().Add(time.Second)) // fails on a closed connection only
		}
	}
	return p.Conn.Read(b)
}

func (p *patient) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		if !p.ending.Load() {
			if err := p.SetWriteDeadline(time.Now().Add(p.idle)); err != nil {
				return n, err
			}
			if p.ending.Load() {
				_ = p.SetWriteDeadline(time.Now().Add(time.Second)) // likewise
			}
		}
		var wrote int
		wrote, err = p.Conn.Write(b[:min(len(b), writeStep)])
		n, b = n+wrote, b[wrote:]
	}
	return n, err
}
