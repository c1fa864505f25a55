package replication

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// Dial connects to a replication server. The configuration holds the agent's
// certificate and the authority to trust; version and protocol are set here.
func Dial(ctx context.Context, address string, config *tls.Config) (*Conn, error) {
	raw, err := (&net.Dialer{Timeout: DialTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect to replication server: %w", err)
	}
	config = harden(config)
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(address)
	}
	return secure(ctx, raw, tls.Client(coalesce(raw), config))
}

// Accept makes the server's end of an accepted connection. The configuration
// must ask for and verify client certificates (iam.Authority.AgentTLS does). The
// agent's verified chain is in the returned state.
func Accept(ctx context.Context, raw net.Conn, config *tls.Config) (*Conn, tls.ConnectionState, error) {
	sock := tls.Server(coalesce(raw), harden(config))
	conn, err := secure(ctx, raw, sock)
	if err != nil {
		return nil, tls.ConnectionState{}, err
	}
	return conn, sock.ConnectionState(), nil
}

func secure(ctx context.Context, raw net.Conn, sock *tls.Conn) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	err := sock.HandshakeContext(ctx)
	if err == nil && sock.ConnectionState().NegotiatedProtocol != ALPN {
		err = fmt.Errorf("the peer at %s does not speak %s", raw.RemoteAddr(), ALPN)
	}
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("TLS with %s: %w", raw.RemoteAddr(), err)
	}
	return NewConn(sock), nil
}

func harden(config *tls.Config) *tls.Config {
	config = config.Clone()
	config.MinVersion = tls.VersionTLS13
	config.NextProtos = []string{ALPN}
	config.DynamicRecordSizingDisabled = true
	return config
}

// Greet sends hello and returns the server's welcome. Until that comes, heartbeats tell
// that the server is at it; waits, if not nil, is called with each.
func (c *Conn) Greet(hello Hello, waits func()) (*Welcome, error) {
	hello.MinVersion, hello.MaxVersion = MinVersion, MaxVersion
	if err := c.Send(&hello); err != nil {
		return nil, err
	}
	m, err := c.Receive()
	for begun := time.Now(); err == nil; m, err = c.Receive() {
		if _, alive := m.(*Heartbeat); !alive {
			break
		}
		if time.Since(begun) > WelcomeTimeout {
			return nil, fmt.Errorf("%w: no welcome within %s", ErrSilent, WelcomeTimeout)
		}
		if waits != nil {
			waits()
		}
	}
	if err != nil {
		return nil, err
	}
	welcome, ok := m.(*Welcome)
	if !ok {
		return nil, fmt.Errorf("%w: kind %d instead of a welcome", ErrMalformed, m.kind())
	}
	if welcome.Version < MinVersion || welcome.Version > MaxVersion {
		return nil, fmt.Errorf("%w: version %d was not offered", ErrMalformed, welcome.Version)
	}
	return welcome, nil
}

// AwaitHello receives the agent's hello and picks the newest version that both
// ends speak. An agent that shares none is told so and refused.
func (c *Conn) AwaitHello() (hello *Hello, version uint16, err error) {
	m, err := c.Receive()
	if err != nil {
		return nil, 0, err
	}
	hello, ok := m.(*Hello)
	if !ok {
		c.Refuse(&Error{Code: CodeProtocol, Text: "a session begins with a hello"})
		return nil, 0, fmt.Errorf("%w: kind %d instead of a hello", ErrMalformed, m.kind())
	}
	version = min(hello.MaxVersion, MaxVersion)
	if version < hello.MinVersion || version < MinVersion {
		refusal := &Error{
			Code:     CodeVersion,
			Text:     fmt.Sprintf("this server speaks replication versions %d to %d, the agent %d to %d", MinVersion, MaxVersion, hello.MinVersion, hello.MaxVersion),
			NextStep: "upgrade the older of the two",
		}
		c.Refuse(refusal)
		return nil, 0, refusal
	}
	return hello, version, nil
}

// IsRemoteAlert tells whether err is a TLS alert of the peer: it did not accept
// what this end presented.
func IsRemoteAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}
