package nbd

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
)

// demandTLS refuses an option that came before TLS. Two of them cannot be
// refused in words.
func (c *conn) demandTLS(opt option) error {
	if opt == optExportName {
		return fmt.Errorf("the client asked for an export in the clear: this listener speaks TLS only")
	}
	return c.refuse(opt, repErrTLSReqd, "this server speaks TLS only: ask for it, with a client certificate of this server's authority")
}

// startTLS upgrades the connection. What was negotiated in the clear is
// forgotten: somebody on the way may have said it.
func (c *conn) startTLS(ctx context.Context, data []byte) error {
	switch {
	case c.srv.cfg.TLS == nil:
		return c.refuse(optStartTLS, repErrPolicy, "this listener does not speak TLS: go on without, or use the server's TCP address")
	case c.secure != nil:
		return c.refuse(optStartTLS, repErrInvalid, "the connection is encrypted already")
	case len(data) != 0:
		return c.refuse(optStartTLS, repErrInvalid, "this option takes no data")
	}
	if err := c.reply(optStartTLS, repAck, nil); err != nil {
		return err
	}
	if c.br.Buffered() > 0 {
		return fmt.Errorf("the client sent %d bytes between STARTTLS and its answer", c.br.Buffered())
	}
	secure := tls.Server(c.nc, c.srv.cfg.TLS)
	if err := secure.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	c.secure, c.stream = secure, secure
	c.br = bufio.NewReaderSize(secure, readAhead)
	c.structured, c.allocation, c.contextName = false, false, ""
	return nil
}

type peerKey struct{}

type peer struct {
	chain   []*x509.Certificate
	address net.Addr
}

// withPeer lets what the configuration is asked know who asks.
func (c *conn) withPeer(ctx context.Context) context.Context {
	if c.secure == nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, peer{c.secure.ConnectionState().PeerCertificates, c.nc.RemoteAddr()})
}

// PeerCertificates are the certificates of the client on whose behalf
// Config.Open or Config.List was called with ctx, its own first, verified as the
// TLS configuration says; nil without TLS, or when it needed none.
func PeerCertificates(ctx context.Context) []*x509.Certificate {
	p, _ := ctx.Value(peerKey{}).(peer)
	return p.chain
}

// PeerAddress is where the client is on whose behalf Config.Open or Config.List was
// called with ctx; nil without TLS.
func PeerAddress(ctx context.Context) net.Addr {
	p, _ := ctx.Value(peerKey{}).(peer)
	return p.address
}

// joinMax is the longest piece that is copied rather than sealed by itself: a
// record of TLS holds 16 KiB.
const joinMax = 16 << 10

// join writes the pieces to a stream that makes a record of every write: headers
// and small payloads go together.
func (o *outbox) join(w io.Writer) error {
	o.joined = o.joined[:0]
	flush := func() error {
		if len(o.joined) == 0 {
			return nil
		}
		_, err := w.Write(o.joined)
		o.joined = o.joined[:0]
		return err
	}
	for _, p := range o.pieces {
		if len(o.joined)+len(p) > 4*joinMax {
			if err := flush(); err != nil {
				return err
			}
		}
		if len(p) <= joinMax {
			o.joined = append(o.joined, p...)
			continue
		}
		if err := flush(); err != nil {
			return err
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return flush()
}
