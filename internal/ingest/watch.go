package ingest

import (
	"context"
	"fmt"
	"time"

	"lifeboat/internal/drs"
)

// watch gives servers whose agent stays away the error AGENT_NOT_SEEN. The state
// stays what it was: what is in the vault can be recovered as before.
func (s *Server) watch(ctx context.Context) {
	ticker := time.NewTicker(max(min(s.cfg.LostAfter/4, 5*time.Second), 10*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		for _, server := range s.overdue(time.Now()) {
			s.reportLost(ctx, server)
		}
	}
}

// overdue returns the servers that have been away for too long.
func (s *Server) overdue(now time.Time) []drs.SourceServerID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var overdue []drs.SourceServerID
	for server, away := range s.absent {
		if now.Sub(away.since) >= s.cfg.LostAfter {
			overdue = append(overdue, server)
		}
	}
	return overdue
}

// reportLost reports a server once, unless its agent has come back. What cannot
// be recorded now is tried again at the next tick.
func (s *Server) reportLost(ctx context.Context, server drs.SourceServerID) {
	s.losing.Lock()
	defer s.losing.Unlock()
	s.mu.Lock()
	away, still := s.absent[server]
	s.mu.Unlock()
	if !still {
		return
	}
	info := away.info
	info.ETA = time.Time{}
	info.Error = &drs.DataReplicationErr{
		Code: drs.AgentNotSeen,
		Raw: fmt.Sprintf("No agent of this source server has been connected since %s. Check that the machine and its Lifeboat agent run and "+
			"reach the replication address; the agent's log tells what it tries. Existing recovery points can be launched.",
			away.since.UTC().Format(time.RFC3339)),
	}
	if away.info.Error != nil && away.info.Error.Code != drs.AgentNotSeen {
		info.Error.Raw += " Before that: " + away.info.Error.Raw
	}
	if err := s.cfg.Catalog.ReportReplication(ctx, server, info, time.Time{}); err != nil {
		s.log.Error("report lost agent", "server", server, "err", err)
		return
	}
	s.log.Warn("agent not seen", "server", server, "since", away.since.UTC())
	s.mu.Lock()
	delete(s.absent, server)
	s.mu.Unlock()
}
