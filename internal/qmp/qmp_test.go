package qmp_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"lifeboat/internal/qmp"
)

const greeting = `{"QMP": {"version": {"qemu": {"major": 7, "minor": 2}}, "capabilities": ["oob"]}}` + "\n"

// command is a line that the client sent.
type command struct {
	Execute   string          `json:"execute"`
	Arguments json.RawMessage `json:"arguments"`
	ID        uint64          `json:"id"`
}

// dial connects a client to a QEMU that behaves as script says, capabilities
// being granted already.
func dial(t *testing.T, script func(in *bufio.Scanner, out io.Writer)) *qmp.Conn {
	t.Helper()
	near, far := net.Pipe()
	var played sync.WaitGroup
	played.Go(func() {
		defer far.Close()
		in := bufio.NewScanner(far)
		io.WriteString(far, greeting)
		grant := next(in)
		fmt.Fprintf(far, `{"return": {}, "id": %d}`+"\n", grant.ID)
		script(in, far)
	})
	c, err := qmp.New(t.Context(), near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); played.Wait() })
	return c
}

func next(in *bufio.Scanner) (c command) {
	if in.Scan() {
		json.Unmarshal(in.Bytes(), &c)
	}
	return c
}

func TestAnswersFindTheirCommands(t *testing.T) {
	const n = 20
	c := dial(t, func(in *bufio.Scanner, out io.Writer) {
		var all []command
		for range n {
			all = append(all, next(in))
		}
		for i := n - 1; i >= 0; i-- { // the wrong way round
			fmt.Fprintf(out, `{"return": {"echo": %s}, "id": %d}`+"\n", all[i].Arguments, all[i].ID)
		}
	})
	var calls sync.WaitGroup
	for i := range n {
		calls.Go(func() {
			var answer struct{ Echo map[string]int }
			if err := c.Run(t.Context(), "echo", map[string]int{"n": i}, &answer); err != nil || answer.Echo["n"] != i {
				t.Errorf("call %d: %v, %v", i, answer, err)
			}
		})
	}
	calls.Wait()
}

func TestRefusal(t *testing.T) {
	c := dial(t, func(in *bufio.Scanner, out io.Writer) {
		cmd := next(in)
		fmt.Fprintf(out, `{"error": {"class": "GenericError", "desc": "not now"}, "id": %d}`+"\n", cmd.ID)
		cmd = next(in)
		fmt.Fprintf(out, `{"return": {}, "id": %d}`+"\n", cmd.ID)
	})
	err := c.Run(t.Context(), "cont", nil, nil)
	var refused *qmp.Error
	if !errors.As(err, &refused) || refused.Command != "cont" || refused.Desc != "not now" {
		t.Fatalf("error %v", err)
	}
	if err := c.Run(t.Context(), "cont", nil, nil); err != nil {
		t.Errorf("the connection did not outlive a refusal: %v", err)
	}
}

func TestEvents(t *testing.T) {
	c := dial(t, func(in *bufio.Scanner, out io.Writer) {
		io.WriteString(out, `{"timestamp": {"seconds": 1700000000, "microseconds": 250000}, "event": "SHUTDOWN", "data": {"guest": true}}`+"\n")
	})
	e := <-c.Events()
	if e.Name != "SHUTDOWN" || !e.At.Equal(time.Unix(1700000000, 250_000_000)) || !bytes.Contains(e.Data, []byte("true")) {
		t.Errorf("event %+v", e)
	}
	if _, more := <-c.Events(); more {
		t.Error("an event after the end")
	}
	<-c.Done()
	if err := c.Err(); !errors.Is(err, qmp.ErrClosed) || !errors.Is(err, io.EOF) {
		t.Errorf("error %v", err)
	}
	if err := c.Run(t.Context(), "cont", nil, nil); !errors.Is(err, qmp.ErrClosed) {
		t.Errorf("a command after the end: %v", err)
	}
}

// TestUnreadEventsDoNotHoldClose: nobody receives, and Close still ends all.
func TestUnreadEventsDoNotHoldClose(t *testing.T) {
	c := dial(t, func(in *bufio.Scanner, out io.Writer) {
		for range 1000 {
			if _, err := io.WriteString(out, `{"event": "NOISE", "timestamp": {"seconds": 1, "microseconds": 0}}`+"\n"); err != nil {
				return
			}
		}
	})
	c.Close()
	<-c.Done()
}

func TestEndOfPeer(t *testing.T) {
	c := dial(t, func(in *bufio.Scanner, out io.Writer) { next(in) })
	if err := c.Run(t.Context(), "query-status", nil, nil); !errors.Is(err, qmp.ErrClosed) {
		t.Errorf("error %v", err)
	}
}

func TestContextEndsAWait(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := dial(t, func(in *bufio.Scanner, out io.Writer) {
		next(in)
		cancel()
		late := next(in) // the next one is answered, behind an answer nobody wants
		fmt.Fprintf(out, `{"return": {}, "id": %d}`+"\n", late.ID-1)
		fmt.Fprintf(out, `{"return": {}, "id": %d}`+"\n", late.ID)
	})
	if err := c.Run(ctx, "stop", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if err := c.Run(t.Context(), "cont", nil, nil); err != nil {
		t.Error(err)
	}
}

func TestBadPeers(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON":     "hello\n",
		"endless line": strings.Repeat("x", qmp.MaxLine+1),
		"parse error":  `{"error": {"class": "GenericError", "desc": "JSON parse error"}}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, func(in *bufio.Scanner, out io.Writer) { io.WriteString(out, text); next(in) })
			<-c.Done()
			if err := c.Err(); !errors.Is(err, qmp.ErrClosed) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestNoGreeting(t *testing.T) {
	for name, text := range map[string]string{"silence": "", "another protocol": "220 ready\n", "no greeting": "{}\n"} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			defer far.Close()
			go io.WriteString(far, text)
			ctx, cancel := context.WithCancel(t.Context())
			if text == "" {
				cancel()
			}
			defer cancel()
			if _, err := qmp.New(ctx, near); err == nil || text == "" && !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			if _, err := near.Write(nil); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("the socket was left open: %v", err)
			}
		})
	}
}

// FuzzPeer: whatever a peer sends, the connection ends in order.
func FuzzPeer(f *testing.F) {
	f.Add([]byte(`{"return": {}, "id": 1}` + "\n"))
	f.Add([]byte(`{"event": "STOP", "timestamp": null, "data": 7}` + "\n" + `{"id": 99999999999, "return": []}` + "\n"))
	f.Add([]byte(`{"error": {}, "id": 2}` + "\n{"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		near, far := net.Pipe()
		go io.Copy(io.Discard, far)
		go func() {
			defer far.Close()
			io.WriteString(far, greeting+`{"return": {}, "id": 1}`+"\n")
			far.Write(sent)
		}()
		c, err := qmp.New(t.Context(), near)
		if err != nil {
			return
		}
		defer c.Close()
		go func() {
			for range c.Events() {
			}
		}()
		c.Run(t.Context(), "query-status", nil, new(any))
		<-c.Done()
		if c.Err() == nil {
			t.Error("ended without an error")
		}
	})
}
