package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/replication"
)

// An agent that has said hello may have to wait: for the session before its own, which
// still has a write in the vault, and for the vault to open its branch. Meanwhile it hears
// that the server lives, and the log tells what it waits for; after a while it is told and
// sent away, to come again. What it waited for may go on in its session, which nothing
// of the next one overtakes.

const (
	// admitWithin is how long an agent may have to wait, and admitOldWithin one that takes
	// no heartbeats before the welcome: it gives up after replication.IdleTimeout.
	admitWithin    = 2 * time.Minute
	admitOldWithin = replication.IdleTimeout - 5*time.Second
	// lookWithin is how long the tables may take to tell about an agent.
	lookWithin = 15 * time.Second
	// tellAfter is how long a wait is nobody's business; then it is logged now and then.
	tellAfter, tellEvery = 5 * time.Second, 30 * time.Second
)

// lobby is where the agent of a session waits.
type lobby struct {
	s     *session
	what  atomic.Pointer[string] // it waits for
	leave func() error
}

// lobby begins the wait. ctx ends with it.
func (s *session) wait(ctx context.Context) (context.Context, *lobby) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended, left := make(chan struct{}), make(chan struct{})
	l := &lobby{s: s}
	l.waitsFor("its turn")
	go func() {
		defer close(ended)
		if why := l.watch(ctx, left); why != nil {
			cancel(why)
			s.conn.Refuse(why)
		}
	}()
	l.leave = func() error {
		select {
		case <-left:
			return nil
		default:
		}
		close(left)
		<-ended
		why, refused := errors.AsType[*replication.Error](context.Cause(ctx))
		cancel(nil)
		if refused {
			return why
		}
		return nil
	}
	return ctx, l
}

func (l *lobby) waitsFor(what string) { l.what.Store(&what) }

// watch returns why the agent has waited for too long, or nil when it left before.
func (l *lobby) watch(ctx context.Context, left <-chan struct{}) *replication.Error {
	s, begun := l.s, time.Now()
	within := s.srv.cfg.AdmitWithin
	var heartbeat <-chan time.Time
	if s.version >= replication.LobbyVersion {
		ticker := time.NewTicker(replication.HeartbeatEvery)
		defer ticker.Stop()
		heartbeat = ticker.C
	} else {
		within = min(within, admitOldWithin)
	}
	over := time.NewTimer(within)
	defer over.Stop()
	tell := time.NewTimer(tellAfter)
	defer tell.Stop()
	for {
		select {
		case <-heartbeat:
			if s.conn.Send(&replication.Heartbeat{}) != nil {
				heartbeat = nil // the session finds out
			}
		case <-tell.C:
			tell.Reset(tellEvery)
			s.srv.log.Warn("an agent waits to be let in", "server", s.server, "for", *l.what.Load(), "since", time.Since(begun).Round(time.Second))
		case <-over.C:
			why := &replication.Error{
				Code: replication.CodeBusy, Text: fmt.Sprintf("the server waits for %s since %s", *l.what.Load(), within.Round(time.Millisecond)),
				NextStep: "the server's log and /readyz tell how its vault does; the agent connects again by itself",
			}
			s.srv.log.Error("an agent is sent away, to come again", "server", s.server, "err", why)
			s.tellWait(ctx, why)
			return why
		case <-left:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// tellWait has the catalogue know why the agent is not let in.
func (s *session) tellWait(ctx context.Context, why *replication.Error) {
	s.srv.mu.Lock()
	admitted := s.admitted
	s.srv.mu.Unlock()
	if admitted { // else nothing is known of how the server stood
		s.status.fail(drs.FailedToCreateStagingDisks, why.Text, why.NextStep)
		s.lastReport(ctx)
	}
}
