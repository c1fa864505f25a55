package vault_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob/blobtest"
	"lifeboat/internal/vault/retention"
)

// machine has a time of day that may be wrong, and an uptime that is not.
type machine struct {
	now time.Time     // truly
	off time.Duration // what the time of day is wrong by
	run int
	up  time.Duration
}

func (m *machine) Wall() time.Time { return m.now.Add(m.off) }

func (m *machine) Uptime() (string, time.Duration) { return fmt.Sprint("run ", m.run), m.up }

func (m *machine) wait(d time.Duration) { m.now, m.up = m.now.Add(d), m.up+d }

// years runs a vault on a machine whose clock is set by others.
type years struct {
	t       *testing.T
	machine *machine
	store   *blobtest.Mem
	keys    vault.KeyWrapper
	v       *vault.Vault
	w       *vault.Writer
	n       int
	taken   map[drs.RecoverySnapshotID]time.Time // truly
}

func newYears(t *testing.T, off time.Duration) *years {
	y := &years{t: t, machine: &machine{now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), off: off, up: time.Hour},
		store: blobtest.NewMem(), keys: newKey(t), taken: map[drs.RecoverySnapshotID]time.Time{}}
	y.v = newVault(t, y.store, y.keys, y.options())
	return y
}

func (y *years) options() vault.Options { return vault.Options{Clocks: y.machine}.Small().Clocked() }

// restart is of the process, and of the machine too where its clock is then wrong by off.
func (y *years) restart(reboot bool, away, off time.Duration) {
	if err := y.v.KeepClock(ctxOf); err != nil {
		y.t.Fatal(err)
	}
	y.v.WaitTasks()
	y.v.Close()
	y.machine.wait(away)
	if y.machine.off = off; reboot {
		y.machine.run, y.machine.up = y.machine.run+1, 20*time.Second
	}
	y.v = must(vault.Open(ctxOf, y.store, y.keys, y.options()))(y.t)
	y.w = nil
}

// step waits, commits a point and does what a server does.
func (y *years) step(wait time.Duration) {
	y.t.Helper()
	y.machine.wait(wait)
	if y.w == nil {
		y.w = must(y.v.Writer(ctxOf, server, vault.MainBranch))(y.t)
	}
	e := must(y.w.Begin(ctxOf, nil))(y.t)
	y.n++
	p := point(y.n)
	p.Taken, p.Expected = y.machine.Wall(), y.machine.Wall() // as the catalogue shows it: wrong
	must(e.Commit(ctxOf, p))(y.t)
	y.taken[p.ID] = y.machine.now
	if err := y.v.KeepClock(ctxOf); err != nil {
		y.t.Fatal(err)
	}
	if y.n%6 == 0 {
		for _, id := range must(y.v.Maintain(ctxOf, server, retention.Default(), y.v.Now()))(y.t).Dropped {
			delete(y.taken, id)
		}
	}
}

// check states what must hold whatever the clock did: the journal has every point, each
// rule has one near every moment that it reaches, and there are not many more. Of the
// age of a point, slack may not have been counted or have been counted twice.
func (y *years) check(every, slack time.Duration) {
	y.t.Helper()
	var at []time.Time
	for _, p := range must(y.v.Points(ctxOf, server))(y.t) {
		at = append(at, y.taken[p.ID])
	}
	newest := at[len(at)-1]
	for i := 1; i < len(at); i++ {
		age, gap := newest.Sub(at[i]), at[i].Sub(at[i-1])
		for _, rule := range []struct{ gap, reach time.Duration }{
			{every, 4 * time.Hour}, {2*time.Hour + every, 24 * time.Hour}, {48*time.Hour + every, 7 * 24 * time.Hour},
		} {
			if gap > rule.gap+slack && age < rule.reach-rule.gap-slack {
				y.t.Errorf("%s before the end there is no point for %s", age, gap)
			}
		}
	}
	if oldest := newest.Sub(at[0]); oldest < 6*24*time.Hour-slack {
		y.t.Errorf("history ends %s ago", oldest)
	} else if oldest > 9*24*time.Hour+slack {
		y.t.Errorf("a point of %s ago is still there", oldest)
	}
	if most := int((4*time.Hour+slack)/every) + 24 + 7 + 24; len(at) > most {
		y.t.Errorf("%d points are kept, want at most %d", len(at), most)
	}
}

const year = 365 * 24 * time.Hour

// TestClockFaults: whatever the time of day is set to, by years in both directions and back
// again, once or every few minutes, through restarts of the process, no point goes that a
// right clock would have kept, and none stays that it would not.
func TestClockFaults(t *testing.T) {
	t.Parallel()
	const every = 20 * time.Minute
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	jump := func() time.Duration {
		size := []time.Duration{time.Minute, time.Hour, 24 * time.Hour, 10 * 24 * time.Hour, year, 30 * year}[rnd.IntN(6)]
		return time.Duration((rnd.Float64()*2 - 1) * float64(size))
	}
	for name, fault := range map[string]func(y *years){
		"right":                func(*years) {},
		"ahead by years":       func(y *years) { y.machine.off = pick(y.n > 300, 10*year) },
		"ahead, then right":    func(y *years) { y.machine.off = pick(y.n > 300 && y.n < 420, 10*year) },
		"back by days":         func(y *years) { y.machine.off = pick(y.n > 300, -5*24*time.Hour) },
		"back, then right":     func(y *years) { y.machine.off = pick(y.n > 300 && y.n < 660, -3*24*time.Hour) },
		"to and fro":           func(y *years) { y.machine.off = pick(y.n%2 == 0, 50*time.Minute) },
		"anything":             func(y *years) { y.machine.off = jump() },
		"restarts on anything": func(y *years) { y.restart(false, time.Duration(rnd.IntN(30))*time.Minute, jump()) },
	} {
		t.Run(name, func(t *testing.T) {
			y := newYears(t, 0)
			for y.machine.now.Sub(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)) < 12*24*time.Hour {
				y.step(every)
				if name != "restarts on anything" || y.n%10 == 0 {
					fault(y)
				}
			}
			y.step(every)
			y.check(every+pick(name == "restarts on anything", 30*time.Minute), 0)
		})
	}
}

// TestClockFaultsOverReboots: where the machine was off, what its clock says counts for five
// minutes at most, in each direction.
func TestClockFaultsOverReboots(t *testing.T) {
	t.Parallel()
	const every, reboots, away = 20 * time.Minute, 10, 4 * time.Minute
	for name, off := range map[string]time.Duration{"right": 0, "ahead by years": 10 * year, "back by years": -30 * year} {
		t.Run(name, func(t *testing.T) {
			y := newYears(t, 0)
			for i := range reboots + 1 {
				for range 90 {
					y.step(every)
				}
				if i < reboots {
					y.restart(true, away, pick(i%2 == 0, off))
				}
			}
			slack := time.Duration(0)
			if off != 0 {
				slack = reboots * 5 * time.Minute
			}
			y.check(every+away, slack)
		})
	}
}

// TestLocksOverWrongClocks: a lock lasts as long as it was to last, also where the machine
// comes up with a clock that is years ahead, and is not forever where it was ahead before.
func TestLocksOverWrongClocks(t *testing.T) {
	t.Parallel()
	for _, begin := range []time.Duration{0, 10 * year, -4 * year} {
		y := newYears(t, begin)
		y.step(time.Minute)
		y.step(time.Minute)
		drop := func() error { return y.v.DropPoints(ctxOf, server, point(1).ID) }
		y.machine.off = 0 // it is put right
		until := y.machine.Wall().Add(30 * 24 * time.Hour)
		if err := y.v.LockPoint(ctxOf, server, point(1).ID, until); err != nil {
			t.Fatal(err)
		}
		if err := y.v.LockPoint(ctxOf, server, point(1).ID, until); err != nil {
			t.Errorf("locked again until the same date: %v", err)
		}
		if p := must(y.v.ListPoints(ctxOf, server))(t)[0]; p.LockedUntil.Sub(until).Abs() > time.Minute {
			t.Errorf("listed as locked until %s, want %s", p.LockedUntil, until)
		}
		for _, off := range []time.Duration{10 * year, -10 * year, year, 0} {
			y.restart(true, time.Minute, off)
			wantErr(t, drop(), vault.ErrLocked)
			y.machine.off = 20 * year
			wantErr(t, drop(), vault.ErrLocked)
			y.machine.wait(24 * time.Hour)
		}
		y.restart(false, 25*24*time.Hour, 5*year)
		wantErr(t, drop(), vault.ErrLocked)
		y.restart(false, 24*time.Hour+10*time.Minute, -year)
		if err := drop(); err != nil {
			t.Errorf("30 days are over, begun at a clock wrong by %s: %v", begin, err)
		}
	}
}

// TestTheClockIsDamaged: what is left of it is the machine's, but never earlier than the points.
func TestTheClockIsDamaged(t *testing.T) {
	t.Parallel()
	y := newYears(t, 0)
	for range 5 {
		y.step(time.Hour)
	}
	before := y.v.Now()
	for _, name := range must(y.store.List(ctxOf, "clocks/"))(t) {
		y.store.Replace(name, []byte("nonsense"))
	}
	y.restart(true, time.Minute, -3*year)
	y.step(time.Minute)
	if now := y.v.Now(); now.Before(before) || now.After(before.Add(time.Hour)) {
		t.Errorf("the clock goes on from %s at %s", before, now)
	}
}

func pick(yes bool, d time.Duration) time.Duration {
	if yes {
		return d
	}
	return 0
}
