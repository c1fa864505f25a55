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
	serial, err := serialOf(text)
	if err != nil {
		return nil, err
	}
	if err := s.db.SetAgentCertificate(ctx, server, serial); err != nil {
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

// renew gives an agent, which has shown current, its next certificate. Both are good
// until it shows one of a later session that is the next one: whichever of them the
// agent keeps after a crash is good, and the one issued last is in the end.
func (s *running) renew(ctx context.Context, server drs.SourceServerID, current *x509.Certificate, csr []byte) ([]byte, error) {
	who, err := s.dir.Authority.VerifyAgent([]*x509.Certificate{current})
	if err != nil {
		return nil, err
	}
	text, err := s.dir.Authority.IssueAgent(csr, who, iam.AgentCertificateLife)
	if err != nil {
		return nil, err
	}
	serial, err := serialOf(text)
	if err != nil {
		return nil, err
	}
	if err := s.db.OfferAgentCertificate(ctx, server, current.SerialNumber.String(), serial); err != nil {
		return nil, err
	}
	return text, nil
}

func serialOf(certificatePEM []byte) (string, error) {
	block, _ := pem.Decode(certificatePEM)
	if block == nil {
		return "", errors.New("the certificate just issued is no PEM")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("read the certificate just issued: %w", err)
	}
	return certificate.SerialNumber.String(), nil
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
		shown := certificate.SerialNumber.String()
		if serial != shown {
			err := d.TakeAgentCertificate(ctx, server, shown)
			if !errors.Is(err, db.ErrAbsent) {
				return err // the agent has its renewed certificate, and needs no other any more
			}
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
