package ingest

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"lifeboat/internal/drs"
	"lifeboat/internal/replication"
	"lifeboat/internal/vault"
)

// session is one agent's connection. The reader takes messages off the line, the
// worker makes them happen in the vault, the reporter tells the catalogue.
type session struct {
	srv     *Server
	conn    *replication.Conn
	server  drs.SourceServerID
	version uint16
	// instance tells the session from all others, by the agent's word.
	instance [16]byte
	// certificate is the one that the agent has shown.
	certificate *x509.Certificate

	status *status
	done   chan struct{} // closed when the session holds nothing any more

	admitted bool // the catalogue let the agent in; set and read under srv.mu

	credit *credit

	mu          sync.Mutex // covers the fields below
	open        bool
	stopped     *replication.Error // why somebody ended the session
	stalled     string             // why the agent cannot make points; empty: it can
	refused     string             // why the vault took no epoch, until it takes one again; empty: it does
	waiting     []asked
	lastRequest uint64
}

func newSession(srv *Server, conn *replication.Conn, server drs.SourceServerID, version uint16) *session {
	return &session{srv: srv, conn: conn, server: server, version: version, status: newStatus(srv.log, server), done: make(chan struct{})}
}

// ready tells whether the agent was let in.
func (s *session) ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open && s.stopped == nil
}

// stop ends the session and tells the agent why. It does not wait.
func (s *session) stop(why *replication.Error) {
	s.mu.Lock()
	first := s.stopped == nil
	if first {
		s.stopped = why
	}
	s.mu.Unlock()
	if first {
		s.conn.Refuse(why)
	}
}

// run is the session from its welcome to its end. It always returns why it ended.
func (s *session) run(ctx context.Context, branch Branch) error {
	w := &worker{s: s, branch: branch, head: branch.Head(), queue: newQueue(int(s.srv.credits.most)/replication.MessageCost + 256)}
	group, inner := errgroup.WithContext(ctx)
	ended := make(chan struct{})
	context.AfterFunc(inner, func() {
		defer close(ended)
		var told *replication.Error
		switch {
		case ctx.Err() != nil:
			s.conn.Refuse(&replication.Error{Code: replication.CodeBusy, Text: "the replication server stops", NextStep: "the agent connects again by itself"})
		case errors.As(context.Cause(inner), &told):
			s.conn.Refuse(told)
		}
		_ = s.conn.Close() // the session is over, however that goes
	})
	group.Go(func() error { return s.receive(inner, w.queue) })
	group.Go(func() error { return w.run(inner) })
	group.Go(func() error { return s.heartbeat(inner) })
	group.Go(func() error { return s.report(inner) })
	err := group.Wait()
	<-ended
	w.close()

	s.mu.Lock()
	s.open = false
	if s.stopped != nil {
		err = s.stopped
	}
	s.mu.Unlock()
	s.lastReport(ctx)
	return err
}

// welcome admits the agent and opens its branch.
func (s *session) welcome(ctx context.Context, account string, lobby *lobby) (Branch, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err // it has waited for too long, or the server stops
	}
	lobby.waitsFor("the database to tell about this source server")
	looking, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	admission, err := s.srv.cfg.Catalog.Admit(looking, account, s.server)
	if err != nil {
		refusal := &replication.Error{Code: replication.CodeInternal, Text: "the server cannot look up this source server now", NextStep: "the agent tries again by itself"}
		var shown *drs.Error
		switch {
		case errors.Is(err, ErrStopped):
			refusal = &replication.Error{Code: replication.CodeStopped, Text: ErrStopped.Error()}
		case errors.As(err, &shown):
			refusal = &replication.Error{Code: replication.CodeForbidden, Text: shown.Message}
		}
		s.conn.Refuse(refusal)
		return nil, fmt.Errorf("admit: %w", err)
	}
	s.srv.admitted(s)
	s.status.begin(admission.Replication, time.Now())
	lobby.waitsFor("the vault to open this server's branch")
	branch, err := s.srv.cfg.Vault.OpenBranch(ctx, s.server)
	if refused, ok := errors.AsType[*replication.Error](context.Cause(ctx)); ok {
		if err == nil {
			err = branch.Close() // nothing was written
		}
		return nil, errors.Join(refused, err)
	}
	if err != nil {
		refusal := s.explain(err)
		s.status.fail(drs.FailedToCreateStagingDisks, refusal.Text, refusal.NextStep)
		s.lastReport(ctx)
		s.conn.Refuse(refusal)
		return nil, fmt.Errorf("open branch: %w", err)
	}
	head := branch.Head()
	s.status.opened(head)
	if head.LastPoint != nil {
		// Its commit may have been stored and never recorded.
		if err := s.srv.cfg.Catalog.AddPoint(ctx, *head.LastPoint); err != nil {
			s.srv.log.Error("record recovery point; it is in the vault and will be found there", "server", s.server, "point", head.LastPoint.ID, "err", err)
		}
	}
	s.mu.Lock()
	stopped := s.stopped
	s.open = stopped == nil
	s.mu.Unlock()
	if stopped == nil {
		welcome := &replication.Welcome{
			Version: s.version, HeadNumber: head.Number, HeadHash: head.Hash, DigestSeed: head.DigestSeed,
			Author: s.srv.author(s.server, head),
			Sealed: sealed(head), Credit: uint32(s.credit.base), Settings: admission.Settings.wire(s.version), Software: s.srv.cfg.Software,
		}
		if head.LastPoint != nil {
			welcome.PointTaken = head.LastPoint.Taken
		}
		err = s.conn.Send(welcome)
	} else {
		err = stopped
	}
	if err != nil {
		_ = branch.Close() // nothing was written
		return nil, err
	}
	return branch, nil
}

// sealed tells whether the head is a consistent recovery point, with nothing after it.
func sealed(head vault.Head) bool {
	return head.LastPoint != nil && head.LastPoint.Epoch == head.Number && head.LastPoint.Bootable()
}

// receive takes messages off the line. What concerns the vault goes to the
// worker in order; the queue has room for all that the agent's credit allows.
func (s *session) receive(ctx context.Context, queue *queue) error {
	for {
		m, err := s.conn.Receive()
		if err == io.EOF { //nolint:errorlint // a Bye; a line that is cut wraps it
			return errors.New("the agent left")
		} else if err != nil {
			return err
		}
		s.status.seen(time.Now())
		switch m := m.(type) {
		case *replication.Heartbeat:
			s.status.asOf(m.AsOf, time.Now())
			continue
		case *replication.Progress:
			s.progress(m)
			continue
		case *replication.CreditRequest:
			if err := s.moreCredit(); err != nil {
				return err
			}
			continue
		case *replication.Data:
			err = s.charge(m.Cost())
		case *replication.Zero:
			err = s.charge(m.Cost())
		case *replication.Disks, *replication.DigestRequest, *replication.Begin, *replication.Commit, *replication.Inventory, *replication.Renewal:
		default:
			err = protocolError("unexpected %T", m)
		}
		if err != nil {
			return err
		}
		if err := queue.put(ctx, m); err != nil {
			return err
		}
	}
}

func protocolError(format string, args ...any) *replication.Error {
	return &replication.Error{Code: replication.CodeProtocol, Text: fmt.Sprintf(format, args...), NextStep: "use an agent of the server's version"}
}

// charge holds the agent to its credit, which the last message may overdraw.
func (s *session) charge(n int) error {
	if !s.credit.charge(n) {
		return protocolError("more data than its credit allows")
	}
	return nil
}

// moreCredit answers an agent that has to wait for credit.
func (s *session) moreCredit() error {
	if s.version < replication.CreditVersion {
		return protocolError("a request for credit in version %d", s.version)
	}
	if n := s.credit.want(time.Now()); n > 0 {
		return s.conn.Send(&replication.Credit{Bytes: n})
	}
	return nil
}

// progress passes on how far the agent is. An agent that stalls makes no points.
func (s *session) progress(m *replication.Progress) {
	s.status.progress(m, time.Now())
	stalled := ""
	if m.Phase == replication.PhaseStalled {
		stalled = m.Text + ": " + m.NextStep
	}
	s.mu.Lock()
	s.stalled = stalled
	last := s.lastRequest
	s.mu.Unlock()
	if stalled != "" {
		s.answer(last, answer{err: fmt.Errorf("%w: %s", ErrNoPoint, stalled)})
	}
}

func (s *session) heartbeat(ctx context.Context) error {
	ticker := time.NewTicker(replication.HeartbeatEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if err := s.conn.Send(&replication.Heartbeat{}); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// reportEvery spaces the reports of progress; changes of state go out at once.
const reportEvery = 2 * time.Second

func (s *session) report(ctx context.Context) error {
	ticker := time.NewTicker(reportEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-s.status.urgent:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if r := s.status.take(); r.news {
			if err := s.tell(ctx, r); err != nil {
				s.status.again(r)
				if ctx.Err() == nil {
					s.srv.log.Error("report replication", "server", s.server, "err", err)
				}
			}
		}
	}
}

// tell reports each state that the server went through: the catalogue holds
// reports to the rules, which a state left out would break.
func (s *session) tell(ctx context.Context, r report) error {
	for _, state := range r.via {
		step := r.info
		step.State = state
		if err := s.srv.cfg.Catalog.ReportReplication(ctx, s.server, step, r.seen); err != nil {
			return err
		}
	}
	return s.srv.cfg.Catalog.ReportReplication(ctx, s.server, r.info, r.seen)
}

// lastReport records how the session left things, even while the server stops.
func (s *session) lastReport(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.tell(ctx, s.status.take()); err != nil {
		s.srv.log.Error("report replication", "server", s.server, "err", err)
	}
}
