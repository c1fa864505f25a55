package qemu

import (
	"errors"
	"time"
)

// freezer decides when the guest is frozen for a Swap.
type freezer struct {
	next  time.Time     // not before
	retry time.Duration // after the latest of a row that came to nothing
}

const (
	// freezeShare is the most of its time that a guest is frozen.
	freezeShare      = 0.1
	freezeRetryFirst = 5 * time.Second
	freezeRetryMost  = 5 * time.Minute
)

func (f *freezer) held(now time.Time, d time.Duration) {
	f.retry = 0
	f.next = now.Add(time.Duration(float64(d) * (1/freezeShare - 1)))
}

func (f *freezer) gaveUp(now time.Time) {
	f.retry = min(max(2*f.retry, freezeRetryFirst), freezeRetryMost)
	f.next = now.Add(f.retry)
}

func (t *Tracker) openGuard() error {
	if len(t.opts.Guard) == 0 {
		return nil
	}
	guard, err := StartGuard(t.opts.Guard)
	if err != nil {
		return err
	}
	t.guard = guard
	_, err = guard.tell(order{Op: opWatch, At: t.opts.Address, ID: t.id, Keep: t.opts.Keep != ""})
	if err == nil {
		err = t.lend()
	}
	if err != nil {
		t.guard = nil
		return errors.Join(err, guard.Close(false))
	}
	return nil
}

// freeze holds the guest's filesystems still, where that can be and is not too much.
// thaw must be called at once after what needs it; it tells for how long they were
// held and whether that was until then.
func (t *Tracker) freeze() (thaw func() (time.Duration, bool)) {
	nothing := func() (time.Duration, bool) { return 0, false }
	begun := time.Now()
	if t.guard == nil || !t.opts.freezable() || t.opts.Freeze <= 0 || begun.Before(t.freezer.next) {
		return nothing
	}
	if _, err := t.guard.tell(order{Op: opFreeze, Bound: t.opts.Freeze}); err != nil {
		t.freezer.gaveUp(time.Now())
		t.log.Warn("the guest's filesystems are not frozen: recovery points are crash-consistent", "err", err, "again_in", t.freezer.retry)
		return nothing
	}
	return func() (time.Duration, bool) {
		r, err := t.guard.tell(order{Op: opThaw})
		if err != nil { // the guard itself may be dead
			err = errors.Join(err, t.opts.thaw())
		}
		held := time.Since(begun)
		if err != nil || r.Late {
			t.freezer.gaveUp(time.Now())
			t.log.Error("the guest's filesystems were frozen for too long, and thawed by the guard", "err", err, "bound", t.opts.Freeze)
			return held, false
		}
		t.freezer.held(time.Now(), held)
		return held, true
	}
}

func (a Address) thaw() error {
	g, err := a.dialGuest(guestAnswers)
	if err != nil {
		return err
	}
	defer g.close()
	return g.thaw(guestAnswers)
}
