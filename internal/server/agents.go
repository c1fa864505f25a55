package server

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
)

// issueAgent gives an agent its certificate, after which no earlier one of the
// server is accepted any more: of two machines that both claim to be a server, the
// one that registered last is it.
func (s *running) issueAgent(ctx context.Context, csr []byte, account string, server drs.SourceServerID) ([]byte, error) {
	text, err := s.dir.Authority.IssueAgent(csr, iam.Agent{Account: account, SourceServer: server}, iam.AgentCertificateLife)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the certificate just issued is no PEM")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the certificate just issued: %w", err)
	}
	if err := s.db.SetAgentCertificate(ctx, server, certificate.SerialNumber.String()); err != nil {
		return nil, err
	}
	// Whoever got in with an earlier one since the registration was looked at.
	if s.ingest.Connected(server) {
		s.ingest.Forget(server, "another agent has registered as this source server")
		kept, err := s.db.SourceServer(ctx, drs.Account{ID: account, Region: s.dir.Settings.Region}, server)
		if err != nil {
			return nil, err
		}
		s.ingest.Expect(server, kept.Replication)
	}
	return text, nil
}

// revoked is ingest.Config.Revoked. That the server still exists is asked when the
// session is admitted.
func revoked(d *db.DB) func(context.Context, drs.SourceServerID, *x509.Certificate) error {
	return func(ctx context.Context, server drs.SourceServerID, certificate *x509.Certificate) error {
		serial, err := d.AgentCertificate(ctx, server)
		if errors.Is(err, db.ErrAbsent) {
			return nil
		}
		if err != nil {
			return err
		}
		if serial != certificate.SerialNumber.String() {
			return &drs.Error{
				Kind: drs.KindAccessDenied, ResourceType: drs.TypeSourceServer, ResourceID: string(server),
				Message: fmt.Sprintf("Another agent has registered as source server %s since, and this one's certificate is no longer good. "+
					"If this is the machine that should be protected: remove its state directory and register it with a fresh install token.", server),
			}
		}
		return nil
	}
}

// takeover decides whether a machine that registers becomes a source server that
// is there already. It must not while the server's agent is connected; and whoever
// brings an install token that is older than the latest word of the server's agent
// has not been trusted since: a token that leaked from an installation makes
// nobody somebody else's machine. A server without data has nothing to guard.
func takeover(known drs.SourceServer, connected bool, issued time.Time) error {
	switch {
	case connected:
		return conflict(known.ID, "This machine is source server %s, whose agent is connected right now: stop that agent first, then register again "+
			"(where it was cut off, half a minute later). If this machine is another one, a clone, give it a machine ID of its own, "+
			"or name it with --hostname.", known.ID)
	case known.Replication.State == drs.ReplicationDisconnected, known.LifeCycle.FirstByte.IsZero():
		return nil
	case !issued.After(known.LifeCycle.LastSeen):
		return conflict(known.ID, "This machine is source server %s, whose agent was seen since this install token was made: "+
			"register again with a fresh one (`lifeboat env` on the server prints it). If this machine is another one, a clone, "+
			"give it a machine ID of its own, or name it with --hostname.", known.ID)
	}
	return nil
}
