package ingest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/replication"
)

// Catalog is where the state of replication is recorded and looked up. Calls for
// different servers are concurrent.
type Catalog interface {
	// Admit tells what a session of this server begins with. ErrStopped makes the
	// agent ask again now and then; a *drs.Error, such as for a deleted server,
	// refuses it for good; any other error makes it try again.
	Admit(ctx context.Context, account string, server drs.SourceServerID) (Admission, error)
	// UpdateProperties records the inventory that an agent sent.
	UpdateProperties(ctx context.Context, server drs.SourceServerID, p drs.SourceProperties) error
	// ReportReplication records how replication stands; seen is when the agent
	// was last heard, zero for no news of it. A state that must not follow the
	// recorded one changes nothing but that: the report came too late.
	ReportReplication(ctx context.Context, server drs.SourceServerID, info drs.DataReplicationInfo, seen time.Time) error
	// AddPoint records a recovery point that is in the vault; again changes nothing.
	AddPoint(ctx context.Context, p drs.RecoveryPoint) error
}

// ErrStopped: the replication of the server was stopped by an order of the user.
var ErrStopped = errors.New("replication was stopped by StopReplication; StartReplication starts it again")

// Admission is what a session begins with.
type Admission struct {
	Replication drs.DataReplicationInfo // as last reported
	Settings    Settings
}

// Settings are what the user may change while a server replicates.
type Settings struct {
	EpochSpacing time.Duration // 0: the agent's choice
	ThrottleMbps int64         // 0: unlimited
	HoldNewDisks bool          // new disks of a machine are told, and not replicated by themselves
}

// wire is the message for an agent that speaks the version.
func (s Settings) wire(version uint16) replication.Config {
	return replication.Config{
		EpochSpacing: s.EpochSpacing, ThrottleMbps: uint32(min(max(s.ThrottleMbps, 0), 1<<31)),
		HoldNewDisks: s.HoldNewDisks && version >= replication.HostVersion,
	}
}

// Config is what a Server needs. Fields without a default must be set.
type Config struct {
	Vault   Vault
	Catalog Catalog
	// TLS asks for and verifies the certificates of agents; see iam.Authority.AgentTLS.
	TLS *tls.Config
	// Identify returns whose certificate a verified chain is; see iam.Authority.VerifyAgent.
	Identify func(chain []*x509.Certificate) (account string, server drs.SourceServerID, err error)
	// Revoked tells whether a server has another certificate now than this agent
	// shows: *drs.Error refuses the agent for good, any other error makes it try
	// again. nil: no certificate is ever replaced.
	Revoked func(ctx context.Context, server drs.SourceServerID, certificate *x509.Certificate) error
	// Renew issues the next certificate to the agent of a server that has shown
	// current; both are good until the next one is shown. nil: none is issued.
	Renew    func(ctx context.Context, server drs.SourceServerID, current *x509.Certificate, csr []byte) (certPEM []byte, err error)
	Software string // name and version of this program, told to agents
	// LostAfter is how long an agent may be away before its server has the error
	// AGENT_NOT_SEEN; 0: 2 minutes.
	LostAfter time.Duration
	// AdmitWithin is how long an agent may have to wait until its session begins, before it
	// is told why and sent away, to come again; 0: 2 minutes.
	AdmitWithin time.Duration
	// Credit is how many bytes of each agent may be on their way and not in the vault at
	// first, CreditMost how many an agent at the end of a long line may come to have, and
	// CreditTotal how many all of them together, but for the first MiB of each, which no
	// agent goes without; 0: 8 MiB, 64 MiB and 1 GiB.
	Credit, CreditMost uint32
	CreditTotal        int64
	Logger             *slog.Logger // nil: discard
}

const (
	defaultLostAfter = 2 * time.Minute
	defaultCredit    = 8 << 20
	defaultMost      = 64 << 20
	defaultTotal     = 1 << 30
)

// ErrAgentNotConnected: no agent of this server has a session now.
var ErrAgentNotConnected = errors.New("no agent of this source server is connected")

// Server takes in agents. Its methods are safe for concurrent use.
type Server struct {
	cfg Config
	log *slog.Logger

	credits *credits

	// losing is held while a lost agent is reported, and by an agent's admission:
	// the report never comes after one of a session. Taken before mu.
	losing sync.Mutex

	mu       sync.Mutex
	sessions map[drs.SourceServerID]*session // the newest of each server
	authors  map[drs.SourceServerID]author   // of the servers' heads, as far as they came while this runs
	absent   map[drs.SourceServerID]absence  // servers without an admitted agent
	wg       sync.WaitGroup                  // of sessions
}

// absence is a server whose agent is away.
type absence struct {
	since time.Time
	info  drs.DataReplicationInfo // as last reported
}

// New returns a server that waits for Serve.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.LostAfter == 0 {
		cfg.LostAfter = defaultLostAfter
	}
	if cfg.AdmitWithin == 0 {
		cfg.AdmitWithin = admitWithin
	}
	if cfg.Credit == 0 {
		cfg.Credit = defaultCredit
	}
	if cfg.CreditMost == 0 {
		cfg.CreditMost = defaultMost
	}
	if cfg.CreditTotal == 0 {
		cfg.CreditTotal = defaultTotal
	}
	return &Server{
		cfg: cfg, log: cfg.Logger,
		credits:  newCredits(cfg.CreditTotal, int64(cfg.Credit), int64(cfg.CreditMost)),
		sessions: map[drs.SourceServerID]*session{},
		authors:  map[drs.SourceServerID]author{},
		absent:   map[drs.SourceServerID]absence{},
	}
}

// Expect names a server whose agent should come, with what was last reported of
// it: it counts as not seen from now on. For the start of the program.
func (s *Server) Expect(server drs.SourceServerID, info drs.DataReplicationInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[server] == nil {
		s.absent[server] = absence{time.Now(), info}
	}
}

// Forget ends a server's session, if there is one, and expects it no more; its
// agent ends, too. For servers that are deleted or disconnected. When it returns,
// nothing of the session writes any more.
func (s *Server) Forget(server drs.SourceServerID, why string) {
	s.dismiss(server, &replication.Error{Code: replication.CodeForbidden, Text: why})
}

// Pause is Forget for a server whose replication is stopped: the agent goes on
// asking for a session.
func (s *Server) Pause(server drs.SourceServerID, why string) {
	s.dismiss(server, &replication.Error{Code: replication.CodeStopped, Text: why})
}

// Restart ends a server's session, if there is one, so that its agent begins
// another.
func (s *Server) Restart(server drs.SourceServerID, why string) {
	if session := s.session(server); session != nil {
		session.stop(&replication.Error{Code: replication.CodeBusy, Text: why, NextStep: "the agent connects again by itself"})
		<-session.done
	}
}

func (s *Server) dismiss(server drs.SourceServerID, why *replication.Error) {
	s.mu.Lock()
	session := s.sessions[server]
	delete(s.absent, server)
	s.mu.Unlock()
	if session != nil {
		session.stop(why)
		<-session.done
	}
	s.mu.Lock()
	delete(s.absent, server)
	s.mu.Unlock()
}

// Serve takes in agents on the listener until ctx is done; then it ends all
// sessions, waits for them and returns nil. It closes the listener.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.wg.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })() // Accept tells
	s.wg.Go(func() { s.watch(ctx) })
	for pause := time.Duration(0); ; {
		raw, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				raw.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept agents: %w", err)
		}
		if err != nil { // out of file descriptors, or the like: it may pass
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Error("accept agents", "err", err, "retry_in", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		s.wg.Go(func() { s.admit(ctx, raw) })
	}
}

// admit lets an agent in and runs its session.
func (s *Server) admit(ctx context.Context, raw net.Conn) {
	defer raw.Close()
	remote := raw.RemoteAddr().String()
	conn, state, err := replication.Accept(ctx, raw, s.cfg.TLS)
	if err != nil {
		s.log.Info("agent refused", "remote", remote, "err", err)
		return
	}
	account, server, err := s.cfg.Identify(state.PeerCertificates)
	if err != nil {
		s.log.Info("agent refused", "remote", remote, "err", err)
		conn.Refuse(&replication.Error{Code: replication.CodeForbidden, Text: err.Error()})
		return
	}
	if err := s.revoked(ctx, server, state.PeerCertificates[0]); err != nil {
		s.log.Info("agent refused", "remote", remote, "server", server, "err", err)
		refusal := &replication.Error{Code: replication.CodeBusy, Text: "the server cannot look up this agent's certificate now", NextStep: "the agent tries again by itself"}
		if final, ok := errors.AsType[*drs.Error](err); ok {
			refusal = &replication.Error{Code: replication.CodeForbidden, Text: final.Message}
		}
		conn.Refuse(refusal)
		return
	}
	hello, version, err := conn.AwaitHello()
	if err != nil {
		s.log.Info("agent refused", "remote", remote, "server", server, "err", err)
		return
	}
	session := newSession(s, conn, server, version)
	session.certificate, session.instance = state.PeerCertificates[0], hello.Instance
	session.credit = s.credits.join()
	waiting, lobby := session.wait(ctx)
	s.enter(session, lobby)
	s.log.Info("agent connected", "remote", remote, "server", server, "software", hello.Software)
	branch, err := session.welcome(waiting, account, lobby)
	if refused := lobby.leave(); refused != nil && err == nil {
		err = errors.Join(refused, branch.Close())
	} else if refused != nil {
		err = refused
	}
	if err == nil {
		err = session.run(ctx, branch)
	}
	s.log.Info("agent disconnected", "remote", remote, "server", server, "err", err)
	session.credit.leave()
	s.leave(session)
	close(session.done)
}

// revoked asks whether the certificate is still the server's.
func (s *Server) revoked(ctx context.Context, server drs.SourceServerID, certificate *x509.Certificate) error {
	if s.cfg.Revoked == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	return s.cfg.Revoked(ctx, server, certificate)
}

// enter makes the session its server's newest, and waits until the one before
// it is over: two never hold one branch.
func (s *Server) enter(session *session, lobby *lobby) {
	s.mu.Lock()
	older := s.sessions[session.server]
	s.sessions[session.server] = session
	s.mu.Unlock()
	if older != nil {
		lobby.waitsFor("the session before to end, which has a write in the vault")
		older.stop(&replication.Error{
			Code: replication.CodeSuperseded,
			Text: "an agent at " + session.conn.Remote() + " with the same identity has connected",
		})
		<-older.done
	}
}

// admitted ends the absence of the session's server. What the session reports
// comes after whatever was reported of the absence.
func (s *Server) admitted(session *session) {
	s.losing.Lock()
	defer s.losing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	session.admitted = true
	delete(s.absent, session.server)
}

// leave begins the absence of the session's server, which an agent that was not
// admitted did not interrupt: of its server the session knows nothing.
func (s *Server) leave(session *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if session.admitted {
		s.absent[session.server] = absence{time.Now(), session.status.info()}
	}
	if s.sessions[session.server] == session {
		delete(s.sessions, session.server)
	}
}

func (s *Server) session(server drs.SourceServerID) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[server]
}

// Connected tells whether an agent of the server has a session now.
func (s *Server) Connected(server drs.SourceServerID) bool {
	session := s.session(server)
	return session != nil && session.ready()
}

// Reconfigure tells a connected agent its settings, which hold from then on. It
// does nothing when none is connected: the next session begins with them.
func (s *Server) Reconfigure(server drs.SourceServerID, settings Settings) {
	if session := s.session(server); session != nil && session.ready() {
		config := settings.wire(session.version)
		if err := session.conn.Send(&config); err != nil {
			s.log.Info("settings not sent; the next session has them", "server", server, "err", err)
		}
	}
}
