// Package libvirt speaks QMP to a machine that libvirt runs, through libvirt's daemon,
// which keeps the machine's only QMP socket to itself. It also reaches QEMU's agent in
// the guest.
//
// A Conn is of one run of the machine. It ends when the daemon does, when the machine
// is not running any more, and when a call is given up: then it is not known what
// became of it. libvirt marks a machine that was spoken to like this as tainted
// (custom-monitor), in its log and nowhere else.
package libvirt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"sync"
	"time"

	"github.com/digitalocean/go-libvirt"

	"lifeboat/internal/qmp"
)

// answers bounds what takes the daemon no time of its own.
const answers = 10 * time.Second

// Conn is a connection to a machine. Calls may be made concurrently.
type Conn struct {
	nc     net.Conn
	daemon *libvirt.Libvirt
	domain libvirt.Domain

	mu  sync.Mutex
	err error // why it ended
}

// NotRunningError: libvirt has no running machine of that name.
type NotRunningError struct {
	Domain   string
	Why      string
	NextStep string
}

func (e *NotRunningError) Error() string {
	return fmt.Sprintf("machine %s %s; %s", e.Domain, e.Why, e.NextStep)
}

type dialer struct{ nc net.Conn }

func (d dialer) Dial() (net.Conn, error) { return d.nc, nil }

// Dial connects to a machine, by its name or UUID, at a daemon on this machine. A
// *NotRunningError tells that the daemon has no such machine, or that it is off.
func Dial(ctx context.Context, uri, domain string) (*Conn, error) {
	a, err := parse(uri)
	if err != nil {
		return nil, err
	}
	var nc net.Conn
	for _, socket := range a.sockets {
		if nc, err = new(net.Dialer).DialContext(ctx, "unix", socket); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("libvirt at %s: %w; start its daemon, or see that this user may use it", uri, err)
	}
	c := &Conn{nc: nc, daemon: libvirt.NewWithDialer(dialer{nc})}
	err = c.call(ctx, func() error {
		if err := c.daemon.ConnectToURI(libvirt.ConnectURI(a.open)); err != nil {
			return fmt.Errorf("libvirt at %s: %w", uri, err)
		}
		return c.find(domain)
	})
	if err != nil {
		_ = nc.Close() // the first error counts
		return nil, err
	}
	return c, nil
}

// find looks the machine up, which must be running.
func (c *Conn) find(name string) error {
	found, err := c.daemon.DomainLookupByName(name)
	if id, bad := parseUUID(name); libvirt.IsNotFound(err) && bad == nil {
		found, err = c.daemon.DomainLookupByUUID(id)
	}
	if libvirt.IsNotFound(err) {
		return &NotRunningError{name, "is not known to libvirt here: it was undefined, or has moved to another host",
			"start the agent where the machine is, with the same state directory"}
	}
	if err != nil {
		return fmt.Errorf("look for machine %s: %w", name, err)
	}
	c.domain = found
	return c.running()
}

// running is an error where the machine does not run, or not the same run any more.
func (c *Conn) running() error {
	now, err := c.daemon.DomainLookupByUUID(c.domain.UUID)
	if libvirt.IsNotFound(err) {
		return &NotRunningError{c.domain.Name, "is not known to libvirt any more: it was undefined, or has moved to another host",
			"start the agent where the machine is, with the same state directory"}
	}
	if err != nil {
		return fmt.Errorf("look for machine %s: %w", c.domain.Name, err)
	}
	state, _, err := c.daemon.DomainGetState(now, 0)
	switch {
	case err != nil:
		return fmt.Errorf("state of machine %s: %w", c.domain.Name, err)
	case libvirt.DomainState(state) == libvirt.DomainCrashed:
		return &NotRunningError{c.domain.Name, "has crashed", "start it again; replication then goes on by itself"}
	case now.ID < 0 || libvirt.DomainState(state) == libvirt.DomainShutoff:
		return &NotRunningError{c.domain.Name, "is shut off", "start it; replication then goes on by itself"}
	case c.domain.ID >= 0 && now.ID != c.domain.ID:
		return &NotRunningError{c.domain.Name, "was started anew", "replication goes on by itself"}
	}
	return nil
}

// call does something that go-libvirt takes no context for. When it is given up the
// connection ends.
func (c *Conn) call(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		c.end(ctx.Err())
		<-done //nolint:errcheck // the connection is closed: it returns, and why is known
		return ctx.Err()
	}
	var said libvirt.Error
	var off *NotRunningError
	if err != nil && !errors.As(err, &said) && !errors.As(err, &off) {
		c.end(err)
		return c.Err()
	}
	return err
}

func (c *Conn) end(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = fmt.Errorf("%w: %w", qmp.ErrClosed, err)
	}
	c.mu.Unlock()
	_ = c.nc.Close() // what went wrong before tells more
}

// Err returns why the connection ended, nil while it lives.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection. The machine goes on.
func (c *Conn) Close() error {
	c.end(net.ErrClosed)
	return nil
}

// Run is as qmp.Conn's.
func (c *Conn) Run(ctx context.Context, command string, arguments, result any) error {
	if err := c.Err(); err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	var raw string
	err = c.call(ctx, func() (err error) {
		// The daemon goes by the UUID, and would ask the next run of the machine.
		now, err := c.daemon.DomainLookupByUUID(c.domain.UUID)
		if err == nil && now.ID == c.domain.ID {
			raw, err = c.daemon.QEMUDomainMonitorCommand(c.domain, string(line), 0)
		} else if err == nil {
			err = c.running()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", command, c.because(err))
	}
	return decode(command, raw, result)
}

// because tells, of an error of the daemon's, whether the machine is at the bottom of
// it; the connection then ends.
func (c *Conn) because(err error) error {
	var said libvirt.Error
	var off *NotRunningError
	if errors.As(err, &off) {
		c.end(err)
		return c.Err()
	}
	if !errors.As(err, &said) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), answers)
	defer cancel()
	if state := c.call(ctx, c.running); errors.As(state, &off) {
		c.end(off)
		return c.Err()
	}
	return fmt.Errorf("libvirt: %w", err)
}

// decode reads QEMU's answer.
func decode(command, raw string, result any) error {
	var answer struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Class string `json:"class"`
			Desc  string `json:"desc"`
		} `json:"error"`
	}
	if err := json.Unmarshal([]byte(raw), &answer); err != nil {
		return fmt.Errorf("%s: answer: %w", command, err)
	}
	if answer.Error != nil {
		return &qmp.Error{Command: command, Class: answer.Error.Class, Desc: answer.Error.Desc}
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(answer.Return, result); err != nil {
		return fmt.Errorf("%s: result: %w", command, err)
	}
	return nil
}

// Guest has QEMU's agent in the guest carry out a command without arguments, within
// whole seconds, one at least. libvirt sees to it that the answer is to this command,
// and that nothing is left for an agent that does not answer.
func (c *Conn) Guest(command string, within time.Duration, result any) error {
	seconds := max(1, int32((within+time.Second-1)/time.Second))
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second+answers)
	defer cancel()
	var raw libvirt.OptString
	err := c.call(ctx, func() (err error) {
		raw, err = c.daemon.QEMUDomainAgentCommand(c.domain, fmt.Sprintf(`{"execute":%q}`, command), seconds, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	if len(raw) == 0 {
		return fmt.Errorf("%s: no answer", command)
	}
	return decode(command, raw[0], result)
}
