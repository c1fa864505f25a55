package qemu

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/internal/source/blocktrack"
)

// Room that a folder for copies must have, in bytes: for a cut to begin; for the agent
// to go on with it; and for its guard to leave it to the agent.
const (
	roomFirst = 256 << 20
	roomLeast = 128 << 20
	roomLast  = 96 << 20
)

// lookAgain is when to look at the room next: before the fastest of disks could have
// filled what there is above a limit. It is at least a moment, since room may come
// back.
func lookAgain(room, limit int64) time.Duration {
	const fastest = 2 << 30 // bytes in a second
	fills := time.Duration(float64(room-limit) / fastest * float64(time.Second))
	return min(max(fills, 5*time.Millisecond), 100*time.Millisecond)
}

func enoughRoom(dir string) error {
	room, err := room(dir)
	if err == nil && room < roomFirst {
		err = fmt.Errorf("%d MiB are free, a cut needs %d MiB", room>>20, roomFirst>>20)
	}
	if err != nil {
		return &blocktrack.HinderedError{Err: fmt.Errorf("scratch folder %s: %w", dir, err), NextStep: "make room in it, or name another one with --scratch"}
	}
	return nil
}

func room(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// mind gives the cut up before the copies fill the folder: QEMU fails the guest's
// writes when a copy cannot be made. Should this process be stopped meanwhile, or too
// slow, its guard does.
func (c *cut) mind(ctx context.Context, t *Tracker, m *machine, dir string) {
	free := int64(roomLeast)
	for {
		timer := time.NewTimer(lookAgain(free, roomLeast))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		var err error
		if free, err = room(dir); err == nil && free >= roomLeast {
			continue
		}
		c.broken.Store(true)
		// It fails with the connection only, whose next one removes the jobs.
		if m.cancel(context.WithoutCancel(ctx), c.names) == nil {
			_, _ = t.letGo() // of a guard that is dead there is nothing to take back
		}
		return
	}
}

// errGuard: nobody would end the copying if this process could not.
var errGuard = errors.New("the agent's guard cannot be had")

// hold has the guard mind the room from now on, as well. A guard that has died is
// replaced.
func (t *Tracker) hold(c *cut) error {
	if t.guard == nil {
		return nil
	}
	o := order{Op: opHold, ID: c.names, Dir: t.scratch}
	_, err := t.guard.tell(o)
	var refused *refusal
	if err != nil && !errors.As(err, &refused) {
		t.log.Warn("the guard has died: another one is started", "err", err)
		_ = t.guard.Close(false) // it tells no more than that
		t.guard = nil
		if err = t.openGuard(); err == nil {
			_, err = t.guard.tell(o)
		}
	}
	if err != nil {
		return &blocktrack.HinderedError{Err: fmt.Errorf("%w: %w", errGuard, err), NextStep: "see the agent's log, and start it again"}
	}
	return nil
}

// letGo ends what hold began. It tells whether the guard gave the cut up.
func (t *Tracker) letGo() (broken bool, err error) {
	if t.guard == nil {
		return false, nil
	}
	r, err := t.guard.tell(order{Op: opLetGo})
	return r.Late, err
}

// lend gives the guard a hold on the connection: where QEMU serves one client at a time
// the guard has to end it to be served.
func (t *Tracker) lend() error {
	own, is := t.m.monitor.(*ownSocket)
	if t.guard == nil || !is {
		return nil
	}
	_, err := t.guard.lend(order{Op: opLine}, own.raw)
	return err
}
