package vault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/retention"
	"lifeboat/internal/vault/seal"
)

// Report says what Maintain did to a server.
type Report struct {
	Dropped []drs.RecoverySnapshotID // by retention
	Kept    []retention.Kept         // of the main branch; nil when nothing has changed since the last time
	Folded  Folded
	Freed   Freed
	More    bool // there is more to do: call again soon
}

// Maintain does what keeps a server's history small: it drops the recovery points that the
// policy does not keep, folds what lies between those left, moves the begin of the
// chains of manifests, and deletes what nothing needs any more.
//
// A call does a bounded amount of work, and can be cut short anywhere; the next one
// goes on. It is cheap when nothing has changed. Commits, forks and readers go
// on meanwhile, in this and in other processes, which may maintain the same server
// too. Branches that are damaged are left as they are, and so are all objects of their server;
// the error says so, beside a report of what was done for the others.
func (v *Vault) Maintain(ctx context.Context, server drs.SourceServerID, policy retention.Policy, now time.Time) (Report, error) {
	v.tending.Lock()
	defer v.tending.Unlock()
	var report Report
	if err := v.maintain(ctx, server, policy, now, &report); err != nil {
		return report, fmt.Errorf("maintain %s: %w", server, err)
	}
	return report, nil
}

// collectEvery is how many calls of Maintain that found something to do come between
// two that list all objects of a server: garbage that nobody knows of is rare.
const collectEvery = 64

func (v *Vault) maintain(ctx context.Context, server drs.SourceServerID, policy retention.Policy, now time.Time, report *Report) error {
	if _, err := v.dataKey(ctx, server); err != nil {
		return err
	}
	names, err := v.store.List(ctx, branchesFolder(server))
	if err != nil {
		return err
	}
	var branches []*branch
	for _, name := range folders(names) {
		if b, err := v.branch(ctx, server, name); err == nil { // else not a name of ours
			branches = append(branches, b)
		}
	}
	fingerprint := fmt.Sprint(policy, len(branches))
	resting := true
	for _, b := range branches {
		r, err := b.resting(ctx, fingerprint, now)
		if err != nil {
			return err
		}
		resting = resting && r
	}
	if resting {
		return nil
	}
	children, err := v.children(ctx, server)
	if err != nil {
		return err
	}
	var failed error
	for _, b := range branches {
		r, err := b.maintain(ctx, policy, now, children, report)
		if err != nil && !errors.Is(err, ErrAbsent) {
			failed = errors.Join(failed, fmt.Errorf("branch %s: %w", b.name, err))
		}
		r.policy = fingerprint
		b.mu.Lock()
		b.rested = r
		b.mu.Unlock()
	}
	if failed != nil {
		return failed
	}
	v.mu.Lock()
	n := v.tended[server]
	v.tended[server]++
	v.mu.Unlock()
	if n%collectEvery == 0 || report.Folded.Outrun {
		return v.collect(ctx, server, &report.Freed)
	}
	return nil
}

// rest is what a branch was when there was nothing to do for it.
type rest struct {
	number uint64 // of the manifest that was the last one then; 0: there may be something to do
	salt   seal.Salt
	policy string
	until  time.Time // when a lock ends that something waits for; zero: never
}

// resting tells whether nothing has changed since there was nothing to do.
func (b *branch) resting(ctx context.Context, policy string, now time.Time) (bool, error) {
	b.mu.Lock()
	r := b.rested
	b.mu.Unlock()
	if r.number == 0 || r.policy != policy || !r.until.IsZero() && !now.Before(r.until) {
		return false, nil
	}
	if _, err := b.v.store.Size(ctx, manifestName(b.server, b.name, r.number+1)); err == nil {
		return false, nil
	} else if !errors.Is(err, blob.ErrAbsent) {
		return false, err
	}
	err := b.checkThere(ctx, &state{number: r.number, salt: r.salt})
	if errors.Is(err, errOutrun) || damaged(err) {
		return false, nil
	}
	return err == nil, err
}

// maintain does one branch. When there was nothing to do it returns what the branch was.
func (b *branch) maintain(ctx context.Context, policy retention.Policy, now time.Time, children map[string][]hold, report *Report) (rest, error) {
	st, err := b.current(ctx)
	if err != nil {
		return rest{}, err
	}
	unsure, err := b.settleHolds(ctx, st, children[b.name])
	if err != nil {
		return rest{}, err
	}
	st, lasting, until, err := b.retain(ctx, policy, now, report)
	if err != nil {
		return rest{}, err
	}
	var folded Folded
	dead, err := b.fold(ctx, lasting, &folded)
	report.Folded.add(folded)
	if err != nil {
		return rest{}, err
	}
	for i := range dead {
		if dead[i].host == 0 {
			if err := b.v.free(ctx, segmentName(b.server, dead[i].id), &report.Freed.Segments); err != nil {
				return rest{}, err
			}
		}
	}
	if err := b.restate(ctx); err != nil {
		return rest{}, err
	}
	more, err := b.trim(ctx, &report.Freed)
	if err != nil {
		return rest{}, err
	}
	more = more || folded.Deferred
	report.More = report.More || more
	if now, err := b.latest(ctx); err != nil || more || unsure || now.number != st.number || len(b.pins()) > 0 {
		return rest{}, err
	}
	return rest{number: st.number, salt: st.salt, until: until}, nil
}

// retain drops the points that the policy does not keep. It returns which moments are
// likely to stay, and when the next lock ends.
func (b *branch) retain(ctx context.Context, policy retention.Policy, now time.Time, report *Report) (st *state, lasting map[uint64]bool, until time.Time, err error) {
	now = earlier(now, b.v.now())
	var d retention.Decision
	var drop []drs.RecoverySnapshotID
	st, err = b.amend(ctx, func(st *state) (proposal, error) {
		d, until, err = b.decide(ctx, st, policy, now)
		drop = d.Drop
		if err != nil || len(drop) == 0 {
			return proposal{}, err
		}
		return propose(dropManyEdit(drop)), nil
	})
	if err != nil {
		return nil, nil, until, err
	}
	report.Dropped = append(report.Dropped, drop...)
	if b.name == MainBranch {
		report.Kept = d.Kept
	}
	lasting = map[uint64]bool{}
	for i, p := range st.points.items {
		if i < len(d.Kept) && d.Kept[i].ID == p.point.ID && d.Kept[i].Reason.Lasting() {
			lasting[p.seq] = true
		}
	}
	return st, lasting, until, nil
}

// decide applies the policy to the points of a state, and has those that are to go
// retired. What is in use stays.
func (b *branch) decide(ctx context.Context, st *state, policy retention.Policy, now time.Time) (d retention.Decision, until time.Time, err error) {
	points := make([]retention.Point, 0, len(st.points.items))
	for _, p := range st.points.items {
		locked := p.lockedAt(now)
		if locked && (until.IsZero() || p.locked.Before(until)) {
			until = p.locked
		}
		points = append(points, retention.Point{ID: p.point.ID, Taken: p.point.Taken, Clock: p.clock, Epoch: p.point.Epoch,
			Consistency: p.point.Consistency, Locked: locked, Pinned: st.holdsPoint(p.point.ID)})
	}
	for {
		d = policy.Decide(points)
		if len(d.Drop) == 0 || b.v.retire == nil {
			return d, until, nil
		}
		retired, err := b.v.retire(ctx, b.server, d.Drop)
		if err != nil {
			return d, until, err
		}
		if len(retired) == len(d.Drop) {
			return d, until, nil
		}
		for i := range points {
			if slices.Contains(d.Drop, points[i].ID) && !slices.Contains(retired, points[i].ID) {
				points[i].Pinned = true
			}
		}
	}
}

// children returns where the branches of a server begin, by parent.
func (v *Vault) children(ctx context.Context, server drs.SourceServerID) (map[string][]hold, error) {
	out := map[string][]hold{}
	damage, err := v.eachBranch(ctx, server, func(b *branch, st *state) bool {
		if st.base != nil {
			out[st.base.branch] = append(out[st.base.branch], hold{b.name, st.base.seq, st.base.point})
		}
		return true
	})
	if err == nil && damage != nil {
		err = fmt.Errorf("what a damaged branch needs is not known: %w", damage)
	}
	return out, err
}

// settleHolds sees to it that every branch that begins at one of b's points has a hold,
// as those made by older versions have not, and that holds and promises left over from a
// crash go. These might be of a process that is at it: they go when they were seen twice.
func (b *branch) settleHolds(ctx context.Context, st *state, children []hold) (unsure bool, err error) {
	v := b.v
	for _, c := range children {
		if _, there := st.findHold(c.branch); there {
			continue
		}
		if _, err := b.amend(ctx, func(st *state) (proposal, error) {
			if _, there := st.findHold(c.branch); there {
				return proposal{}, nil
			}
			return propose(holdEdit{c}), nil
		}); err != nil {
			return false, err
		}
	}
	keyOf := func(what string) string { return string(b.server) + "/" + b.name + "/" + what }
	suspect := func(what string) bool {
		key := keyOf(what)
		if v.suspects[key] {
			delete(v.suspects, key)
			return true
		}
		v.suspects[key] = true
		return false
	}
	for _, p := range st.promises {
		if !suspect(fmt.Sprintf("promise %x", p.id)) {
			unsure = true
		} else if err := b.void(ctx, p.id); err != nil {
			return false, err
		}
	}
	for _, h := range st.holds {
		if slices.ContainsFunc(children, func(c hold) bool { return c.branch == h.branch }) {
			delete(v.suspects, keyOf("hold "+h.branch)) // it was another fork that was seen
			continue
		}
		if !suspect("hold " + h.branch) {
			unsure = true
		} else if err := b.abandon(ctx, h.branch); err != nil {
			return false, err
		}
	}
	return unsure, nil
}

// abandon releases the hold for a branch that never began.
func (b *branch) abandon(ctx context.Context, name string) error {
	b.v.forking.Lock()
	defer b.v.forking.Unlock()
	left, err := b.v.store.List(ctx, branchFolder(b.server, name))
	if err != nil || len(left) > 0 {
		return err // it did begin, or somebody is at it
	}
	return b.v.bury(ctx, []*branch{b}, name)
}
