package retention_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/retention"
)

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func id(n int) drs.RecoverySnapshotID { return drs.RecoverySnapshotID(fmt.Sprintf("pit-%017x", n)) }

// every returns points at a steady distance.
func every(step time.Duration, n int) []retention.Point {
	var out []retention.Point
	for i := range n {
		out = append(out, retention.Point{ID: id(i), Taken: begin.Add(time.Duration(i) * step), Epoch: uint64(i + 1), Consistency: drs.CrashConsistent})
	}
	return out
}

// apply returns the points that stay.
func apply(p retention.Policy, points []retention.Point) []retention.Point {
	drop := p.Decide(points).Drop
	return slices.DeleteFunc(slices.Clone(points), func(pt retention.Point) bool { return slices.Contains(drop, pt.ID) })
}

// run decides after every point, or every so many, as a server does.
func run(p retention.Policy, points []retention.Point, each int) (kept []retention.Point) {
	for i, pt := range points {
		kept = append(kept, pt)
		if i%each == 0 || i == len(points)-1 {
			kept = apply(p, kept)
		}
	}
	return kept
}

func TestDefaultPolicyOverWeeks(t *testing.T) {
	const step = time.Minute
	kept := run(retention.Default(), every(step, 10*24*60), 7)
	newest := kept[len(kept)-1].Taken
	var journal, hours, days int
	for i, p := range kept {
		switch age := newest.Sub(p.Taken); {
		case age < 4*time.Hour:
			journal++
		case age <= 24*time.Hour:
			hours++
			if p.Taken.Minute() != 0 {
				t.Errorf("point %d of %s is not the first of its hour", i, p.Taken)
			}
		case age <= 7*24*time.Hour:
			days++
			if p.Taken.Hour() != 0 || p.Taken.Minute() != 0 {
				t.Errorf("point %d of %s is not the first of its day", i, p.Taken)
			}
		default:
			t.Errorf("point of %s is %s old", p.Taken, age)
		}
	}
	if journal != 240 || hours < 20 || hours > 21 || days < 6 || days > 7 {
		t.Errorf("%d points of the journal, %d of hours, %d of days", journal, hours, days)
	}
}

func TestTenMinutesWhenThereIsNoJournal(t *testing.T) {
	kept := run(retention.FromPIT(0, drs.DefaultPITPolicy()), every(time.Minute, 300), 1)
	newest := kept[len(kept)-1].Taken
	tens := 0
	for _, p := range kept {
		if age := newest.Sub(p.Taken); age > 0 && age <= time.Hour {
			tens++
			if p.Taken.Minute()%10 != 0 {
				t.Errorf("kept %s", p.Taken)
			}
		}
	}
	if tens != 6 {
		t.Errorf("%d points of the last hour, want 6", tens)
	}
}

func TestRulesThatMakeNoSenseAreLeftOut(t *testing.T) {
	p := retention.FromPIT(time.Hour, []drs.PITRule{
		{Units: drs.PITMinute, Interval: 0, Retention: 1, Enabled: true},
		{Units: drs.PITMinute, Interval: 1, Retention: 0, Enabled: true},
		{Units: "YEAR", Interval: 1, Retention: 1, Enabled: true},
		{Units: drs.PITDay, Interval: 1, Retention: 1},
		{Units: drs.PITDay, Interval: 2, Retention: 1 << 62, Enabled: true},
	})
	if len(p.Rules) != 1 || p.Rules[0].Every != 48*time.Hour || p.Rules[0].For <= 0 {
		t.Errorf("rules %v", p.Rules)
	}
}

func TestAClockThatJumpsDropsLittle(t *testing.T) {
	for _, jump := range []time.Duration{10 * 365 * 24 * time.Hour, 250 * 365 * 24 * time.Hour, -10 * 365 * 24 * time.Hour} {
		points := run(retention.Default(), every(5*time.Second, 2*24*720), 100)
		before := len(points)
		last := points[len(points)-1]
		points = append(points, retention.Point{ID: id(1 << 20), Taken: last.Taken.Add(jump), Epoch: last.Epoch + 1, Consistency: drs.CrashConsistent})
		points = apply(retention.Default(), points)
		if lost := before + 1 - len(points); lost > 721 { // an hour of the journal
			t.Errorf("a jump by %s drops %d of %d points", jump, lost, before)
		}
		// The clock is put right again.
		points = append(points, retention.Point{ID: id(1<<20 + 1), Taken: last.Taken.Add(5 * time.Second), Epoch: last.Epoch + 2, Consistency: drs.CrashConsistent})
		points = apply(retention.Default(), points)
		if lost := before + 2 - len(points); lost > 2*721 {
			t.Errorf("a jump by %s and back drops %d of %d points", jump, lost, before)
		}
	}
}

// TestHistoryBehindAJumpFadesNoFaster: also once the points around the jump have left the
// journal, and many commits lie between those that stay.
func TestHistoryBehindAJumpFadesNoFaster(t *testing.T) {
	const hour, jumped = 360, (6*24)*360 + 330
	steady := every(10*time.Second, jumped+5*hour)
	for _, jump := range []time.Duration{0, 30 * 24 * time.Hour, 10 * 365 * 24 * time.Hour} {
		points := slices.Clone(steady)
		for i := jumped; i < len(points); i++ {
			points[i].Taken = points[i].Taken.Add(jump)
		}
		behind := 0
		for _, p := range run(retention.Default(), points, hour/2) {
			if p.Epoch <= uint64(jumped) {
				behind++
			}
		}
		if behind < 20 { // hours and days, which the rules keep for seven
			t.Errorf("five hours after a jump by %s, %d points of the six days before it are left", jump, behind)
		}
	}
}

func TestConsistentPointsAreKeptBeforeFuzzyOnes(t *testing.T) {
	points := every(10*time.Minute, 7*6)
	for i := range points {
		if i%6 != 4 {
			points[i].Consistency = drs.Fuzzy
		}
	}
	kept := apply(retention.FromPIT(0, []drs.PITRule{{Units: drs.PITHour, Interval: 1, Retention: 24, Enabled: true}}), points)
	for _, p := range kept[:len(kept)-1] {
		if p.Consistency == drs.Fuzzy {
			t.Errorf("kept the fuzzy %s", p.Taken)
		}
	}
	if len(kept) != 8 {
		t.Errorf("kept %d, want one of each hour and the newest", len(kept))
	}
}

// TestWhatMustStayStays: whatever the points, the clock and the policy.
func TestWhatMustStayStays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var points []retention.Point
		at, epoch := begin, uint64(1)
		for i := range rapid.IntRange(0, 60).Draw(t, "points") {
			at = at.Add(time.Duration(rapid.Int64Range(-1e15, 1e16).Draw(t, "step")))
			epoch += rapid.Uint64Range(0, 1000).Draw(t, "commits")
			points = append(points, retention.Point{
				ID: id(i), Taken: at, Epoch: epoch,
				Consistency: rapid.SampledFrom([]drs.Consistency{drs.Fuzzy, drs.CrashConsistent, drs.ApplicationConsistent, "new"}).Draw(t, "consistency"),
				Locked:      rapid.Bool().Draw(t, "locked"), Pinned: rapid.Bool().Draw(t, "pinned"),
			})
		}
		policy := retention.Policy{Journal: time.Duration(rapid.Int64Range(0, 1e15).Draw(t, "journal"))}
		for range rapid.IntRange(0, 3).Draw(t, "rules") {
			policy.Rules = append(policy.Rules, retention.Rule{
				Every: time.Duration(rapid.Int64Range(1, 1e14).Draw(t, "every")), For: time.Duration(rapid.Int64Range(1, 1e16).Draw(t, "for")),
			})
		}
		d := policy.Decide(points)
		if len(d.Kept)+len(d.Drop) != len(points) {
			t.Fatalf("%d kept and %d dropped of %d", len(d.Kept), len(d.Drop), len(points))
		}
		ages := retention.Ages(points)
		for i, p := range points {
			dropped := slices.Contains(d.Drop, p.ID)
			if dropped && (i == len(points)-1 || p.Locked || p.Pinned || ages[i] < policy.Journal) {
				t.Fatalf("dropped point %d of age %s: %+v", i, ages[i], p)
			}
			if ages[i] < 0 || i > 0 && ages[i] > ages[i-1] {
				t.Fatalf("ages %v", ages)
			}
		}
		kept := apply(policy, points)
		if again := policy.Decide(kept).Drop; len(again) > 0 && monotone(points) {
			t.Fatalf("deciding again drops %v", again)
		}
		// Every slot that had a young enough point still has one.
		for _, r := range policy.Rules {
			for i, p := range points {
				if ages[i] <= r.For && !slices.ContainsFunc(kept, func(k retention.Point) bool {
					return k.Taken.Unix()/int64(max(r.Every/time.Second, 1)) == p.Taken.Unix()/int64(max(r.Every/time.Second, 1))
				}) {
					t.Fatalf("the slot of point %d is empty", i)
				}
			}
		}
	})
}

// monotone tells whether time only went forward, in steps that count in full: then
// dropping a point changes no other point's age.
func monotone(points []retention.Point) bool {
	for i := 1; i < len(points); i++ {
		d := points[i].Taken.Sub(points[i-1].Taken)
		if d < 0 || d > retention.MaxStep*time.Duration(max(1, points[i].Epoch-points[i-1].Epoch)) {
			return false
		}
	}
	return true
}
