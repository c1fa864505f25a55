package ingest

import (
	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
)

// author is the session that made a head. Its agent may have lost the
// acknowledgement; told who made the head, it knows that nothing came in between.
type author struct {
	head     [32]byte
	instance [16]byte
}

// wrote remembers who made a server's head.
func (s *Server) wrote(server drs.SourceServerID, head vault.Head, instance [16]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.authors[server] = author{head.Hash, instance}
}

// author returns the session that made a head; zeros if that is not known.
func (s *Server) author(server drs.SourceServerID, head vault.Head) [16]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.authors[server]; a.head == head.Hash {
		return a.instance
	}
	return [16]byte{}
}
