package replication

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// pair is two ends of an in-memory network connection.
func pair(t testing.TB) (*Conn, *Conn) {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	return NewConn(a), NewConn(b)
}

func TestSilentPeerIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := pair(t)
		start := time.Now()
		_, err := a.Receive()
		if !errors.Is(err, ErrSilent) {
			t.Fatalf("receive from a silent peer: %v", err)
		}
		if took := time.Since(start); took > 30*time.Second || took < HeartbeatEvery*2 {
			t.Errorf("noticed after %s", took)
		}
		a.net.Close()
	})
}

func TestBlockedPeerIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := pair(t)
		start := time.Now()
		if err := a.Send(&Heartbeat{}); !errors.Is(err, ErrSilent) {
			t.Fatalf("send to a peer that does not read: %v", err)
		}
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("noticed after %s", took)
		}
		if err := a.Queue(&Heartbeat{}); !errors.Is(err, ErrSilent) {
			t.Errorf("a connection that failed takes more: %v", err)
		}
		a.net.Close()
	})
}

// A line that carries 16 KiB in 20 seconds carries messages all the same.
func TestSlowLineIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, far := net.Pipe()
		near, b := net.Pipe()
		carried := make(chan struct{})
		go func() {
			defer close(carried)
			for piece := make([]byte, 16<<10); ; time.Sleep(20 * time.Second) {
				n, err := far.Read(piece)
				if err == nil {
					_, err = near.Write(piece[:n])
				}
				if err != nil {
					return
				}
			}
		}()
		sender, receiver := NewConn(a), NewConn(b)
		sent := make(chan error, 1)
		go func() {
			sent <- sender.Send(&Data{Volume: 1, RawLen: 65536, Extents: []Extent{{Count: 16}}, Payload: make([]byte, MaxData)})
		}()
		begun := time.Now()
		m, err := receiver.Receive()
		if data, ok := m.(*Data); !ok || len(data.Payload) != MaxData {
			t.Errorf("received %T, %v after %s", m, err, time.Since(begun))
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took < 2*IdleTimeout {
			t.Errorf("it took %s: this test proves nothing", took)
		}
		a.Close()
		near.Close()
		far.Close()
		b.Close()
		<-carried
	})
}

func TestVersionsAreSettled(t *testing.T) {
	for _, test := range []struct {
		name     string
		min, max uint16
		want     uint16
	}{{"same", 1, 1, 1}, {"older agent", 1, MaxVersion, MaxVersion}, {"newer agent", 1, MaxVersion + 1, MaxVersion}, {"much newer agent", MaxVersion + 1, MaxVersion + 2, 0}, {"prehistoric agent", 0, 0, 0}} {
		t.Run(test.name, func(t *testing.T) {
			agent, server := pair(t)
			type got struct {
				version uint16
				err     error
			}
			result := make(chan got, 1)
			go func() {
				_, version, err := server.AwaitHello()
				result <- got{version, err}
				if err == nil {
					server.Send(&Bye{})
				}
			}()
			if err := agent.Send(&Hello{MinVersion: test.min, MaxVersion: test.max}); err != nil {
				t.Fatal(err)
			}
			_, err := agent.Receive()
			if test.want > 0 {
				if r := <-result; r.version != test.want || r.err != nil || err != io.EOF { //nolint:errorlint // a Bye, not a line that is cut
					t.Errorf("settled on %d, %v; agent told %v", r.version, r.err, err)
				}
				return
			}
			var told *Error
			if !errors.As(err, &told) || told.Code != CodeVersion || told.NextStep == "" {
				t.Errorf("agent told %v", err)
			}
			if r := <-result; r.err == nil {
				t.Error("server settled on a version that the agent does not speak")
			}
		})
	}
}

func TestWindowHoldsBackUntilCreditReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWindow(100)
		ctx, cancel := context.WithCancel(t.Context())
		for range 2 { // the second overdraws
			if !w.TryTake(60) {
				t.Fatal("window closed too early")
			}
		}
		if w.TryTake(1) {
			t.Fatal("window of 100 let 121 through")
		}
		taken := make(chan error, 1)
		go func() { taken <- w.Take(ctx, 10) }()
		synctest.Wait()
		w.Give(20) // balances the overdraft only
		synctest.Wait()
		select {
		case <-taken:
			t.Fatal("taken without credit")
		default:
		}
		w.Give(1)
		if err := <-taken; err != nil {
			t.Fatal(err)
		}
		go func() { taken <- w.Take(ctx, 10) }()
		cancel()
		if err := <-taken; err == nil {
			t.Fatal("taken after the end")
		}
	})
}

func TestThrottleKeepsTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var th Throttle
		start := time.Now()
		send := func(bytes int) {
			for range bytes / 65536 {
				if _, err := th.Wait(t.Context(), 65536); err != nil {
					t.Fatal(err)
				}
			}
		}
		send(64 << 20)
		if time.Since(start) != 0 {
			t.Error("held back without a limit")
		}
		th.Set(80) // 10 MB/s
		send(20 << 20)
		if took := time.Since(start); took < 1900*time.Millisecond || took > 2300*time.Millisecond {
			t.Errorf("20 MiB at 80 Mbps took %s", took)
		}
		// A waiting sender follows a new rate at once.
		th.Set(1)
		done := make(chan struct{})
		go func() { send(1 << 20); close(done) }()
		time.Sleep(time.Second)
		start = time.Now()
		th.Set(0)
		<-done
		if took := time.Since(start); took > 0 {
			t.Errorf("unthrottled sender took %s", took)
		}
	})
}
