package agent

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"lifeboat/internal/drs"
	"lifeboat/internal/replication"
	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/source/inventory"
)

// session is one connection to the replication server, from welcome to break.
type session struct {
	a       *agent
	conn    *replication.Conn
	server  drs.SourceServerID
	welcome *replication.Welcome
	// instance tells this session from all others.
	instance [16]byte
	owes     bool // a point, though nothing may have changed: a disk is new to the vault
	window   *replication.Window
	replies  chan replication.Message // Volumes and Digests, in the order asked for
	wake     chan struct{}            // capacity 1: settings or requests changed

	mu       sync.Mutex // covers what the receiver and the reporter share with the cutter
	settings replication.Config
	requests []uint64 // point requests not yet taken up
	progress replication.Progress
	asOf     time.Time // the disks equalled the newest point then; zero: not known
}

// session runs one session to its end, which is always an error. welcomed tells
// whether the server let the agent in.
func (a *agent) session(ctx context.Context) (welcomed bool, err error) {
	conn, err := replication.Dial(ctx, a.id.ReplicationAddress, &tls.Config{
		Certificates: []tls.Certificate{a.id.pair},
		RootCAs:      a.id.pool,
	})
	if err != nil {
		return false, explain(err)
	}
	// How closing goes is no matter: the server keeps what it committed, no more.
	defer func() { _ = conn.Close() }()
	handshake := context.AfterFunc(ctx, func() { _ = conn.Close() })

	hello := replication.Hello{Software: "lifeboat-agent " + a.cfg.Version}
	rand.Read(hello.Instance[:])
	welcome, err := conn.Greet(hello, a.inTheLobby())
	if err != nil {
		return false, a.explainRefusal(err)
	}
	a.log.Info("connected", "replication", a.id.ReplicationAddress, "head", welcome.HeadNumber, "software", welcome.Software)
	s := &session{
		a: a, conn: conn, instance: hello.Instance, server: a.id.SourceServerID, welcome: welcome,
		window:   replication.NewWindow(welcome.Credit),
		replies:  make(chan replication.Message, 16),
		wake:     make(chan struct{}, 1),
		settings: welcome.Settings,
	}
	s.progress.Phase = replication.PhaseScanning
	if a.complete && a.live != nil {
		s.progress.Phase = replication.PhaseBacklog // what came meanwhile is known; prepare may find otherwise
	}
	a.setThrottle(welcome.Settings.ThrottleMbps)
	a.cfg.Metrics.attach(a.disks.all)
	a.cfg.Metrics.sessions.Add(1)
	a.cfg.Metrics.connected.Store(true)

	a.settle(welcome.Version)
	handshake()
	group, inner := errgroup.WithContext(ctx)
	// The receiver sits in a read until the connection closes.
	ended := make(chan struct{})
	context.AfterFunc(inner, func() {
		defer close(ended)
		if ctx.Err() != nil {
			conn.End(&replication.Bye{Reason: "the agent stops"})
		}
		_ = conn.Close()
	})
	group.Go(func() error { return s.receive(inner) })
	group.Go(func() error { return s.report(inner) })
	group.Go(func() error { return s.replicate(inner) })
	err = group.Wait()
	<-ended
	return true, err
}

// settle has the disks as a server of that version takes them, before anything of the
// session looks at them.
func (a *agent) settle(version uint16) {
	a.mayLeave = version >= replication.ApartVersion
	for _, d := range a.disks.all {
		d.entire = false
		if !a.mayLeave {
			d.left = time.Time{} // waited for, as long as it takes
		}
	}
}

// inTheLobby tells of a server that lives and lets the agent wait.
func (a *agent) inTheLobby() (waits func()) {
	told, begun := false, time.Now()
	return func() {
		a.cfg.Status(fmt.Sprintf("CONNECTING: source server %s: the server lets this agent wait since %s; its log tells what for",
			a.id.SourceServerID, time.Since(begun).Round(time.Second)))
		if !told {
			told = true
			a.log.Info("the server is there, and lets this agent wait; its log tells what for", "replication", a.id.ReplicationAddress)
		}
	}
}

func (a *agent) setThrottle(mbps uint32) {
	a.throttle.Set(mbps)
	a.cfg.Metrics.throttle.Store(mbps)
}

// explainRefusal turns the TLS alert for this agent's certificate into advice.
func (a *agent) explainRefusal(err error) error {
	if replication.IsRemoteAlert(err) {
		return fmt.Errorf("the server does not accept this agent's certificate: if it was set up anew or this source server was "+
			"deleted, start the agent with an empty --state directory and a fresh install token: %w", err)
	}
	if errors.Is(err, replication.ErrSilent) {
		return fmt.Errorf("the server took the connection and does not say whether this agent may come in: its log and /readyz tell how it does: %w", err)
	}
	return err
}

// receive handles what the server sends.
func (s *session) receive(ctx context.Context) error {
	for {
		m, err := s.conn.Receive()
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				err = fmt.Errorf("the server closed the connection: %w", err)
			}
			return err
		}
		switch m := m.(type) {
		case *replication.Ack:
			if m.Point == "" {
				s.a.cfg.Metrics.progress.Add(1)
			}
			s.a.ledger.acknowledge(m)
		case *replication.Refused:
			s.a.cfg.Metrics.refused.Add(1)
			s.a.ledger.refuse(m) // credit comes back for what the server passes over
		case *replication.Credit:
			s.window.Give(m.Bytes)
		case *replication.Config:
			s.a.log.Info("settings changed", "epoch", m.EpochSpacing, "throttle_mbps", m.ThrottleMbps)
			s.a.setThrottle(m.ThrottleMbps)
			s.change(func() { s.settings = *m })
		case *replication.PointRequest:
			s.change(func() { s.requests = append(s.requests, m.Request) })
		case *replication.Heartbeat:
		case *replication.Certificate:
			if err := s.renewed(m); err != nil {
				return err
			}
		case *replication.Volumes, *replication.Digests:
			select {
			case s.replies <- m:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		default:
			return fmt.Errorf("unexpected %T from the server", m)
		}
	}
}

// change updates shared state and wakes the cutter.
func (s *session) change(f func()) {
	s.mu.Lock()
	f()
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// reportEvery is how often progress is told while it changes.
const reportEvery = time.Second

// report tells the server how far the agent is, and that it lives.
func (s *session) report(ctx context.Context) error {
	ticker := time.NewTicker(reportEvery)
	defer ticker.Stop()
	var told replication.Progress
	var toldAsOf time.Time
	last := time.Now()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := s.askRenewal(); err != nil {
			return err
		}
		now, asOf := s.snapshot()
		s.a.cfg.Metrics.look(&now, s.a.disks.told())
		s.a.cfg.Metrics.holds(asOf)
		var err error
		if now.Phase != told.Phase || now.Text != told.Text || !slices.Equal(now.Disks, told.Disks) {
			line := s.statusLine(&now)
			if now.Phase != told.Phase && now.Text == "" {
				s.a.log.Info("replication", "status", line) // what has a text was logged with its cause
			}
			told, last = now, time.Now()
			s.a.cfg.Status(line)
			err = s.conn.Send(&now)
		}
		if err == nil && (asOf.After(toldAsOf) || time.Since(last) >= replication.HeartbeatEvery) {
			toldAsOf, last = asOf, time.Now()
			err = s.conn.Send(&replication.Heartbeat{AsOf: asOf})
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) snapshot() (replication.Progress, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.progress
	backlog := s.a.ledger.backlog(s.a.disks.all)
	p.Disks = make([]replication.DiskProgress, 0, len(backlog))
	for i, d := range s.a.disks.all {
		if !d.left.IsZero() {
			continue // see told
		}
		unread := max(d.named.Load()-d.scanned.Load(), 0)
		p.Disks = append(p.Disks, replication.DiskProgress{Scanned: d.scanned.Load(), Backlog: unread + backlog[i]})
	}
	return p, s.asOf
}

// announce tells the server the machine and its disks and learns their volumes.
func (s *session) announce(ctx context.Context) ([]replication.Volume, error) {
	m := &replication.Disks{}
	for _, d := range s.a.disks.all {
		m.Disks = append(m.Disks, replication.Disk{Device: d.name, Size: d.size, State: s.state(d)})
	}
	m.DropOthers = s.a.cfg.DropMissing && s.a.mayLeave
	if s.welcome.Version >= replication.IdentityVersion && s.a.outside == nil {
		for i, identity := range inventory.DiskIdentities(s.a.disks.names()) {
			d := s.a.disks.all[i]
			if d.lost() == nil && identity != "" {
				d.identity = identity
			}
			m.Disks[i].Identity, s.a.props.Disks[i].Identity = d.identity, d.identity
		}
	}
	s.a.props.Tracker = s.a.tracker.Name()
	props, err := json.Marshal(s.a.told())
	if err != nil {
		return nil, fmt.Errorf("encode inventory: %w", err)
	}
	if err := s.conn.Queue(&replication.Inventory{JSON: props}); err != nil {
		return nil, err
	}
	if err := s.conn.Send(m); err != nil {
		return nil, err
	}
	reply, err := s.reply(ctx, "which volumes its disks are")
	if err != nil {
		return nil, err
	}
	volumes, ok := reply.(*replication.Volumes)
	if !ok || len(volumes.Volumes) != len(m.Disks) {
		return nil, fmt.Errorf("%w: %T in answer to the disks", replication.ErrMalformed, reply)
	}
	for i, v := range volumes.Volumes {
		s.a.disks.all[i].volume = v.ID
		s.owes = s.owes || !v.Known && !v.Apart
	}
	return volumes.Volumes, nil
}

// state is how a disk stands. Points of a machine that is protected from outside are of
// all its disks, and only once all of each was sent.
func (s *session) state(d *disk) replication.DiskState {
	switch {
	case !s.a.mayLeave:
		return replication.DiskPresent
	case !d.left.IsZero():
		return replication.DiskLeft
	case d.entire || s.a.outside != nil:
		return replication.DiskComplete
	}
	return replication.DiskPresent
}

// A reply that takes longer than replyTold is waited for with a word about it, and not
// for longer than replyWithin: the server lives, but its vault does not answer.
const (
	replyTold   = 20 * time.Second
	replyWithin = 5 * time.Minute
)

func (s *session) reply(ctx context.Context, what string) (replication.Message, error) {
	tell, over := time.NewTimer(replyTold), time.NewTimer(replyWithin)
	defer tell.Stop()
	defer over.Stop()
	for {
		select {
		case m := <-s.replies:
			return m, nil
		case <-tell.C:
			s.a.log.Warn("waiting for the server's answer; its log and /readyz tell how its vault does", "asked", what)
		case <-over.C:
			return nil, fmt.Errorf("the server lives and has not told %s within %s: its log and /readyz tell how its vault does", what, replyWithin)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// prepare makes the tables hold what the vault holds: as they are, when the head
// is the one last acknowledged; else by asking for the digests.
func (s *session) prepare(ctx context.Context) error {
	volumes, err := s.announce(ctx)
	if err != nil {
		return err
	}
	now := head{s.welcome.HeadNumber, s.welcome.HeadHash}
	if s.a.loaded && (now == s.a.ledger.at() || s.a.ledger.resolve(now, s.welcome.PointTaken)) {
		s.a.stand(s.standingAt(now))
		s.setJoining(volumes, false)
		return s.addTables(ctx, volumes)
	}
	s.resume(now)
	s.a.loaded = false
	if !s.reopenTables(now) {
		if err := s.createTables(); err != nil {
			return err
		}
		for i, d := range s.a.disks.all {
			if err := s.fill(ctx, d, volumes[i]); err != nil {
				return err
			}
		}
	}
	s.a.ledger.reset(now)
	s.a.loaded = true
	s.setJoining(volumes, true)
	return nil
}

// fill makes a new table hold what the vault holds.
func (s *session) fill(ctx context.Context, d *disk, v replication.Volume) error {
	if !v.Known || d.lost() != nil {
		return nil // read as a whole once it is back
	}
	if err := s.loadDigests(ctx, d); err != nil {
		return fmt.Errorf("ask what the vault holds of %s: %w", d.name, err)
	}
	return nil
}

// addTables gives disks that were added since the session before a table each.
func (s *session) addTables(ctx context.Context, volumes []replication.Volume) error {
	for i, d := range s.a.disks.all {
		if d.table != nil {
			continue
		}
		if err := s.createTable(d); err != nil {
			return err
		}
		if err := s.fill(ctx, d, volumes[i]); err != nil {
			return err
		}
		if !d.joining.Load() {
			s.a.complete = false // points wait for it
		}
	}
	return nil
}

// digestsInFlight is how many requests for digests are under way at once.
const digestsInFlight = 4

func (s *session) loadDigests(ctx context.Context, d *disk) error {
	asked, got := int64(0), int64(0)
	digests := make([]blocktrack.Digest, replication.MaxDigests)
	for got < d.table.Len() {
		for asked < d.table.Len() && asked-got < digestsInFlight*replication.MaxDigests {
			n := min(d.table.Len()-asked, replication.MaxDigests)
			if err := s.conn.Send(&replication.DigestRequest{Volume: d.volume, First: uint64(asked), Count: uint32(n)}); err != nil {
				return err
			}
			asked += n
		}
		m, err := s.reply(ctx, "what the vault holds of "+d.name)
		if err != nil {
			return err
		}
		reply, ok := m.(*replication.Digests)
		if !ok || reply.Volume != d.volume || reply.First != uint64(got) || int64(len(reply.Digests)) != min(d.table.Len()-got, replication.MaxDigests) {
			return fmt.Errorf("%w: %T out of order", replication.ErrMalformed, m)
		}
		for i, digest := range reply.Digests {
			digests[i] = digest
		}
		if err := d.table.Load(got, digests[:len(reply.Digests)]); err != nil {
			return err
		}
		got += int64(len(reply.Digests))
	}
	return nil
}
