package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/replication"
	"lifeboat/internal/source/blocktrack"
)

// cutter decides when to read the disks and what the result may be called.
type cutter struct {
	s      *session
	ship   *shipper
	packer *compressor

	bulk bool // much to send: spare the processor
	// unsealed: the vault holds changes since the newest consistent point.
	unsealed    bool
	restless    time.Time // when the first pass without rest began; zero: at rest
	passes      int       // without rest since then
	lastFuzzy   time.Time
	lastStart   time.Time
	lastTook    time.Duration
	retry       time.Duration // pause after the latest of a row of refusals or stalls
	answering   []uint64      // point requests taken up
	askedAt     time.Time     // when the oldest of them was
	triesToRest int           // passes made for them
	looked      time.Time     // when the machine's disks were last looked at
}

// While the disks change, passes follow each other without pause, burstPasses of
// them to an epoch spacing: a quiet pass must come right after another. A point
// asked for that finds no rest in requestPasses is sealed fuzzy.
const (
	burstPasses   = 3
	requestPasses = 5

	retryFirst = 500 * time.Millisecond
	retryMost  = 30 * time.Second
)

// replicate is the cutter's loop: a pass, what it means, a pause.
func (s *session) replicate(ctx context.Context) error {
	packer, err := newCompressor(s.a.cfg.Workers)
	if err != nil {
		return err
	}
	if err := s.prepare(ctx); err != nil {
		return err
	}
	c := &cutter{
		s: s, packer: packer, ship: &shipper{s: s},
		bulk:     !s.a.complete,
		unsealed: !s.welcome.Sealed || s.owes || s.a.owed,
	}
	if gone := s.a.disks.absent(); gone != nil {
		c.tellGone(gone)
	}
	for {
		c.takeRequests()
		err := c.turn(ctx)
		if err == nil {
			err = c.join(ctx)
		}
		if err != nil {
			if err := c.recover(ctx, err); err != nil {
				return err
			}
			continue
		}
		c.retry = 0
		s.settle()
		if err := c.pause(ctx); err != nil {
			return err
		}
	}
}

// turn is a pass and what it means. Where the tracker sees that nothing was written
// since the last one, no disk is read.
func (c *cutter) turn(ctx context.Context) error {
	c.lastStart, c.lastTook = time.Now(), 0
	start := c.lastStart
	if err := c.watchDisks(ctx); err != nil {
		return err
	}
	rest, err := c.s.a.atRest()
	if err != nil {
		return err
	}
	if rest && c.s.a.disks.absent() != nil {
		return nil //nolint:nilerr // watchDisks told of it; without the disk there is no point
	}
	if rest {
		if err := c.conclude(ctx, start, true, passResult{}); err != nil {
			return err
		}
		return c.auditSome(ctx)
	}
	if c.s.a.outside != nil {
		return c.heldCut(ctx)
	}
	quiet := false
	result, err := c.pass(ctx, queued, func() (err error) {
		if c.s.a.live != nil {
			start = time.Now()
			quiet, err = c.s.a.live.Quiet()
		}
		return err
	})
	c.took()
	c.unsealed = c.unsealed || result.chunks > 0
	if err != nil {
		return err
	}
	if c.s.a.live == nil {
		// Nothing changed between the pass before and this one: all disks were as the
		// vault has them at the moment this pass began.
		quiet = result.chunks == 0 && c.s.a.complete
	}
	c.s.a.complete, c.bulk = true, false
	if c.s.a.disks.absent() != nil {
		return c.ship.commit(ctx, replication.Commit{}) // a point is of all disks
	}
	if c.s.a.live != nil && !quiet && c.s.a.freezer.due(time.Now().Add(min(c.s.spacing(), waitForCut))) {
		sealed, err := c.convergedCut(ctx, result)
		c.took()
		if err != nil || sealed {
			return err
		}
	}
	return c.conclude(ctx, start, quiet, result)
}

func (c *cutter) took() { c.lastTook = time.Since(c.lastStart) }

// conclude decides what a whole pass amounts to. quiet: all disks are at the moment
// start what the vault has been sent.
func (c *cutter) conclude(ctx context.Context, start time.Time, quiet bool, result passResult) error {
	if result.chunks > 0 {
		c.s.a.log.Debug("pass", "changed_bytes", result.bytes, "sent_bytes", result.sent, "dur", c.lastTook)
	}
	if quiet {
		c.restless, c.passes = time.Time{}, 0
		if cached := c.s.a.disks.cached(); cached != nil {
			return c.concludeCached(ctx, start, cached)
		}
		if c.unsealed || len(c.answering) > 0 {
			if err := c.seal(ctx, replication.Commit{Taken: start, Consistency: replication.ConsistencyCrash, Method: replication.MethodQuietPass}); err != nil {
				return err
			}
		}
		c.s.rest(start)
		return nil
	}
	if c.restless.IsZero() {
		c.restless = start
	}
	c.passes++
	if len(c.answering) > 0 {
		c.triesToRest++
	}
	if result.chunks > 0 {
		c.s.phase(replication.PhaseBacklog, "", "")
	}
	impatient := c.triesToRest >= requestPasses
	overdue := start.Sub(c.restless) >= c.s.a.cfg.FuzzyAfter && start.Sub(c.lastFuzzy) >= c.s.a.cfg.FuzzyAfter
	if c.unsealed && (impatient || overdue) {
		c.s.a.log.Warn("disks did not rest: sealing a fuzzy point", "since", c.restless.UTC(), "passes", c.passes)
		if err := c.seal(ctx, replication.Commit{Taken: time.Now(), Consistency: replication.ConsistencyFuzzy}); err != nil {
			return err
		}
		c.lastFuzzy, c.unsealed = start, true // a consistent point is still owed
		return nil
	}
	if c.passes%burstPasses == 0 {
		return c.ship.commit(ctx, replication.Commit{}) // what was sent is kept, and no point
	}
	return nil
}

// concludeCached is conclude for a quiet pass that proves nothing: the page cache
// of some disks may have hidden writes of a mounted filesystem from it. The
// vault has what could be seen, and never is it said to equal the disks.
func (c *cutter) concludeCached(ctx context.Context, start time.Time, cached []string) error {
	if c.unsealed || len(c.answering) > 0 {
		c.s.a.log.Warn("disks are read through the page cache: sealing a fuzzy point", "disks", cached)
		if err := c.seal(ctx, replication.Commit{Taken: start, Consistency: replication.ConsistencyFuzzy}); err != nil {
			return err
		}
	}
	c.s.phase(replication.PhaseContinuous, "", "")
	return nil
}

// seal commits a recovery point, of which the caller tells when and how it was taken,
// and waits until it is durable.
func (c *cutter) seal(ctx context.Context, commit replication.Commit) error {
	if err := c.ship.begin(); err != nil {
		return err
	}
	commit.Point, commit.Expected = true, commit.Taken
	if c.s.welcome.Version < replication.HostVersion {
		commit.Freeze = 0
	}
	if len(c.answering) > 0 {
		// Requests may come in another order than they were numbered in.
		commit.Request, commit.Expected = slices.Max(c.answering), c.askedAt
	}
	begun := time.Now()
	if err := c.ship.commit(ctx, commit); err != nil {
		return err
	}
	refused, err := c.s.a.ledger.await(ctx, c.ship.last)
	if err != nil {
		return err
	}
	if refused != nil {
		return errRefused
	}
	c.s.a.cfg.Metrics.points[commit.Consistency].Add(1)
	if commit.Consistency != replication.ConsistencyFuzzy {
		c.s.a.cfg.Metrics.holds(commit.Taken)
	}
	if commit.Freeze > 0 {
		c.s.a.cfg.Metrics.freezes.Observe(commit.Freeze.Seconds())
	}
	c.unsealed, c.answering, c.triesToRest, c.s.a.owed = false, nil, 0, false
	// Not a line for each in a journal on a disk that is replicated: it would be a change
	// for the next point, for ever.
	c.s.a.log.Debug("recovery point", "taken", commit.Taken.UTC(), "consistency", consistencyNames[commit.Consistency],
		"epoch", c.s.a.ledger.at().number, "dur", time.Since(begun))
	return nil
}

var consistencyNames = map[uint8]drs.Consistency{
	replication.ConsistencyFuzzy:       drs.Fuzzy,
	replication.ConsistencyCrash:       drs.CrashConsistent,
	replication.ConsistencyFilesystem:  drs.FilesystemConsistent,
	replication.ConsistencyApplication: drs.ApplicationConsistent,
}

// takeRequests takes up the point requests that came in: the next pass begins
// after them all.
func (c *cutter) takeRequests() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if len(c.s.requests) > 0 && len(c.answering) == 0 {
		c.askedAt, c.triesToRest = time.Now(), 0
	}
	c.answering = append(c.answering, c.s.requests...)
	c.s.requests = nil
}

// recover deals with what ended a pass or a commit. It returns the errors that
// end the session.
func (c *cutter) recover(ctx context.Context, err error) error {
	if c.retry = min(2*c.retry, retryMost); c.retry == 0 {
		c.retry = retryFirst
	}
	var gone *blocktrack.GoneError
	var shrunk *blocktrack.ShrunkError
	var unreadable *blocktrack.ReadError
	var table *blocktrack.TableError
	var hindered *blocktrack.HinderedError
	switch refused := c.asRefusal(err); {
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	case refused != nil:
		c.s.phase(replication.PhaseBacklog, refused.Text, refused.NextStep)
		c.s.a.rollback()
		c.ship.abandon()
		wait := max(refused.RetryAfter, jitter(c.retry))
		c.s.a.log.Warn("server refused the epoch", "err", refused.Text, "next_step", refused.NextStep, "retry_in", wait)
		return c.wait(ctx, wait)
	case errors.Is(err, blocktrack.ErrGrown):
		c.retry = 0
		return c.grow(ctx)
	case c.s.a.goneOutside(ctx, err):
		return c.goOnWithout(ctx, err)
	case errors.As(err, &gone) && c.s.a.outside != nil:
		return c.stall(ctx, err, "start the machine, and give it its disks back; replication then goes on by itself")
	case errors.As(err, &gone) && c.s.a.disks.loseGone(err):
		return c.goOnWithout(ctx, err)
	case errors.As(err, &gone):
		return c.stall(ctx, err, "attach the disk again or put the file back; replication then goes on by itself")
	case errors.As(err, &hindered):
		return c.stall(ctx, err, hindered.NextStep)
	case errors.As(err, &shrunk):
		return c.stall(ctx, err, "give the disk its size back; or, to protect it as it is now, register it as a new server with an empty --state directory")
	case errors.As(err, &unreadable):
		return c.stall(ctx, err, "check the disk (dmesg, smartctl) and replace it; what was replicated stays recoverable")
	case errors.As(err, &table):
		return c.stall(ctx, err, "make room on the filesystem of the agent's state directory: it needs 2 MiB for each GiB that the disks hold")
	}
	return err
}

// stall reports a disk that cannot be replicated, keeps what was read before,
// and tries again later with all disks opened afresh.
func (c *cutter) stall(ctx context.Context, err error, next string) error {
	c.s.phase(replication.PhaseStalled, err.Error(), next)
	wait := jitter(max(c.retry, time.Second))
	c.s.a.log.Error("replication stalls", "err", err, "next_step", next, "retry_in", wait)
	if c.s.a.outside == nil {
		c.s.a.distrust()
	}
	if c.s.a.ledger.refusal() == nil {
		if err := c.ship.commit(ctx, replication.Commit{}); err != nil {
			return err
		}
	}
	if err := c.wait(ctx, wait); err != nil {
		return err
	}
	if c.s.a.outside != nil {
		c.s.phase(replication.PhaseScanning, "", "")
		return nil
	}
	if err := c.s.a.disks.reopen(); err != nil {
		c.s.a.log.Debug("disk still not as it was", "err", err)
		c.s.a.rescan(diskReturned)
		return nil // the next pass meets it again
	}
	if err := c.s.a.openTracker(); err != nil {
		return err
	}
	if c.s.a.disks.absent() == nil { // else what was told stands
		c.s.phase(replication.PhaseScanning, "", "")
	}
	return nil
}

// grow tells the server the new sizes, between epochs.
func (c *cutter) grow(ctx context.Context) error {
	if err := c.ship.commit(ctx, replication.Commit{}); err != nil {
		return err
	}
	// Digests in the ledger's undo lists must not come back into a grown table.
	if refused, err := c.s.a.ledger.await(ctx, c.ship.last); err != nil {
		return err
	} else if refused != nil {
		return c.recover(ctx, errRefused)
	}
	for i, d := range c.s.a.disks.all {
		if d.lost() != nil {
			continue
		}
		size, err := d.dev.Size()
		if err != nil {
			return c.recover(ctx, err)
		}
		if size > d.size {
			added := []blocktrack.Range{{Offset: d.size, Length: size - d.size}}
			c.s.a.todo[i] = blocktrack.Union(c.s.a.todo[i], blocktrack.Changes{Ranges: added})
			c.s.a.log.Info("disk grew", "disk", d.name, "from", d.size, "to", size)
			d.size = size
			d.meter.size.Store(size)
			if err := d.table.Grow(size); err != nil {
				return c.recover(ctx, err)
			}
		}
	}
	for i, d := range c.s.a.disks.all {
		c.s.a.props.Disks[i].Bytes = d.size
	}
	c.unsealed = true
	if err := c.s.a.openTracker(); err != nil {
		return err
	}
	if _, err := c.s.announce(ctx); err != nil {
		return fmt.Errorf("announce grown disks: %w", err)
	}
	return nil
}

// pause waits for the next pass: the epoch spacing, and, where passes read all disks,
// no more than a bounded share of the time in passes. With a tracker no pass is for
// nothing: one that took longer than the spacing is followed at once by the next, of
// all that changed meanwhile, so that epochs grow with the backlog and not in number. A
// point request ends the pause.
func (c *cutter) pause(ctx context.Context) error {
	if len(c.answering) > 0 || c.passes%burstPasses != 0 {
		return nil
	}
	rested := time.Now()
	if c.s.a.live == nil {
		share := idleShare
		if !c.restless.IsZero() {
			share = busyShare
		}
		rested = rested.Add(time.Duration(float64(c.lastTook) * (1/share - 1)))
	}
	for {
		until := rested
		if next := c.lastStart.Add(c.s.spacing()); next.After(until) {
			until = next
		}
		left := time.Until(until)
		if c.asked() || left <= 0 {
			return nil
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-c.s.wake:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		timer.Stop()
	}
}

func (c *cutter) wait(ctx context.Context, d time.Duration) error {
	if !sleep(ctx, d) {
		return context.Cause(ctx)
	}
	return nil
}

func (s *session) spacing() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.a.cfg.Epoch > 0:
		return s.a.cfg.Epoch
	case s.settings.EpochSpacing > 0:
		return s.settings.EpochSpacing
	}
	return defaultEpoch
}

// phase tells the server, with the next report, what the agent is at.
func (s *session) phase(p replication.Phase, text, next string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.progress.Phase, s.progress.Text, s.progress.NextStep = p, text, next
	s.asOf = time.Time{}
}

// rest says that the disks equalled the newest point at a moment.
func (s *session) rest(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.progress.Phase, s.progress.Text, s.progress.NextStep = replication.PhaseContinuous, "", ""
	s.asOf = at
}
