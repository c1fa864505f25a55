package agent

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"lifeboat/internal/durable"
	"lifeboat/internal/replication"
)

// A certificate is renewed once no more than the last third of its life is left,
// and, where that fails, again after renewAgain. So a server that cannot be reached
// for months finds an agent that is still good.
const renewAgain = time.Hour

// renewal is what an agent has under way for its next certificate.
type renewal struct {
	asked time.Time // zero: never
	key   string    // of the request that is not answered; empty: none
}

func (id *identity) renewalDue(now time.Time) bool {
	leaf := id.pair.Leaf
	return leaf.NotAfter.Sub(now) < leaf.NotAfter.Sub(leaf.NotBefore)/3
}

// askRenewal asks the server for the next certificate when it is time to. The key is
// a new one each time.
func (s *session) askRenewal() error {
	csr, err := s.beginRenewal(s.a.cfg.Now())
	if err != nil || csr == "" {
		return err
	}
	return s.conn.Send(&replication.Renewal{CSR: csr})
}

// beginRenewal returns the request for the next certificate, empty while it is not
// time to ask.
func (s *session) beginRenewal(now time.Time) (csr string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.a.renewal
	if s.welcome.Version < replication.RenewalVersion || !s.a.id.renewalDue(now) || !r.asked.IsZero() && now.Sub(r.asked) < renewAgain {
		return "", nil
	}
	key, csr, err := newKey()
	if err != nil {
		return "", fmt.Errorf("renew certificate: %w", err)
	}
	r.asked, r.key = now, key
	return csr, nil
}

// renewed puts the next certificate in place of the one there was, on the disk
// first. Until the server sees it, it accepts either: whichever of them a crash
// leaves on the disk is good. The session goes on; the next one begins with it.
func (s *session) renewed(m *replication.Certificate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := s.a.renewal.key
	s.a.renewal.key = ""
	if m.PEM == "" || key == "" {
		s.a.log.Warn("the certificate was not renewed; asking again", "why", m.Text, "expires", s.a.id.pair.Leaf.NotAfter, "retry_in", renewAgain)
		return nil
	}
	next := s.a.id
	next.Key, next.Certificate = key, m.PEM
	if err := next.parse(); err != nil {
		return fmt.Errorf("renew certificate: the reply is not usable: %w", err)
	}
	if err := next.replace(s.a.cfg.State); err != nil {
		s.a.log.Error("the renewed certificate cannot be kept; asking again", "err", err, "next_step", "make room on the disk of the state directory", "retry_in", renewAgain)
		return nil
	}
	s.a.id = next
	s.a.log.Info("certificate renewed", "expires", next.pair.Leaf.NotAfter)
	return nil
}

// replace makes the identity durable in place of the one there was, at once.
func (id *identity) replace(dir string) error {
	raw, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	if err := (durable.Files{}).WriteFile("replace identity", filepath.Join(dir, identityFile), raw, 0o600); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}
