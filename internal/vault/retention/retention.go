// Package retention decides which recovery points of a server stay. It does no I/O
// and looks at no clock.
//
// What it guarantees:
//
//   - The newest point stays, and so do points that are locked or that a branch
//     began at.
//   - Of several points in one slot of a rule, one of the best consistency stays.
//   - Age is counted along the points themselves, from each to the newest, by a clock that
//     nobody sets: Point.Clock. What the time of day was made to be does not matter.
//   - Points of old have no such time. Between neighbours of which one is such, the times
//     of day count, but no more than MaxStep for each commit that lies between: a jump,
//     by however much, ages the history by MaxStep at most, and setting the time back
//     does not age it at all. For that the points on both sides of a jump stay, while
//     there is anything behind it that a rule reaches.
//   - It is stable: what stays would stay again, and deciding often drops nothing that
//     deciding once at the end would have kept for a longer interval.
//
// The price: the history of a server that is away ages only when it commits again, and that
// of a dead one does not fade away.
package retention

import (
	"slices"
	"time"

	"lifeboat/internal/drs"
)

// MaxStep is how much time a single commit may account for where no clock tells.
const MaxStep = time.Hour

// DefaultJournal is the usual journal window.
const DefaultJournal = 4 * time.Hour

// Policy says which points to keep.
type Policy struct {
	Journal time.Duration // every point that is younger than this stays
	Rules   []Rule
}

// Rule keeps one point per slot of length Every, while younger than For.
type Rule struct {
	Every, For time.Duration
}

// Default is a journal of four hours and what DRS does by default.
func Default() Policy { return FromPIT(DefaultJournal, drs.DefaultPITPolicy()) }

// FromPIT makes a policy of the rules of a replication configuration. Rules that are
// disabled, or make no sense, are left out.
func FromPIT(journal time.Duration, rules []drs.PITRule) Policy {
	p := Policy{Journal: journal}
	for _, r := range rules {
		unit := map[drs.PITUnits]time.Duration{drs.PITMinute: time.Minute, drs.PITHour: time.Hour, drs.PITDay: 24 * time.Hour}[r.Units]
		const most = 1 << 16 // units; keeps the product from overflowing
		if r.Enabled && unit > 0 && r.Interval > 0 && r.Interval < most && r.Retention > 0 {
			p.Rules = append(p.Rules, Rule{Every: unit * time.Duration(r.Interval), For: unit * time.Duration(min(r.Retention, most))})
		}
	}
	return p
}

// Point is what a decision needs to know of a recovery point.
type Point struct {
	ID          drs.RecoverySnapshotID
	Taken       time.Time // by the time of day
	Clock       time.Time // when it was committed, by a clock that nobody sets; zero: not known
	Epoch       uint64    // commits before and with it
	Consistency drs.Consistency
	Locked      bool
	Pinned      bool // a branch began at it
}

// Reason says why a point stays.
type Reason string

const (
	Newest  Reason = "newest"
	Journal Reason = "journal"
	Locked  Reason = "locked"
	Pinned  Reason = "branch"
	ByRule  Reason = "rule"
	Clock   Reason = "clock" // it lies beside a jump of the clock
)

// Lasting tells whether a point that stays for this reason is likely to stay when the
// next one comes.
func (r Reason) Lasting() bool { return r == Locked || r == Pinned || r == ByRule || r == Clock }

// Kept is a point that stays.
type Kept struct {
	ID     drs.RecoverySnapshotID
	Reason Reason
	Rule   Rule // that keeps it, when the reason is ByRule
}

// Decision says what becomes of each point, in the order given.
type Decision struct {
	Kept []Kept
	Drop []drs.RecoverySnapshotID
}

// Decide applies a policy to the points of a branch, oldest commit first.
func (p Policy) Decide(points []Point) Decision {
	ages := Ages(points)
	slots := make([]map[int64]int, len(p.Rules)) // the point that keeps each slot
	for i, r := range p.Rules {
		slots[i] = r.choose(points, ages)
	}
	var d Decision
	for i, pt := range points {
		k := Kept{ID: pt.ID}
		switch {
		case i == len(points)-1:
			k.Reason = Newest
		case pt.Locked:
			k.Reason = Locked
		case pt.Pinned:
			k.Reason = Pinned
		case ages[i] < p.Journal:
			k.Reason = Journal
		default:
			k.Rule, k.Reason = p.rule(i, points, slots)
			if k.Reason == "" && p.besideJump(i, points, ages) {
				k.Reason = Clock
			}
		}
		if k.Reason == "" {
			d.Drop = append(d.Drop, pt.ID)
			continue
		}
		d.Kept = append(d.Kept, k)
	}
	return d
}

// besideJump tells whether point i is one side of a step that does not count in full,
// and the other side is young enough for some rule. Without the two, the same step
// would lie between points with many more commits in between, and count for more.
func (p Policy) besideJump(i int, points []Point, ages []time.Duration) bool {
	reach := p.Journal
	for _, r := range p.Rules {
		reach = max(reach, r.For)
	}
	jump := func(i int) bool {
		return i >= 0 && i+1 < len(points) && ages[i] <= reach && !clocked(points[i], points[i+1]) &&
			points[i+1].Taken.Sub(points[i].Taken) > mostBetween(points[i], points[i+1])
	}
	return jump(i-1) || jump(i)
}

// clocked tells whether the time between two neighbours is known.
func clocked(a, b Point) bool { return !a.Clock.IsZero() && !b.Clock.IsZero() }

// mostBetween returns how much time the commits between two neighbours may account for.
func mostBetween(a, b Point) time.Duration {
	commits := uint64(1)
	if b.Epoch > a.Epoch {
		commits = b.Epoch - a.Epoch
	}
	const most = 1 << 20 // steps, more than a century; keeps the product from overflowing
	return MaxStep * time.Duration(min(commits, most))
}

// rule returns the longest rule that keeps point i.
func (p Policy) rule(i int, points []Point, slots []map[int64]int) (best Rule, why Reason) {
	for j, r := range p.Rules {
		if at, ok := slots[j][r.slot(points[i])]; ok && at == i && r.For > best.For {
			best, why = r, ByRule
		}
	}
	return best, why
}

// Ages returns how old each point is, measured along the points.
func Ages(points []Point) []time.Duration {
	ages := make([]time.Duration, len(points))
	for i := len(points) - 2; i >= 0; i-- {
		a, b := points[i], points[i+1]
		step := min(b.Taken.Sub(a.Taken), mostBetween(a, b))
		if clocked(a, b) {
			step = b.Clock.Sub(a.Clock)
		}
		ages[i] = ages[i+1] + max(0, step)
		if ages[i] < ages[i+1] { // no end of jumps
			ages[i] = ages[i+1]
		}
	}
	return ages
}

// slot numbers the stretch of time that a point lies in.
func (r Rule) slot(p Point) int64 {
	every := int64(max(r.Every/time.Second, 1))
	at := p.Taken.Unix()
	if !p.Clock.IsZero() {
		at = p.Clock.Unix()
	}
	if at < 0 {
		at -= every - 1
	}
	return at / every
}

// choose returns the point that keeps each slot: of those young enough the oldest of
// the best consistency. As the oldest it is also the choice of every shorter
// interval that divides this one, and so is there when the shorter rule has let go of
// its neighbours.
func (r Rule) choose(points []Point, ages []time.Duration) map[int64]int {
	out := map[int64]int{}
	for i, p := range points {
		if ages[i] > r.For {
			continue
		}
		slot := r.slot(p)
		if at, taken := out[slot]; !taken || rank(p.Consistency) > rank(points[at].Consistency) {
			out[slot] = i
		}
	}
	return out
}

// rank orders consistencies; one this program does not know is as good as none.
func rank(c drs.Consistency) int {
	return slices.Index([]drs.Consistency{drs.Fuzzy, drs.CrashConsistent, drs.FilesystemConsistent, drs.ApplicationConsistent}, c)
}
