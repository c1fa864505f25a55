package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/replication"
)

// ErrNoPoint is wrapped when a connected agent cannot make a point now.
var ErrNoPoint = errors.New("the agent cannot make a recovery point now")

// TakePoint asks the server's agent for a recovery point of now and returns it
// once it is durable. It was taken after the call; those who ask at the same time
// may get the same one, expected when the first of them asked. The point may be
// fuzzy, when the disks did not rest: the caller must look at its consistency.
//
// ErrAgentNotConnected comes at once when there is no session, and when it
// breaks meanwhile; ErrNoPoint as quickly when replication is stalled, and when the
// vault refuses what the agent sends: a full vault is for a person to mend, and who
// recovers has older points. Else TakePoint waits as long as ctx lets it.
func (s *Server) TakePoint(ctx context.Context, server drs.SourceServerID) (drs.RecoveryPoint, error) {
	session := s.session(server)
	if session == nil || !session.ready() {
		return drs.RecoveryPoint{}, fmt.Errorf("take a point of %s: %w", server, ErrAgentNotConnected)
	}
	point, err := session.takePoint(ctx)
	if err != nil {
		return drs.RecoveryPoint{}, fmt.Errorf("take a point of %s: %w", server, err)
	}
	return point, nil
}

// asked is somebody who waits for a point.
type asked struct {
	request uint64
	answer  chan answer // capacity 1
}

type answer struct {
	point drs.RecoveryPoint
	err   error
}

func (s *session) takePoint(ctx context.Context) (drs.RecoveryPoint, error) {
	s.mu.Lock()
	if why := cmp.Or(s.stalled, s.refused); why != "" {
		s.mu.Unlock()
		return drs.RecoveryPoint{}, fmt.Errorf("%w: %s", ErrNoPoint, why)
	}
	s.lastRequest++
	me := asked{s.lastRequest, make(chan answer, 1)}
	s.waiting = append(s.waiting, me)
	s.mu.Unlock()

	if err := s.conn.Send(&replication.PointRequest{Request: me.request}); err != nil {
		s.forget(me.request)
		return drs.RecoveryPoint{}, fmt.Errorf("%w: %w", ErrAgentNotConnected, err)
	}
	select {
	case a := <-me.answer:
		return a.point, a.err
	case <-s.done:
		return drs.RecoveryPoint{}, ErrAgentNotConnected
	case <-ctx.Done():
		s.forget(me.request)
		return drs.RecoveryPoint{}, context.Cause(ctx)
	}
}

// answer gives the point to all who asked up to the request it answers.
func (s *session) answer(request uint64, a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.waiting[:0]
	for _, w := range s.waiting {
		if w.request > request {
			kept = append(kept, w)
			continue
		}
		w.answer <- a
	}
	s.waiting = kept
}

// refuse ends the wait of all who asked, and of who will ask until accept: the
// vault takes no epochs, and how long is not known.
func (s *session) refuse(why string) {
	s.mu.Lock()
	s.refused = why
	last := s.lastRequest
	s.mu.Unlock()
	s.answer(last, answer{err: fmt.Errorf("%w: %s", ErrNoPoint, why)})
}

func (s *session) accept() {
	s.mu.Lock()
	refused := s.refused
	s.refused = ""
	s.mu.Unlock()
	if refused != "" {
		s.srv.log.Info("the vault takes epochs again", "server", s.server)
	}
}

// logRefusal tells of an epoch that the vault did not take; where nothing has changed
// since the one before, in a lower voice: agents come again every few seconds.
func (s *session) logRefusal(epoch uint64, told string, err error) {
	s.mu.Lock()
	again := strings.HasPrefix(s.refused, told)
	s.mu.Unlock()
	level := slog.LevelError
	if again {
		level = slog.LevelDebug
	}
	s.srv.log.Log(context.Background(), level, "epoch refused", "server", s.server, "epoch", epoch, "err", err)
}

func (s *session) forget(request uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.waiting[:0]
	for _, w := range s.waiting {
		if w.request != request {
			kept = append(kept, w)
		}
	}
	s.waiting = kept
}

// point is the recovery point that a commit asks for, as far as it is believed.
//
// Its time is the agent's, held between the point before and the server's clock:
// a source whose clock is wrong makes no points of the future and none that are
// older than what they follow. Should the server's clock have been set back, then
// that clock counts; which of two points is newer is for their epochs to say.
//
// Its consistency is at most what its method can prove.
func (w *worker) point(m *replication.Commit, now time.Time) *drs.RecoveryPoint {
	p := &drs.RecoveryPoint{
		ID: drs.NewRecoverySnapshotID(), SourceServer: w.s.server,
		Taken: m.Taken, Consistency: drs.Fuzzy, Method: drs.NoGuarantee,
	}
	if before := w.head.LastPoint; before != nil {
		p.Taken = later(p.Taken, before.Taken)
	}
	p.Taken = earlier(p.Taken, now)
	p.Expected = earlier(m.Expected, p.Taken)
	switch m.Method {
	case replication.MethodQuietPass:
		p.Method = drs.QuietPass
		if m.Consistency != replication.ConsistencyFuzzy {
			p.Consistency = drs.CrashConsistent
		}
	case replication.MethodFrozen, replication.MethodCopyBeforeWrite:
		p.Method, p.Freeze = drs.Frozen, m.Freeze
		if m.Method == replication.MethodCopyBeforeWrite {
			p.Method = drs.CopyBeforeWrite
		}
		switch m.Consistency {
		case replication.ConsistencyCrash:
			p.Consistency = drs.CrashConsistent
		case replication.ConsistencyFilesystem:
			p.Consistency = drs.FilesystemConsistent
		case replication.ConsistencyApplication:
			p.Consistency = drs.ApplicationConsistent
		}
	}
	return p
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
