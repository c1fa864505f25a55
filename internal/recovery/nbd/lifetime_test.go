package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lifeboat/internal/recovery/nbd"
)

func mustDial(t testing.TB, socket string) net.Conn {
	t.Helper()
	nc, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(3 * time.Minute))
	return nc
}

// gateDevice holds reads until the gate opens, and says when one waits.
type gateDevice struct {
	*fileDevice
	waiting chan struct{}
	gate    chan struct{}
}

func newGateDevice(t *testing.T) *gateDevice {
	return &gateDevice{newFileDevice(t, 1<<20), make(chan struct{}, 1000), make(chan struct{})}
}

func (d *gateDevice) ReadAt(p []byte, off int64) (int, error) {
	d.waiting <- struct{}{}
	<-d.gate
	return d.fileDevice.ReadAt(p, off)
}

func TestShutdownAnswersWhatWasRead(t *testing.T) {
	d := newGateDevice(t)
	srv, socket := startServer(t, nbd.Config{Open: exports(map[string]*nbd.Export{"": {Device: d}})})
	busy, idle, shy := dial(t, socket), dial(t, socket), dial(t, socket)
	busy.enter("", false)
	idle.enter("", false)
	busy.request(0, 0, 7, 0, 4096, nil)
	<-d.waiting

	done := make(chan error)
	go func() { done <- srv.Shutdown(context.Background()) }()
	idle.gone()
	shy.gone() // in the middle of negotiation
	select {
	case err := <-done:
		t.Fatalf("Shutdown returned %v while a read was in progress", err)
	default:
	}
	close(d.gate)
	if cookie, code := busy.simpleReply(); cookie != 7 || code != 0 {
		t.Errorf("reply cookie %d, code %d", cookie, code)
	}
	busy.take(4096)
	busy.gone()
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if _, err := net.Dial("unix", socket); err == nil {
		t.Error("the server still listens")
	}
	if err := srv.Serve(context.Background(), listen(t)); !errors.Is(err, nbd.ErrClosed) {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func TestShutdownGivesUpWithItsContext(t *testing.T) {
	d := newGateDevice(t)
	srv, socket := startServer(t, nbd.Config{Open: exports(map[string]*nbd.Export{"": {Device: d}})})
	c := dial(t, socket)
	c.enter("", false)
	c.request(0, 0, 7, 0, 4096, nil)
	<-d.waiting
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	done := make(chan error)
	go func() { done <- srv.Shutdown(ctx) }()
	c.gone() // hung up on although the device still works
	close(d.gate)
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	d := newFileDevice(t, 1<<20)
	var open atomic.Int64
	srv := nbd.New(nbd.Config{Open: func(context.Context, string) (*nbd.Export, error) {
		open.Add(1)
		return &nbd.Export{Device: d, Release: func() { open.Add(-1) }}, nil
	}})
	ln := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- srv.Serve(ctx, ln) }()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(3 * time.Minute))
	c := &client{t, nc}
	c.take(18)
	c.put(uint32(3))
	c.enter("", true)
	cancel()
	c.gone()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if n := open.Load(); n != 0 {
		t.Errorf("%d exports were not released", n)
	}
}

func TestRequestsRunSideBySide(t *testing.T) {
	d := newGateDevice(t)
	_, socket := startServer(t, nbd.Config{Open: exports(map[string]*nbd.Export{"": {Device: d}}), MaxInFlight: 16})
	c := dial(t, socket)
	c.enter("", false)
	for i := range 40 {
		c.request(0, 0, uint64(i), 0, 512, nil)
	}
	for range 16 {
		<-d.waiting // all of these are inside the device at once
	}
	close(d.gate)
	seen := map[uint64]bool{}
	for range 40 {
		cookie, code := c.simpleReply()
		c.take(512)
		if code != 0 || seen[cookie] {
			t.Errorf("cookie %d, code %d", cookie, code)
		}
		seen[cookie] = true
	}
}

// countDevice knows how many payload bytes are inside it at most.
type countDevice struct {
	*fileDevice
	now, most atomic.Int64
}

func (d *countDevice) WriteAt(p []byte, off int64) (int, error) {
	for n := d.now.Add(int64(len(p))); ; {
		m := d.most.Load()
		if n <= m || d.most.CompareAndSwap(m, n) {
			break
		}
	}
	defer d.now.Add(-int64(len(p)))
	return d.fileDevice.WriteAt(p, off)
}

func TestMemoryIsBounded(t *testing.T) {
	d := &countDevice{fileDevice: newFileDevice(t, 64<<20)}
	_, socket := startServer(t, nbd.Config{Open: exports(map[string]*nbd.Export{"": {Device: d}}), MaxMemory: 1})
	c := dial(t, socket)
	c.enter("", false)
	const n, each = 24, 8 << 20
	var writer sync.WaitGroup
	writer.Go(func() {
		payload := bytes.Repeat([]byte{7}, each)
		for i := range n {
			c.request(0, 1, uint64(i), uint64(i%8)*each, each, payload)
		}
	})
	for range n {
		if _, code := c.simpleReply(); code != 0 {
			t.Errorf("write: code %d", code)
		}
	}
	writer.Wait()
	if m := d.most.Load(); m > 32<<20 {
		t.Errorf("%d payload bytes at once", m)
	}
}

func TestTooManyConnections(t *testing.T) {
	d := newFileDevice(t, 1<<20)
	_, socket := startServer(t, nbd.Config{Open: exports(forms(d)), MaxConns: 1})
	first := dial(t, socket)
	first.enter("full", true)
	second := &client{t, mustDial(t, socket)}
	second.gone()
	if code := first.code(true, 0, 0, 0, 4096, nil); code != 0 {
		t.Errorf("read on the first connection: %d", code)
	}
}

// TestDeafPeerHurtsNobodyElse fills a connection with replies nobody reads.
func TestDeafPeerHurtsNobodyElse(t *testing.T) {
	d := newFileDevice(t, 32<<20)
	_, socket := startServer(t, nbd.Config{Open: exports(forms(d))})
	deaf := dial(t, socket)
	deaf.enter("plain", false)
	for i := range 64 {
		deaf.request(0, 0, uint64(i), 0, 1<<20, nil)
	}
	c := dial(t, socket)
	c.enter("plain", false)
	for range 100 {
		if code := c.code(false, 0, 0, 0, 4096, nil); code != 0 {
			t.Errorf("read: %d", code)
		}
	}
}

func TestListenUnix(t *testing.T) {
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	ln, err := nbd.ListenUnix(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket mode %v, %v", info.Mode(), err)
	}
	if _, err := nbd.ListenUnix(context.Background(), path); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a living socket: %v", err)
	}
	ln.Close() // as after kill -9
	ln, err = nbd.ListenUnix(context.Background(), path)
	if err != nil {
		t.Fatalf("a dead socket: %v", err)
	}
	ln.Close()
	if err := os.Remove(path); err != nil {
		t.Fatalf("a closed listener's socket: %v", err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := nbd.ListenUnix(context.Background(), path); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a file: %v", err)
	}
	deep := filepath.Join(dir, strings.Repeat("d", 200))
	if err := os.Mkdir(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err = nbd.ListenUnix(context.Background(), filepath.Join(deep, "s"))
	if err != nil {
		t.Fatalf("a path longer than an address: %v", err)
	}
	ln.Close()
	if info, err := os.Stat(filepath.Join(deep, "s")); err != nil || info.Mode().Type() != os.ModeSocket {
		t.Errorf("at the end of a long path: %v, %v", info, err)
	}
}
