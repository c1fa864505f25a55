package agent

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"lifeboat/internal/replication"
	"lifeboat/internal/source/freeze"
)

// A disk that is written to all the time has no quiet pass. Where the tracker sees
// writes and the disk's filesystems can be frozen, they are, for the reading of
// what changed since the pass before: a frozen cut.
const (
	defaultFreezeBound = 2 * time.Second

	// A cut is tried once a pass found no more than freezeAt bytes, or at the end of
	// a burst of passes. Before it passes follow each other, at most convergeMost,
	// while each finds less than nearerShare of the one before and more than
	// convergedAt bytes.
	freezeAt     = 16 << 20
	convergeMost = 8
	nearerShare  = 0.7
	convergedAt  = 256 << 10
	// waitForCut is how long a cut that is not due yet is waited for at most.
	waitForCut = 2 * time.Second
	// frozenQueue packed chunks may wait for the line, so that it does not matter
	// how fast that is: 64 MiB at most, before packing.
	frozenQueue = 1024
	// freezeShare is the most of its time that a server is frozen.
	freezeShare = 0.1

	// flushMost is how long a filesystem may take to flush what it has, before it is frozen;
	// everybody goes on meanwhile.
	flushMost = 30 * time.Second

	freezeRetryFirst = 5 * time.Second
	freezeRetryMost  = 5 * time.Minute
)

const stuckAdvice = "see that the disk or server below it answers; cuts are tried again by themselves, and until then points are fuzzy"

// freezer decides when to freeze.
type freezer struct {
	guard *freeze.Guard // nil: never
	next  time.Time     // not before
	retry time.Duration // after the latest of a row of cuts that were given up
	loose []string      // filesystems that were not frozen for the latest cut
}

// openGuard starts the process that thaws what this one does not, where something
// may be frozen at all.
func (a *agent) openGuard() error {
	if len(a.cfg.Guard) == 0 || a.cfg.FreezeBound < 0 || a.live == nil || a.freezer.guard != nil {
		return nil
	}
	guard, err := freeze.StartGuard(a.cfg.Guard)
	if err != nil {
		return err
	}
	a.freezer.guard = guard
	return nil
}

// closeGuard ends the guard, which thaws what may still be frozen.
func (a *agent) closeGuard() {
	if a.freezer.guard != nil {
		if err := a.freezer.guard.Close(); err != nil {
			a.log.Warn("guard of frozen filesystems", "err", err)
		}
	}
}

// due tells whether filesystems may be frozen at a moment.
func (f *freezer) due(now time.Time) bool {
	if f.guard == nil {
		return false
	}
	_ = f.guard.Stuck() // what was is let go of soon; what still is frozenCut tells
	return !now.Before(f.next)
}

// convergedCut passes over the disks again for as long as each time clearly less has
// changed than before, and then cuts: what is left to read in the freeze is little.
// Where it stays too much, it is cut at the end of a burst of passes only. A cut that
// is due a little later is waited for: else it would come an epoch later.
func (c *cutter) convergedCut(ctx context.Context, before passResult) (sealed bool, err error) {
	if wait := time.Until(c.s.a.freezer.next); wait > 0 {
		if err := c.wait(ctx, wait); err != nil {
			return false, err
		}
		before.bytes = math.MaxInt64 // what came meanwhile is not known
	}
	for range convergeMost {
		if before.bytes <= convergedAt {
			break
		}
		result, err := c.pass(ctx, queued, func() error { return nil })
		c.unsealed = c.unsealed || result.chunks > 0
		if err != nil {
			return false, err
		}
		nearer := float64(result.bytes) < nearerShare*float64(before.bytes)
		before = result
		if !nearer {
			break
		}
	}
	if before.bytes > freezeAt && c.passes%burstPasses != burstPasses-1 {
		return false, nil
	}
	return c.frozenCut(ctx)
}

// held takes note of a cut.
func (f *freezer) held(now time.Time, d time.Duration) {
	f.retry = 0
	f.next = now.Add(time.Duration(float64(d) * (1/freezeShare - 1)))
}

// gaveUp takes note of one that came to nothing.
func (f *freezer) gaveUp(now time.Time) {
	f.retry = min(max(2*f.retry, freezeRetryFirst), freezeRetryMost)
	f.next = now.Add(f.retry)
}

// tellLoose says, when that is news, which filesystems could not be frozen.
func (a *agent) tellLoose(mounts []freeze.Mount) {
	var loose []string
	for _, m := range mounts {
		loose = append(loose, m.Dir+" ("+m.Type+")")
	}
	if slices.Equal(loose, a.freezer.loose) {
		return
	}
	a.freezer.loose = loose
	if len(loose) > 0 {
		a.log.Warn("some filesystems cannot be frozen, and were only flushed: recovery points are crash-consistent while they are mounted", "filesystems", loose,
			"next_step", "none is needed if they rest, as /boot/efi does; else unmount them, or mount them where nothing is mounted over them")
	}
}

// frozenCut freezes, reads and thaws, and seals a point if nothing was written
// meanwhile. sealed is false when this came to nothing; then the pass was one like
// others.
func (c *cutter) frozenCut(ctx context.Context) (sealed bool, err error) {
	a := c.s.a
	mounts, err := freeze.Mounts(a.disks.presentNames())
	if err != nil || len(mounts) == 0 {
		if err != nil {
			a.log.Warn("no frozen cut", "err", err)
		}
		a.freezer.gaveUp(time.Now())
		return false, nil
	}
	if err := a.freezer.guard.Stuck(); err != nil {
		a.log.Warn("no frozen cut", "err", err, "next_step", stuckAdvice)
		a.freezer.gaveUp(time.Now())
		return false, nil
	}
	application := a.hooks.before(ctx, a.log)
	// From here to the thaw the agent must not touch a file: it would wait for itself.
	a.holdTables(true)
	defer a.holdTables(false)
	c.ship.frozen = true
	defer func() { c.ship.frozen = false }()
	frozen, err := a.freezer.guard.Freeze(mounts, flushMost, a.cfg.FreezeBound)
	if err != nil {
		a.hooks.after(ctx, a.log)
		var stuck *freeze.StuckError
		if errors.As(err, &stuck) {
			a.log.Warn("no frozen cut", "err", err, "next_step", stuckAdvice)
		} else {
			a.log.Warn("no frozen cut", "err", err)
		}
		a.freezer.gaveUp(time.Now())
		a.cfg.Metrics.abandoned.Add(1)
		return false, nil
	}
	// Until the thaw: no file is touched, nothing is logged.
	var quiet bool
	var at time.Time
	var held time.Duration
	var thawErr error
	thawed := false
	thaw := func() {
		if !thawed {
			thawed = true
			held, thawErr = frozen.Thaw()
			application = a.hooks.after(ctx, a.log) && application
		}
	}
	result, err := c.pass(ctx, frozenQueue, func() (err error) {
		at = time.Now()
		quiet, err = a.live.Quiet()
		thaw()
		return err
	})
	thaw()
	c.unsealed = c.unsealed || result.chunks > 0
	if err != nil {
		return false, err
	}
	if thawErr == nil && held > a.cfg.FreezeBound {
		thawErr = fmt.Errorf("the filesystems were frozen for longer than %s", a.cfg.FreezeBound)
	}
	whole := quiet && thawErr == nil
	if !whole {
		if thawErr == nil {
			thawErr = errors.New("something else than the frozen filesystems wrote to the disks")
		}
		a.log.Warn("a frozen cut came to nothing", "err", thawErr, "freeze", held, "changed_bytes", result.bytes)
		a.freezer.gaveUp(time.Now())
		a.cfg.Metrics.abandoned.Add(1)
		return false, nil
	}
	consistency := replication.ConsistencyCrash
	switch {
	case frozen.Whole && application:
		consistency = replication.ConsistencyApplication
	case frozen.Whole:
		consistency = replication.ConsistencyFilesystem
	}
	a.freezer.held(time.Now(), held)
	a.tellLoose(frozen.Loose)
	a.log.Info("frozen cut", "freeze", held, "filesystems", len(mounts), "changed_bytes", result.bytes)
	if err := c.seal(ctx, replication.Commit{Taken: at, Consistency: consistency, Method: replication.MethodFrozen, Freeze: held}); err != nil {
		return false, err
	}
	c.restless, c.passes = time.Time{}, 0
	c.s.rest(at)
	return true, nil
}
