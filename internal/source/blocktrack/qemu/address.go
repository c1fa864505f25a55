package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"time"

	"lifeboat/internal/qmp"
	"lifeboat/internal/qmp/libvirt"
)

// Address says where a machine is: at a QMP socket of the agent's own, or with libvirt.
type Address struct {
	// Socket is the path of a QMP socket that nobody else uses.
	Socket string `json:",omitempty"`
	// Agent is the path of the socket of the guest's agent, if there is one that nobody
	// else uses. Of a Domain libvirt has that.
	Agent string `json:",omitempty"`
	// Domain is the name or UUID of a machine that libvirt runs on this host. Libvirt is
	// the daemon's URI.
	Domain  string `json:",omitempty"`
	Libvirt string `json:",omitempty"`
}

// DefaultLibvirt is the daemon of a host's own machines.
const DefaultLibvirt = "qemu:///system"

func (a Address) String() string {
	if a.Domain != "" {
		return a.Domain
	}
	return a.Socket
}

// monitor takes commands for a QEMU. Its calls may be made concurrently.
type monitor interface {
	// Run carries out a command; a *qmp.Error is QEMU's refusal.
	Run(ctx context.Context, command string, arguments, result any) error
	// Err tells why the connection ended, nil while it lives.
	Err() error
	Close() error
}

func (a Address) dial(ctx context.Context) (*machine, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	if a.Domain != "" {
		conn, err := libvirt.Dial(ctx, a.Libvirt, a.Domain)
		if err != nil {
			return nil, err
		}
		return &machine{conn}, nil
	}
	nc, err := new(net.Dialer).DialContext(ctx, "unix", a.Socket)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no answer at the QMP socket: %w; start the machine with -qmp unix:%s,server=on,wait=off", err, a.Socket)
	}
	if err != nil {
		return nil, fmt.Errorf("no answer at the QMP socket: %w", err)
	}
	line := sharedLine{nc.(*net.UnixConn)}
	conn, err := qmp.New(ctx, line)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%w: a QMP socket serves one client at a time; give the agent one of its own (-qmp unix:FILE,server=on,wait=off)", err)
		}
		return nil, fmt.Errorf("no answer at the QMP socket: %w", err)
	}
	own := &ownSocket{conn, line.UnixConn, make(chan struct{})}
	go func() {
		defer close(own.drained)
		for range conn.Events() { // what matters is asked for
		}
	}()
	return &machine{own}, nil
}

// sharedLine is a connection that ends for all who have a copy when it is closed.
type sharedLine struct{ *net.UnixConn }

func (l sharedLine) Close() error {
	_ = l.CloseRead() // they fail where it has ended already
	_ = l.CloseWrite()
	return l.UnixConn.Close()
}

// ownSocket is a connection of the agent's own to QEMU.
type ownSocket struct {
	*qmp.Conn
	raw     *net.UnixConn // what Conn speaks over
	drained chan struct{} // closed when the events have ended
}

func (s *ownSocket) Close() error {
	err := s.Conn.Close()
	<-s.drained
	return err
}

// scratch is the folder that QEMU can create files in, if nobody named one: that of the
// QMP socket. libvirt makes one for each run of a machine, which its confinement lets
// QEMU write to.
func (a Address) scratch(ctx context.Context, m *machine) (string, error) {
	if a.Domain == "" {
		return filepath.Abs(filepath.Dir(a.Socket)) // QEMU has a working directory of its own
	}
	var ports []struct{ Label, Filename string }
	if err := m.do(ctx, "query-chardev", nil, &ports); err != nil {
		return "", err
	}
	for _, p := range ports {
		if path, ok := strings.CutPrefix(p.Filename, "unix:"); ok && p.Label == "charmonitor" {
			path, _, _ = strings.Cut(path, ",")
			return filepath.Dir(path), nil
		}
	}
	return "", errors.New("libvirt's folder of the machine is not known: name one with --scratch that QEMU can create files in")
}

// freezable tells whether somebody can be asked to freeze the guest.
func (a Address) freezable() bool { return a.Agent != "" || a.Domain != "" }

// dialGuest connects to the guest's agent and makes sure, within the time given, that
// somebody answers: what is sent to nobody would be carried out whenever it starts.
func (a Address) dialGuest(within time.Duration) (*guest, error) {
	if a.Domain == "" {
		line, err := dialAgent(a.Agent, within)
		if err != nil {
			return nil, err
		}
		return &guest{line}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	conn, err := libvirt.Dial(ctx, a.Libvirt, a.Domain)
	if err != nil {
		return nil, err
	}
	g := &guest{throughLibvirt{conn}}
	if err := g.line.sync(within); err != nil {
		g.close()
		return nil, fmt.Errorf("no answer from the guest's agent: %w", err)
	}
	return g, nil
}
