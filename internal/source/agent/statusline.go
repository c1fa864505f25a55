package agent

import (
	"fmt"

	"lifeboat/internal/replication"
)

// statusLine says in a line what a progress amounts to.
func (s *session) statusLine(p *replication.Progress) string {
	var scanned, total, backlog int64
	for i, d := range p.Disks {
		scanned += d.Scanned
		backlog += d.Backlog
		total += s.a.disks.all[i].size
	}
	line := ""
	switch p.Phase {
	case replication.PhaseScanning:
		line = fmt.Sprintf("SCANNING: %d %% of %d disks read, source server %s", scanned*100/max(total, 1), len(p.Disks), s.server)
	case replication.PhaseContinuous:
		line = fmt.Sprintf("CONTINUOUS: %d disks, source server %s", len(p.Disks), s.server)
	case replication.PhaseBacklog:
		line = fmt.Sprintf("BACKLOG: %d MiB to send, source server %s", backlog>>20, s.server)
	case replication.PhaseStalled:
		line = fmt.Sprintf("STALLED: source server %s", s.server)
	}
	if p.Text != "" {
		line += ": " + p.Text + ": " + p.NextStep
	}
	return line
}
