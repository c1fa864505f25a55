package agent

import (
	"fmt"
	"time"

	"lifeboat/internal/replication"
)

// statusLine says in a line what a progress amounts to.
func (s *session) statusLine(p *replication.Progress) string {
	var scanned, total, backlog int64
	n, more := 0, ""
	for _, d := range s.a.disks.all {
		if !d.left.IsZero() {
			more += fmt.Sprintf(", without %s, which left at %s", d.name, d.left.UTC().Format(time.RFC3339))
			continue
		}
		if n == len(p.Disks) {
			break
		}
		if d.joining.Load() {
			more += fmt.Sprintf(", %s joins: %d %%", d.name, p.Disks[n].Scanned*100/max(d.meter.size.Load(), 1))
		}
		scanned += p.Disks[n].Scanned
		backlog += p.Disks[n].Backlog
		total += d.meter.size.Load() // the size itself is the cutter's
		n++
	}
	line := ""
	switch p.Phase {
	case replication.PhaseScanning:
		line = fmt.Sprintf("SCANNING: %d %% of %d disks read, source server %s", scanned*100/max(total, 1), len(p.Disks), s.server)
	case replication.PhaseContinuous:
		line = fmt.Sprintf("CONTINUOUS: %d disks, source server %s", len(p.Disks), s.server) + more
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
