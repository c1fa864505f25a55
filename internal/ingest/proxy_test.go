package ingest_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// proxy is a network between agent and server that can be cut and mended.
type proxy struct {
	l net.Listener

	mu    sync.Mutex
	to    string
	down  bool
	conns map[net.Conn]bool
	up    atomic.Int64 // bytes carried to the server
	delay atomic.Int64 // of each way, in nanoseconds
}

// late copies what is read to w, each byte a while after it came.
func (p *proxy) late(w io.Writer, r io.Reader) {
	type piece struct {
		b  []byte
		at time.Time
	}
	line := make(chan piece, 1<<14)
	go func() {
		defer close(line)
		for {
			b := make([]byte, 64<<10)
			n, err := r.Read(b)
			if n > 0 {
				line <- piece{b[:n], time.Now().Add(time.Duration(p.delay.Load()))}
			}
			if err != nil {
				return
			}
		}
	}()
	broken := false
	for it := range line {
		time.Sleep(time.Until(it.at)) // the line's length: nothing waits for it
		if !broken {
			_, err := w.Write(it.b)
			broken = err != nil
		}
	}
}

// awaitStill waits until the server gets nothing but heartbeats, and returns how
// many bytes it got.
func (p *proxy) awaitStill(t testing.TB) int64 {
	t.Helper()
	deadline := time.Now().Add(patience)
	for last, still := int64(-1), 0; ; {
		n := p.up.Load()
		if n-last > 512 {
			last, still = n, 0
		} else if still++; still == 10 {
			return n
		}
		if time.Now().After(deadline) {
			t.Fatalf("still sending after %d bytes", n)
		}
		time.Sleep(50 * time.Millisecond) // watches that nothing comes: there is no signal for that
	}
}

func newProxy(t testing.TB) *proxy {
	p := &proxy{l: listen(t), conns: map[net.Conn]bool{}}
	go p.serve()
	t.Cleanup(func() { p.l.Close(); p.cut() })
	return p
}

func (p *proxy) address() string { return p.l.Addr().String() }

func (p *proxy) target(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = addr
}

// cut breaks all connections and lets no new ones through until mend.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for c := range p.conns {
		c.Close()
	}
	clear(p.conns)
}

func (p *proxy) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

func (p *proxy) serve() {
	for {
		in, err := p.l.Accept()
		if err != nil {
			return
		}
		go p.carry(in)
	}
}

func (p *proxy) carry(in net.Conn) {
	defer in.Close()
	p.mu.Lock()
	to, down := p.to, p.down
	p.mu.Unlock()
	if down {
		return
	}
	out, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer out.Close()
	p.mu.Lock()
	if p.down {
		p.mu.Unlock()
		return
	}
	p.conns[in], p.conns[out] = true, true
	p.mu.Unlock()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
		go func() {
			var to io.Writer = way[0]
			if way[0] == out {
				to = io.MultiWriter(out, counter{&p.up})
			}
			p.late(to, way[1])
			way[0].Close()
			done <- struct{}{}
		}()
	}
	<-done
	<-done
	p.mu.Lock()
	delete(p.conns, in)
	delete(p.conns, out)
	p.mu.Unlock()
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) { c.n.Add(int64(len(p))); return len(p), nil }
