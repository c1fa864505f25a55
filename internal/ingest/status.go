package ingest

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/replication"
	"lifeboat/internal/vault"
)

// status is how replication of one server stands, as its session sees it. Safe
// for concurrent use.
type status struct {
	log    *slog.Logger
	server drs.SourceServerID
	urgent chan struct{} // capacity 1: something worth reporting at once

	mu       sync.Mutex
	now      drs.DataReplicationInfo
	lastSeen time.Time
	news     bool
	passed   []drs.ReplicationState // since the last report, without loops; ends in the present state
	hasPoint bool                   // a consistent point exists
	joining  []bool                 // by disk: points do not hold it yet
	scan     pace                   // of a scan; bytes yet to read
	drain    pace                   // of a backlog; bytes yet to send
}

// backlogAfter is the lag from which a server with changes under way is in
// BACKLOG and not just busy.
const backlogAfter = 15 * time.Second

func newStatus(log *slog.Logger, server drs.SourceServerID) *status {
	return &status{log: log, server: server, urgent: make(chan struct{}, 1)}
}

// change runs f under the lock; urgent reports its outcome at once.
func (s *status) change(urgent bool, f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.news = true
	if urgent {
		select {
		case s.urgent <- struct{}{}:
		default:
		}
	}
}

// toLocked changes the state where the rules allow it.
func (s *status) toLocked(to drs.ReplicationState) {
	next, err := s.now.State.Next(to)
	if err != nil {
		s.log.Debug("state kept", "server", s.server, "err", err)
		return
	}
	if next != s.now.State {
		s.log.Info("replication state", "server", s.server, "from", s.now.State, "to", next)
		s.passed = through(s.passed, next)
	}
	s.now.State = next
}

// through goes on from a path of states to the next, and leaves out a loop.
func through(path []drs.ReplicationState, next drs.ReplicationState) []drs.ReplicationState {
	if i := slices.Index(path, next); i >= 0 {
		return path[:i+1]
	}
	return append(path, next)
}

// stepLocked marks a step as under way, those before it as done.
func (s *status) stepLocked(name drs.InitiationStepName, status drs.InitiationStepStatus) {
	s.now.Steps = nil
	before := true
	for _, step := range drs.InitiationSteps {
		out := drs.InitiationStep{Name: step, Status: drs.StepNotStarted}
		switch {
		case step == name:
			out.Status, before = status, false
		case before:
			out.Status = drs.StepSucceeded
		}
		s.now.Steps = append(s.now.Steps, out)
	}
}

// begin starts from what was last reported; the agent is authenticated.
func (s *status) begin(last drs.DataReplicationInfo, at time.Time) {
	s.change(true, func() {
		s.now, s.lastSeen = last, at
		if s.now.State == "" {
			s.now.State = drs.ReplicationInitiating
			s.passed = through(s.passed, drs.ReplicationInitiating) // told, also where the next state comes quickly
		}
		s.toLocked(drs.ReplicationInitiating)
		s.now.Begun, s.now.ETA, s.now.Error = at.UTC(), time.Time{}, nil
		s.stepLocked(drs.StepCreateStagingDisks, drs.StepInProgress)
	})
}

// opened looks at the head of the branch: it knows best what the vault holds.
func (s *status) opened(head vault.Head) {
	s.change(true, func() {
		if p := head.LastPoint; p != nil && p.Bootable() && (p.Taken.After(s.now.AsOf) || s.now.AsOf.After(time.Now())) {
			s.now.AsOf = p.Taken.UTC()
		}
		s.hasPoint = !s.now.AsOf.IsZero()
		s.stepLocked(drs.StepPairReplicationServerWithAgent, drs.StepInProgress)
	})
}

// disks starts the transfer: the first sync, or the comparison with what is there. Of
// each disk apart tells whether points go on without it; those that left are not told of.
func (s *status) disks(disks []replication.Disk, apart []bool) {
	s.change(true, func() {
		known := map[string]drs.ReplicatedDisk{}
		for _, d := range s.now.Disks {
			known[d.Device] = d
		}
		s.now.Disks, s.joining = nil, nil
		for i, d := range disks {
			if d.State == replication.DiskLeft {
				continue
			}
			s.joining = append(s.joining, apart[i])
			old := known[d.Device]
			s.now.Disks = append(s.now.Disks, drs.ReplicatedDisk{Device: d.Device, Total: d.Size, Replicated: min(old.Replicated, d.Size)})
		}
		s.stepLocked(drs.StepStartDataTransfer, drs.StepSucceeded)
		// Where there are points the agent's first progress tells whether all is
		// compared or only what came meanwhile is sent.
		if s.now.State == drs.ReplicationInitiating && !s.hasPoint {
			s.toLocked(drs.ReplicationInitialSync)
		}
	})
}

// joinsLocked tells whether a disk is on its way into points.
func (s *status) joinsLocked(i int) bool { return i < len(s.joining) && s.joining[i] }

// started: an epoch begins, so an earlier refusal is over.
func (s *status) started() {
	s.change(false, func() {
		if s.now.Error != nil && s.now.Error.Code == drs.SnapshotsFailure {
			s.now.Error = nil
		}
	})
}

// progress takes in what the agent tells.
func (s *status) progress(m *replication.Progress, at time.Time) {
	s.change(m.Phase == replication.PhaseStalled || m.Text != "", func() {
		initial := s.now.State == drs.ReplicationInitialSync
		var total, scanned, backlog int64
		for i := range min(len(m.Disks), len(s.now.Disks)) {
			d, p := &s.now.Disks[i], m.Disks[i]
			d.Backlogged = min(p.Backlog, d.Total)
			if s.joinsLocked(i) { // beside what the others are at
				d.Replicated = max(d.Replicated, min(p.Scanned, d.Total)-d.Backlogged)
				continue
			}
			switch {
			case m.Phase != replication.PhaseScanning:
				d.Rescanned = d.Total
			case initial:
				d.Replicated = max(d.Replicated, min(p.Scanned, d.Total)-d.Backlogged)
			default:
				d.Rescanned = min(p.Scanned, d.Total)
			}
			total, scanned, backlog = total+d.Total, scanned+min(p.Scanned, d.Total), backlog+d.Backlogged
		}
		s.now.ETA = time.Time{}
		if m.Phase != replication.PhaseScanning {
			s.scan = pace{}
		}
		if m.Phase != replication.PhaseBacklog {
			s.drain = pace{}
		}
		switch m.Phase {
		case replication.PhaseScanning:
			if s.now.State == drs.ReplicationStalled { // it flows again
				s.now.Error = nil
			}
			if s.hasPoint && scanned < total { // else it is over, and the point on its way has told so
				s.toLocked(drs.ReplicationRescan)
			} else if s.now.State == drs.ReplicationStalled {
				s.toLocked(drs.ReplicationInitialSync)
			}
			s.now.ETA = s.scan.ends(total-scanned, at)
		case replication.PhaseStalled:
			s.failLocked(drs.FailedToStartDataTransfer, m.Text, m.NextStep)
		case replication.PhaseBacklog:
			s.busyLocked(m, at)
			s.now.ETA = s.drain.ends(backlog, at)
		}
	})
}

// busyLocked: changes are under way that no point holds yet.
func (s *status) busyLocked(m *replication.Progress, at time.Time) {
	switch {
	case m.Text != "":
		s.now.Error = &drs.DataReplicationErr{Code: drs.SnapshotsFailure, Raw: advice(m.Text, m.NextStep)}
	case s.now.State == drs.ReplicationStalled: // it flows again
		s.now.Error = nil
	}
	if !s.hasPoint {
		s.toLocked(drs.ReplicationInitialSync)
		return
	}
	if m.Text != "" || s.now.State != drs.ReplicationContinuous || at.Sub(s.now.AsOf) > backlogAfter {
		s.toLocked(drs.ReplicationBacklog)
	}
}

// sealing: the first point of a server is being made.
func (s *status) sealing() {
	s.mu.Lock()
	first := !s.hasPoint
	s.mu.Unlock()
	if first {
		s.change(true, func() { s.toLocked(drs.ReplicationCreatingSnapshot) })
	}
}

// sealed: a point is in the vault.
func (s *status) sealed(p drs.RecoveryPoint) {
	s.change(true, func() {
		if !p.Bootable() {
			s.now.Error = &drs.DataReplicationErr{Code: drs.NotConverging, Raw: advice(
				"No recovery point could be proved consistent, so the newest ones are fuzzy: the disks change all the time, or refuse direct reads",
				"see the agent's log for which it is; let the machine rest for a moment, or stop it, before the next recovery")}
			if s.hasPoint {
				s.toLocked(drs.ReplicationBacklog)
			} else {
				s.toLocked(drs.ReplicationContinuous)
			}
			return
		}
		s.hasPoint = true
		if p.Taken.Before(s.now.AsOf) && s.now.AsOf.After(time.Now()) {
			s.now.AsOf = time.Time{} // of a clock that ran ahead, and is right again
		}
		s.restLocked(p.Taken)
	})
}

// asOf: nothing has changed since the newest point until t by the agent's clock,
// which is believed up to now.
func (s *status) asOf(t, now time.Time) {
	if t.IsZero() {
		s.change(false, func() {})
		return
	}
	s.change(false, func() {
		if s.hasPoint {
			s.restLocked(earlier(t, now))
		}
	})
}

func (s *status) restLocked(t time.Time) {
	if t.After(s.now.AsOf) {
		s.now.AsOf = t.UTC()
	}
	s.now.ETA, s.now.Error = time.Time{}, nil
	s.scan, s.drain = pace{}, pace{}
	for i := range s.now.Disks {
		d := &s.now.Disks[i]
		if s.joinsLocked(i) {
			continue
		}
		d.Replicated, d.Rescanned, d.Backlogged = d.Total, d.Total, 0
	}
	s.toLocked(drs.ReplicationContinuous)
}

// warn records a trouble that may pass by itself.
func (s *status) warn(code drs.ReplicationErrorCode, text, next string) {
	s.change(true, func() {
		s.now.Error = &drs.DataReplicationErr{Code: code, Raw: advice(text, next)}
		if s.hasPoint {
			s.toLocked(drs.ReplicationBacklog)
		}
	})
}

// fail records a trouble that needs a person.
func (s *status) fail(code drs.ReplicationErrorCode, text, next string) {
	s.change(true, func() { s.failLocked(code, text, next) })
}

func (s *status) failLocked(code drs.ReplicationErrorCode, text, next string) {
	s.now.Error = &drs.DataReplicationErr{Code: code, Raw: advice(text, next)}
	s.now.ETA = time.Time{}
	s.toLocked(drs.ReplicationStalled)
	for i, step := range s.now.Steps {
		if step.Status == drs.StepInProgress {
			s.now.Steps[i].Status = drs.StepFailed
		}
	}
}

func advice(text, next string) string {
	if next == "" {
		return text + "."
	}
	return text + ". Next: " + next + "."
}

func (s *status) seen(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastSeen = t
}

// report is what there is to tell the catalogue.
type report struct {
	info drs.DataReplicationInfo
	via  []drs.ReplicationState // gone through before info's since the last report
	seen time.Time
	news bool
}

func (s *status) take() report {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := report{info: s.infoLocked(), seen: s.lastSeen, news: s.news}
	if n := len(s.passed); n > 0 {
		r.via = s.passed[:n-1]
	}
	s.news, s.passed = false, nil
	return r
}

// again makes the next report contain a lost one.
func (s *status) again(lost report) {
	s.change(false, func() {
		path := append(slices.Clone(lost.via), lost.info.State)
		for _, state := range s.passed {
			path = through(path, state)
		}
		s.passed = path
	})
}

func (s *status) info() drs.DataReplicationInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.infoLocked()
}

// infoLocked copies what s goes on changing.
func (s *status) infoLocked() drs.DataReplicationInfo {
	info := s.now
	info.Disks = append([]drs.ReplicatedDisk(nil), s.now.Disks...)
	info.Steps = append([]drs.InitiationStep(nil), s.now.Steps...)
	return info
}
