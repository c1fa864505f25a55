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
		for server, away := range s.lost(time.Now()) {
			if err := s.cfg.Catalog.ReportReplication(ctx, server, away.info, time.Time{}); err != nil {
				s.log.Error("report lost agent", "server", server, "err", err)
				s.Expect(server, away.info) // and again later
				continue
			}
			s.log.Warn("agent not seen", "server", server, "since", away.since.UTC())
		}
	}
}

// lost takes out the servers that have been away for too long, with the report
// to make of them.
func (s *Server) lost(now time.Time) map[drs.SourceServerID]absence {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := map[drs.SourceServerID]absence{}
	for server, away := range s.absent {
		if now.Sub(away.since) < s.cfg.LostAfter {
			continue
		}
		delete(s.absent, server)
		switch away.info.State {
		case drs.ReplicationStopped, drs.ReplicationDisconnected:
			continue
		}
		away.info.ETA = time.Time{}
		away.info.Error = &drs.DataReplicationErr{
			Code: drs.AgentNotSeen,
			Raw: fmt.Sprintf("No agent of this source server has been connected since %s. Check that the machine and its Lifeboat agent run and "+
				"reach the replication address; the agent's log tells what it tries. Existing recovery points can be launched.",
				away.since.UTC().Format(time.RFC3339)),
		}
		lost[server] = away
	}
	return lost
}
