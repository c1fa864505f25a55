package freeze

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrThawed: the bound had passed and the guard thawed the filesystems. What was
// read meanwhile is no moment in time.
var ErrThawed = errors.New("the filesystems were frozen for longer than allowed, and thawed by the guard")

// Frozen are filesystems that are held still.
type Frozen struct {
	// Whole tells whether all of the filesystems are frozen, Loose which are not: of some
	// types none can be (FAT and those that a process serves, for two), and those are only
	// flushed; some no path leads to, since another one is mounted over them.
	Whole bool
	Loose []Mount

	guard *Guard
	dirs  []*os.File // frozen, in the order they were
	since time.Time
	armed bool // the guard waits to be told that all is over
}

// StuckError: a filesystem does not get to what it was told within the bound, as when
// a disk or a server below it does not answer. What had been frozen goes on.
type StuckError struct {
	Dir  string
	Step string // flush or freeze
	For  time.Duration
}

func (e *StuckError) Error() string {
	return fmt.Sprintf("%s of %s has not come to an end in %s: what lies below it is slow or does not answer (dmesg)", e.Step, e.Dir, e.For.Round(time.Millisecond))
}

// Freeze flushes the filesystems, each for at most flush, and then freezes them, in the
// order given. They stay so until Thaw, but not longer than the bound. Until then whoever
// writes to them waits, so the caller must not: neither files nor, where logs may lie on
// them, logs.
//
// A *StuckError says that nothing is frozen, for one of them does not come to rest: it
// is left to that by itself, and until it is done all calls return the like.
func (g *Guard) Freeze(mounts []Mount, flush, bound time.Duration) (*Frozen, error) {
	if err := g.Stuck(); err != nil {
		return nil, err
	}
	var names []string
	var open []*os.File
	var reached, loose []Mount
	defer func() { closeAll(open) }()
	for _, m := range mounts {
		if m.hidden {
			loose = append(loose, m)
			continue
		}
		d, err := os.Open(m.Dir)
		if err != nil {
			return nil, fmt.Errorf("freeze %s: %w", m.Dir, err)
		}
		if !m.isAt(int(d.Fd()), "", unix.AT_EMPTY_PATH) { // since it was found
			loose = append(loose, m)
			_ = d.Close() // read only
			continue
		}
		// The most of the work, while everybody may go on.
		done := make(chan error, 1)
		go func() { done <- unix.Syncfs(int(d.Fd())) }()
		if err := g.await(&step{dir: m.Dir, what: "flush", since: time.Now(), done: done, last: func() { _ = d.Close() }}, flush); err != nil {
			return nil, err
		}
		names, open, reached = append(names, m.Dir), append(open, d), append(reached, m)
	}
	f := &Frozen{Whole: len(loose) == 0, Loose: loose, guard: g, since: time.Now()}
	if len(names) == 0 {
		return f, nil
	}
	if _, err := g.tell(order{Dirs: names, After: bound}); err != nil {
		return nil, err
	}
	f.armed = true
	for i, d := range open {
		if i == 1 && g.between != nil {
			g.between()
			g.between = nil
		}
		done := make(chan error, 1)
		go func() { done <- ioctl(d, fiFreeze) }()
		// What is frozen too late is thawed at once, by the guard if not from here. It
		// has the directory open for as long as it is not told that all is over.
		err := g.await(&step{dir: names[i], what: "freeze", since: time.Now(), done: done, last: func() {
			_ = ioctl(d, fiThaw) // of one that came to be frozen after all
			_ = d.Close()
			_, _ = g.tell(order{})
		}}, bound-time.Since(f.since))
		var late *StuckError
		switch {
		case err == nil:
			f.dirs = append(f.dirs, d)
			open[i] = nil
		case errors.As(err, &late):
			open[i] = nil
			f.release()
			return nil, err
		case errors.Is(err, unix.EOPNOTSUPP):
			f.Whole, f.Loose = false, append(f.Loose, reached[i])
		default: // EBUSY: somebody else has frozen it, and will thaw it when he likes
			_, _ = f.Thaw()
			return nil, err
		}
	}
	return f, nil
}

// step is a system call that nobody can end.
type step struct {
	dir, what string
	since     time.Time
	done      chan error // capacity 1
	last      func()     // to be done once it came to an end that nobody waited for
}

// await waits for a step, and leaves it to itself after a while.
func (g *Guard) await(s *step, most time.Duration) error {
	timer := time.NewTimer(max(most, 0))
	defer timer.Stop()
	select {
	case err := <-s.done:
		if err != nil {
			if s.what == "flush" {
				s.last()
			}
			return fmt.Errorf("%s %s: %w", s.what, s.dir, err)
		}
		return nil
	case <-timer.C:
		g.left = s
		return &StuckError{s.dir, s.what, time.Since(s.since)}
	}
}

// Stuck returns a *StuckError while a step that was left to itself has not come to its end.
func (g *Guard) Stuck() error {
	if g.left == nil {
		return nil
	}
	select {
	case <-g.left.done:
		g.left.last()
		g.left = nil
		return nil
	default:
		return &StuckError{g.left.dir, g.left.what, time.Since(g.left.since)}
	}
}

// release thaws what is frozen, while the guard goes on to watch over the rest.
func (f *Frozen) release() {
	for i := len(f.dirs) - 1; i >= 0; i-- {
		_ = ioctl(f.dirs[i], fiThaw) // or the guard has
	}
	closeAll(f.dirs)
	f.dirs = nil
}

// Thaw lets the filesystems go on, in the reverse order, and returns for how long
// they were held. ErrThawed says that they were not held to the end.
func (f *Frozen) Thaw() (time.Duration, error) {
	late := false
	var first error
	for i := len(f.dirs) - 1; i >= 0; i-- {
		switch err := ioctl(f.dirs[i], fiThaw); {
		case errors.Is(err, unix.EINVAL):
			late = true
		case err != nil && first == nil:
			first = fmt.Errorf("thaw %s: %w", f.dirs[i].Name(), err)
		}
	}
	held := time.Since(f.since)
	if f.armed {
		f.armed = false
		reply, err := f.guard.tell(order{})
		late = late || reply == "thawed\n"
		if first == nil {
			first = err
		}
	}
	closeAll(f.dirs)
	f.dirs = nil
	if first == nil && late {
		first = ErrThawed
	}
	return held, first
}
