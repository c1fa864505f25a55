package vault

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/envelope"
)

// Clocks are what a machine knows of time.
type Clocks interface {
	// Wall is the time of day. It may be wrong, and may be set by any amount at any time.
	Wall() time.Time
	// Uptime is how long the machine has run, and which of its runs this is. Nobody sets it.
	Uptime() (run string, up time.Duration)
}

// machineClocks are those of this machine.
type machineClocks struct{ run string }

func newMachineClocks() machineClocks {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(id) == 0 {
		return machineClocks{rand.Text()} // each process is a run of its own then
	}
	return machineClocks{strings.TrimSpace(string(id))}
}

func (machineClocks) Wall() time.Time { return time.Now().Round(0) }

func (c machineClocks) Uptime() (string, time.Duration) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return c.run, 0 // Linux before 2.6.39: time stands still, and nothing is dropped
	}
	return c.run, time.Duration(t.Nano())
}

const (
	// maxUnseen is how much time the vault believes went by while no process that keeps its
	// clock ran on a machine that has not been restarted since: the time of day alone
	// would have to be believed for more.
	maxUnseen = 5 * time.Minute
	// grain is of the difference between the vault's clock and the time of day: without it
	// dates would not be the same twice when they are translated.
	grain = time.Minute
)

// A clock begins between these, whatever the machine says.
var earliest, latest = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// clock is the vault's own time. It goes as fast as the machine runs, never backwards, and
// is not moved by setting the machine's clock. Safe for concurrent use.
type clock struct {
	clocks Clocks

	mu  sync.Mutex
	at  time.Time     // what it showed; guarded by mu
	run string        // of the machine, when it did; guarded by mu
	up  time.Duration // likewise; guarded by mu
}

// mark is what is kept of the clock.
type mark struct {
	Time time.Time     `json:"time"` // of the vault
	Wall time.Time     `json:"wall"` // of the machine at that moment
	Run  string        `json:"run"`
	Up   time.Duration `json:"up"` // in nanoseconds
}

// newClock goes on from a mark; nil: it begins now.
func newClock(clocks Clocks, last *mark) *clock {
	c := &clock{clocks: clocks}
	c.run, c.up = clocks.Uptime()
	wall := clocks.Wall().UTC()
	switch {
	case last == nil:
		c.at = wall
	case last.Run == c.run && c.up >= last.Up:
		c.at = last.Time.Add(c.up - last.Up)
	default:
		c.at = last.Time.Add(max(0, min(wall.Sub(last.Wall), maxUnseen)))
	}
	c.at = earlier(later(c.at, earliest), latest).Round(0).UTC()
	return c
}

// now is the vault's time.
func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nowLocked()
}

func (c *clock) nowLocked() time.Time {
	run, up := c.clocks.Uptime()
	if run == c.run && up > c.up {
		c.at = c.at.Add(up - c.up)
	}
	c.run, c.up = run, up
	return c.at
}

// atLeast moves a clock that lost its mark to what the vault has seen of it.
func (c *clock) atLeast(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nowLocked()
	c.at = later(c.at, t)
}

func (c *clock) mark() mark {
	c.mu.Lock()
	defer c.mu.Unlock()
	return mark{Time: c.nowLocked(), Wall: c.clocks.Wall().UTC(), Run: c.run, Up: c.up}
}

// Skew is how far the vault's clock is ahead of the machine's time of day; negative:
// behind. Where the machine's clock was set, or the vault was away for more than minutes
// on a machine that was restarted, it is not zero. In whole minutes.
func (v *Vault) Skew() time.Duration {
	if v.clock == nil {
		return 0
	}
	return v.clock.now().Sub(v.clock.clocks.Wall()).Round(grain)
}

// Now is the vault's own clock, by which points grow old and locks end. See Options.Clocks.
func (v *Vault) Now() time.Time { return v.now() }

// shown is a moment of the vault's clock in the machine's time of day.
func (v *Vault) shown(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(-v.Skew())
}

// KeepClock notes the vault's time in the store, durably, so that it goes on from there
// when the machine is restarted. It is for the owner of the vault to call now and then.
func (v *Vault) KeepClock(ctx context.Context) error {
	if v.clock == nil {
		return nil
	}
	body, err := json.Marshal(v.clock.mark())
	if err == nil {
		err = v.clockDocuments().put(ctx, body, nil)
	}
	if err != nil {
		return fmt.Errorf("note the vault's time: %w", err)
	}
	return nil
}

// startClock goes on from what was noted last. Without a note that can be read the
// machine is believed, until a point shows that it is later.
func (v *Vault) startClock(ctx context.Context, clocks Clocks) error {
	body, number, err := v.clockDocuments().newest(ctx)
	if errors.Is(err, ErrAbsent) {
		v.clock = newClock(clocks, nil)
		return nil
	}
	var last mark
	if err == nil {
		if jsonErr := json.Unmarshal(body, &last); jsonErr != nil {
			err = &CorruptError{Object: clockName(number), Offset: envelope.HeaderSize, Reason: "impossible body: " + jsonErr.Error()}
		}
	}
	if damaged(err) {
		v.log.Warn("the vault's time is not known any more, and goes on from this machine's: see that it is right", "err", err)
		v.clock = newClock(clocks, nil)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the vault's time: %w", err)
	}
	v.clock = newClock(clocks, &last)
	return nil
}

func (v *Vault) clockDocuments() documents {
	return v.documents(clocksFolder, ".clock", envelope.Clock, "", v.own)
}

// tell is the vault's time for a point that follows st.
func (b *branch) tell(st *state, p *drs.RecoveryPoint) time.Time {
	if b.v.limits.taken {
		return later(st.clock, p.Taken)
	}
	if b.v.clock != nil {
		b.v.clock.atLeast(st.clock)
	}
	return later(st.clock, b.v.now())
}

// clockEdit tells the vault's time at the points that follow.
type clockEdit struct{ at time.Time }

func (clockEdit) kind() uint8           { return kindClock }
func (e clockEdit) put(b []byte) []byte { return putTime(b, e.at) }

func (e clockEdit) apply(s *state) error {
	if e.at.Before(s.clock) {
		return fmt.Errorf("clock of %s after %s", e.at.Format(time.RFC3339), s.clock.Format(time.RFC3339))
	}
	s.clock = e.at
	return nil
}
