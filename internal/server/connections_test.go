package server

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// ask sends a request and reads the reply to its end.
func ask(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	if _, err := io.Copy(io.Discard, reply.Body); err != nil || reply.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", reply.Status, err)
	}
}

// One connection too many takes the place of the one that was idle for longest.
func TestACrowdMakesRoom(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := newCrowd(listener, 2)
	server := &http.Server{ConnState: c.state, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok") // the test reads it
	})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(c) }()
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	idle := func(moment uint64) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for c.moment < moment {
			c.change.Wait()
		}
	}
	first, second := dial(), dial()
	ask(t, first)
	idle(1)
	ask(t, second)
	idle(2)
	ask(t, first) // now the second is idle for longest
	idle(3)
	third := dial()
	ask(t, third)
	if n, err := second.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("the second connection is still open: %d, %v", n, err)
	}
	ask(t, third)
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

// pipes is a listener that gives out what it is sent.
type pipes struct {
	conns chan net.Conn
	ended chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// A client that does not read, or reads a byte now and then, holds a reply for no
// longer than replyTime; a stream goes on for as long as it gets on.
func TestASlowClientIsLeft(t *testing.T) {
	for name, c := range map[string]struct {
		path  string
		pause time.Duration // between pieces that the client reads; 0: it reads nothing
		left  bool
	}{
		"a reply that nobody reads":  {"/DescribeJobs", 0, true},
		"a reply read bit by bit":    {"/DescribeJobs", replyTime / 10, true},
		"a reply that is read":       {"/DescribeJobs", time.Millisecond, false},
		"a stream that nobody reads": {"/lifeboat/v1/source-servers/x", 0, true},
		"a stream that gets on":      {"/lifeboat/v1/source-servers/x", replyTime / 10, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				wrote := make(chan error, 1)
				handler := bounded(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					var err error
					for range 100 {
						if _, err = io.WriteString(w, strings.Repeat("x", 8<<10)); err != nil {
							break
						}
					}
					wrote <- err
				}))
				l := pipes{make(chan net.Conn), make(chan struct{})}
				server := &http.Server{Handler: handler}
				done := make(chan error, 1)
				go func() { done <- server.Serve(l) }()
				client, far := net.Pipe()
				l.conns <- far
				if _, err := io.WriteString(client, "GET "+c.path+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				var reading sync.WaitGroup
				if c.pause > 0 {
					reading.Go(func() {
						piece := make([]byte, 16<<10)
						for {
							if _, err := client.Read(piece); err != nil {
								return
							}
							time.Sleep(c.pause) // of the bubble's clock
						}
					})
				}
				began := time.Now()
				switch err := <-wrote; {
				case c.left && !errors.Is(err, os.ErrDeadlineExceeded):
					t.Errorf("it was written after %s: %v", time.Since(began), err)
				case c.left && time.Since(began) > 2*replyTime:
					t.Errorf("it was left after %s", time.Since(began))
				case !c.left && err != nil:
					t.Errorf("it was left after %s: %v", time.Since(began), err)
				}
				client.Close()
				reading.Wait()
				close(l.ended)
				<-done
				server.Close()
			})
		})
	}
}
