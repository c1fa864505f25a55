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
}

// Freeze flushes the filesystems and then freezes them, in the order given. They
// stay so until Thaw, but not longer than the bound. Until then whoever writes to
// them waits, so the caller must not: neither files nor, where logs may lie on
// them, logs.
func (g *Guard) Freeze(mounts []Mount, bound time.Duration) (*Frozen, error) {
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
		names, open, reached = append(names, m.Dir), append(open, d), append(reached, m)
		// The most of the work, while everybody may go on.
		if err := unix.Syncfs(int(d.Fd())); err != nil {
			return nil, fmt.Errorf("freeze: flush %s: %w", m.Dir, err)
		}
	}
	f := &Frozen{Whole: len(loose) == 0, Loose: loose, guard: g, since: time.Now()}
	if len(names) == 0 {
		return f, nil
	}
	if _, err := g.tell(order{Dirs: names, After: bound}); err != nil {
		return nil, err
	}
	for i, d := range open {
		switch err := ioctl(d, fiFreeze); {
		case err == nil:
			f.dirs = append(f.dirs, d)
			open[i] = nil
		case errors.Is(err, unix.EOPNOTSUPP):
			f.Whole, f.Loose = false, append(f.Loose, reached[i])
		default: // EBUSY: somebody else has frozen it, and will thaw it when he likes
			_, _ = f.Thaw()
			return nil, fmt.Errorf("freeze %s: %w", names[i], err)
		}
	}
	return f, nil
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
	if len(f.dirs) > 0 {
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
