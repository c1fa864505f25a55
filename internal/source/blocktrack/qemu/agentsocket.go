package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"
)

// agentSocket is the host's end of the guest agent's port.
type agentSocket struct {
	nc    net.Conn
	lines *bufio.Reader
}

// maxGuestLine bounds an answer of the guest's, which is not trusted.
const maxGuestLine = 64 << 10

func dialAgent(socket string, within time.Duration) (*agentSocket, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	nc, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	g := &agentSocket{nc, bufio.NewReaderSize(nc, maxGuestLine)}
	if err := g.sync(within); err != nil {
		_ = nc.Close() // nothing was asked for
		return nil, fmt.Errorf("no answer from the guest's agent: %w", err)
	}
	return g, nil
}

func (g *agentSocket) close() { _ = g.nc.Close() }

type guestReply struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
}

func (g *agentSocket) send(command string, arguments any) error {
	raw, err := json.Marshal(map[string]any{"execute": command, "arguments": arguments})
	if err == nil {
		_, err = g.nc.Write(append(raw, '\n'))
	}
	return err
}

func (g *agentSocket) receive() (r guestReply, err error) {
	line, err := g.lines.ReadSlice('\n')
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(line, &r)
}

// sync passes over what earlier commands may still be answered with.
func (g *agentSocket) sync(within time.Duration) error {
	if err := g.nc.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	id := rand.Uint32() //nolint:gosec // it tells answers apart
	if err := g.send("guest-sync", map[string]any{"id": id}); err != nil {
		return err
	}
	for {
		r, err := g.receive()
		var malformed *json.SyntaxError
		if err != nil && !errors.As(err, &malformed) {
			return err
		}
		if string(r.Return) == fmt.Sprint(id) {
			return nil
		}
	}
}

// run has the guest's agent do something. After an error the next command needs sync.
func (g *agentSocket) run(command string, within time.Duration, result any) error {
	if err := g.nc.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	err := g.send(command, map[string]any{})
	var r guestReply
	if err == nil {
		r, err = g.receive()
	}
	if err == nil && r.Error != nil {
		err = errors.New(r.Error.Desc)
	}
	if err == nil && result != nil {
		err = json.Unmarshal(r.Return, result)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	return nil
}
