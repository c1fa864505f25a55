package show

import (
	"fmt"
	"time"

	"lifeboat/internal/client"
)

// Servers shows the protected machines, and below the table what keeps some of
// them from being protected.
func (p *Printer) Servers(servers []client.Server) {
	if len(servers) == 0 {
		p.printf("No source servers yet. Run `lifeboat agent` on a machine to protect it (`lifeboat agent --help`).\n")
		return
	}
	rows := make([][]string, 0, len(servers))
	for _, s := range servers {
		rows = append(rows, []string{
			s.Hostname, p.Readiness(s), disks(s), p.lastLaunch(s.LastLaunch), p.ago(s.LastSeen), s.ID,
		})
	}
	p.table([]string{"HOSTNAME", "READY?", "DISKS", "LAST DRILL OR RECOVERY", "LAST SEEN", "ID"}, rows)
	for _, s := range servers {
		if s.Problem != nil {
			p.problem(s)
		}
	}
}

// Readiness says in a few words whether a server can be recovered, and to when.
func (p *Printer) Readiness(s client.Server) string {
	behind := ""
	if s.LagSeconds != nil && *s.LagSeconds >= 1 {
		behind = ", " + Duration(time.Duration(*s.LagSeconds*float64(time.Second))) + " behind"
	}
	ready := func(note string) string {
		if note != "" {
			note = " (" + note + ")"
		}
		return "Ready" + behind + note
	}
	switch s.State {
	case "STOPPED":
		return "Stopped"
	case "DISCONNECTED":
		return "Disconnected"
	case "STALLED":
		why := "Stalled"
		if s.Problem != nil {
			why += ": " + lower(s.Problem.Code)
		}
		if !s.Recoverable {
			return why + ", no point yet"
		}
		return why + behind
	case "INITIAL_SYNC":
		return "Initial sync" + percent(s) + p.left(s)
	}
	if !s.Recoverable {
		switch s.State {
		case "INITIATING":
			if s.Step != "" {
				return "Starting: " + lower(s.Step)
			}
			return "Starting"
		case "CREATING_SNAPSHOT":
			return "Initial sync done, taking the first point"
		case "RESCAN":
			return "Rescan" + percent(s) + ", no point yet"
		}
		return "Not ready: no consistent point yet"
	}
	switch s.State {
	case "CONTINUOUS", "BACKLOG", "CREATING_SNAPSHOT":
		return ready("")
	case "RESCAN":
		return ready("rescan" + percent(s))
	case "INITIATING":
		return ready("reconnecting")
	}
	return ready(lower(s.State))
}

func percent(s client.Server) string {
	if s.SyncedPercent == nil {
		return ""
	}
	return fmt.Sprintf(" %d %%", int(*s.SyncedPercent))
}

func (p *Printer) left(s client.Server) string {
	if s.SyncEnds == nil || !s.SyncEnds.After(p.Now) {
		return ""
	}
	return ", " + Duration(s.SyncEnds.Sub(p.Now)) + " left"
}

func disks(s client.Server) string {
	if len(s.Disks) == 0 {
		return ""
	}
	return fmt.Sprintf("%d, %s", len(s.Disks), Bytes(s.Bytes()))
}

func (p *Printer) lastLaunch(l *client.LastLaunch) string {
	if l == nil {
		return "never"
	}
	what := "recovery"
	if l.Drill {
		what = "drill"
	}
	how := map[string]string{
		"LAUNCHED": "worked", "FAILED": "FAILED", "TERMINATED": "worked, terminated",
	}[l.Status]
	if how == "" {
		how = "running"
	}
	return fmt.Sprintf("%s %s, %s", what, p.ago(l.At), how)
}

func (p *Printer) problem(s client.Server) {
	next := ""
	if s.Recoverable {
		next = fmt.Sprintf(" It can be recovered to an earlier moment: `lifeboat points %s`.", clean(s.Name()))
	}
	text := s.Problem.Message
	if text == "" {
		text = lower(s.Problem.Code)
	}
	p.printf("\n%s does not replicate: %s%s\n", clean(s.Name()), sentence(clean(text)), next)
}

// Initialized says that the account is ready.
func (p *Printer) Initialized() {
	p.printf("The account is initialized. Run `lifeboat agent` on each machine to protect (`lifeboat agent --help`).\n")
}
