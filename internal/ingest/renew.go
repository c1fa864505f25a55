package ingest

import (
	"context"
	"errors"

	"lifeboat/internal/iam"
	"lifeboat/internal/replication"
)

// renew answers an agent that asks for its next certificate. That none can be had
// now ends nothing: the one that it has is good for long.
func (s *session) renew(ctx context.Context, m *replication.Renewal) error {
	if s.version < replication.RenewalVersion {
		return protocolError("a renewal in version %d", s.version)
	}
	reply := &replication.Certificate{Text: "this server issues no certificates"}
	if s.srv.cfg.Renew != nil {
		certificate, err := s.srv.cfg.Renew(ctx, s.server, s.certificate, []byte(m.CSR))
		switch {
		case err == nil:
			reply = &replication.Certificate{PEM: string(certificate)}
			s.srv.log.Info("certificate renewed", "server", s.server)
		case errors.Is(err, iam.ErrBadRequest):
			return protocolError("%v", err)
		default:
			reply.Text = "the server could not issue a certificate now; see its log"
			s.srv.log.Error("renew certificate", "server", s.server, "err", err)
		}
	}
	return s.conn.Send(reply)
}
