package recovery_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/machine"
	"lifeboat/internal/recovery/plan"
)

// planner is a service of plans over the jobs of a site, with a clock of its own.
type planner struct {
	*plan.Service
	t    *testing.T
	site *site
	stop func()

	mu  sync.Mutex
	off time.Duration // how far the clock is ahead; guarded by mu
}

func newPlanner(t *testing.T, s *site) *planner {
	t.Helper()
	p := &planner{t: t, site: s}
	p.run()
	t.Cleanup(func() { p.stop() })
	return p
}

// run begins a service, as a new process would.
func (p *planner) run() {
	p.Service = plan.New(p.site.db, p.site, slog.New(slog.NewTextHandler(p.t.Output(), nil)), func() time.Time {
		p.mu.Lock()
		defer p.mu.Unlock()
		return time.Now().Add(p.off)
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	service := p.Service
	go func() { ended <- service.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			p.t.Error(err)
		}
	})
}

func (p *planner) pass(d time.Duration) {
	p.mu.Lock()
	p.off += d
	p.mu.Unlock()
	p.Wake()
}

// planOf makes a plan; a step is servers, or minutes of waiting. A server that is
// preceded by "?" is optional.
func (p *planner) planOf(name string, steps ...any) drs.RecoveryPlan {
	p.t.Helper()
	made, err := p.CreatePlan(p.t.Context(), account, drs.PlanDraft{Name: name})
	if err != nil {
		p.t.Fatal(err)
	}
	for n, step := range steps {
		draft := drs.PlanStepDraft{Name: fmt.Sprint("step ", n+1)}
		switch step := step.(type) {
		case int:
			draft.WaitMinutes = step
		case []drs.SourceServerID:
			for _, id := range step {
				id, optional := strings.CutPrefix(string(id), "?")
				server := drs.PlanServer{SourceServer: drs.SourceServerID(id)}
				if optional {
					server.Impact = drs.ImpactOptional
				}
				draft.Servers = append(draft.Servers, server)
			}
		}
		if _, err := p.CreateStep(p.t.Context(), account, made.ID, draft); err != nil {
			p.t.Fatal(err)
		}
	}
	return made
}

func (p *planner) start(id drs.RecoveryPlanID) drs.PlanExecution {
	p.t.Helper()
	e, err := p.StartExecution(p.t.Context(), account, drs.StartPlanExecution{Plan: id, Drill: true})
	if err != nil {
		p.t.Fatal(err)
	}
	return e
}

func (p *planner) look(id drs.PlanExecutionID) (drs.PlanExecution, []drs.ExecutionStep) {
	p.t.Helper()
	e, err := p.site.db.PlanExecution(p.t.Context(), account, id)
	if err != nil {
		p.t.Fatal(err)
	}
	steps, err := p.site.db.ExecutionSteps(p.t.Context(), e)
	if err != nil {
		p.t.Fatal(err)
	}
	return e, steps
}

// story is an execution's status and those of its steps.
func (p *planner) story(id drs.PlanExecutionID) string {
	p.t.Helper()
	e, steps := p.look(id)
	words := []string{string(e.Status)}
	for _, s := range steps {
		words = append(words, string(s.Status))
	}
	return strings.Join(words, " ")
}

func (p *planner) becomes(id drs.PlanExecutionID, want string) {
	p.t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for p.story(id) != want {
		if time.Now().After(deadline) {
			e, steps := p.look(id)
			p.t.Fatalf("waited for %q, but it is %q: %+v %+v", want, p.story(id), e, steps)
		}
		time.Sleep(5 * time.Millisecond) // a table cannot be waited on
		p.Wake()
	}
}

func refusedAs(t *testing.T, err error, kind drs.Kind, part string) {
	t.Helper()
	var refused *drs.Error
	if !errors.As(err, &refused) || refused.Kind != kind || !strings.Contains(refused.Message, part) {
		t.Errorf("got %v, want kind %d with %q", err, kind, part)
	}
}

func protectAll(t *testing.T, s *site, names ...string) []drs.SourceServerID {
	t.Helper()
	var ids []drs.SourceServerID
	for _, name := range names {
		id, _ := s.protect(t, name)
		ids = append(ids, id)
	}
	return ids
}

func TestPlanRunsItsStepsInOrder(t *testing.T) {
	s := newSite(t)
	p := newPlanner(t, s)
	ids := protectAll(t, s, "db", "cache", "web")
	of := p.planOf("shop", ids[:2], 30, ids[2:])
	e := p.start(of.ID)
	if e.Status != drs.ExecutionCreated {
		t.Errorf("started %s", e.Status)
	}
	p.becomes(e.ID, "IN_PROGRESS COMPLETED WAITING NOT_STARTED")
	if n := len(s.instances(t)); n != 2 {
		t.Errorf("%d machines before the wait is over", n)
	}
	p.pass(29 * time.Minute)
	p.becomes(e.ID, "IN_PROGRESS COMPLETED WAITING NOT_STARTED")
	p.pass(time.Minute)
	p.becomes(e.ID, "COMPLETED COMPLETED COMPLETED COMPLETED")

	e, steps := p.look(e.ID)
	if e.Completed.IsZero() || e.Error != (drs.ErrorDetail{}) {
		t.Errorf("%+v", e)
	}
	first, last := steps[0].Servers, steps[2].Servers
	if first[0].Job == "" || first[0].Job != first[1].Job || last[0].Job == first[0].Job {
		t.Errorf("jobs %+v %+v", first, last)
	}
	job, err := s.db.JobByID(t.Context(), first[0].Job)
	if err != nil || job.Initiated != drs.StartedDrill || job.Tags["lifeboat:recovery-plan"] != string(of.ID) {
		t.Errorf("%+v %v", job, err)
	}
	if n := len(s.machines.running()); n != 3 {
		t.Errorf("%d machines", n)
	}
}

// Killed between any two transitions, a run goes on with nothing done twice.
func TestPlanSurvivesKills(t *testing.T) {
	s := newSite(t)
	p := newPlanner(t, s)
	ids := protectAll(t, s, "one", "two", "three")
	of := p.planOf("p", ids[:1], 5, ids[1:])
	p.stop()
	e := p.start(of.ID)
	for round := 0; p.story(e.ID) != "COMPLETED COMPLETED COMPLETED COMPLETED"; round++ {
		if round > 1000 {
			t.Fatal("it does not end: ", p.story(e.ID))
		}
		before := p.story(e.ID)
		p.pass(time.Minute)
		p.run()
		for range round % 10 { // the later the kill, the further it came
			if p.story(e.ID) != before {
				break
			}
			time.Sleep(time.Millisecond)
		}
		p.stop()
		if round%7 == 3 {
			s.stop()
			s.run(t)
		}
	}
	jobs, _, err := s.db.Jobs(t.Context(), account, db.JobFilter{}, db.Page{Limit: 100})
	if err != nil || len(jobs) != 2 {
		t.Errorf("%d jobs, want one for each step with servers: %v", len(jobs), err)
	}
}

// refusing fails the machines of some servers.
func (s *site) refuseMachines(err error) {
	s.machines.mu.Lock()
	defer s.machines.mu.Unlock()
	s.machines.refuse = err
}

func TestImpactRetryAndSkip(t *testing.T) {
	s := newSite(t)
	p := newPlanner(t, s)
	ids := protectAll(t, s, "one", "two", "three")
	of := p.planOf("p", []drs.SourceServerID{"?" + ids[0]}, ids[1:2], ids[2:])
	s.refuseMachines(errors.New("no memory"))
	e := p.start(of.ID)
	p.becomes(e.ID, "FAILED COMPLETED FAILED NOT_STARTED")
	run, steps := p.look(e.ID)
	if steps[0].Error.Code != drs.PlanErrorOptional || !strings.Contains(steps[0].Error.Message, string(ids[0])) {
		t.Errorf("the optional failure is not told: %+v", steps[0].Error)
	}
	if steps[1].Error.Code != drs.PlanErrorServer || run.Error.Code != drs.PlanErrorStep || run.Completed.IsZero() {
		t.Errorf("%+v %+v", run, steps[1].Error)
	}
	_, err := p.RetryStep(t.Context(), account, e.ID, steps[0].ID)
	refusedAs(t, err, drs.KindConflict, "COMPLETED")
	_, err = p.UpdateExecutionStep(t.Context(), account, e.ID, steps[0].ID, drs.ExecutionStepChange{Skip: true})
	refusedAs(t, err, drs.KindConflict, "COMPLETED")

	// It fails again, then it works, and the steps after it follow.
	again, err := p.RetryStep(t.Context(), account, e.ID, steps[1].ID)
	if err != nil || again.Attempt != 2 || again.Status != drs.PlanStepExecuting || again.Servers[0].Job != "" {
		t.Fatalf("%+v %v", again, err)
	}
	p.becomes(e.ID, "FAILED COMPLETED FAILED NOT_STARTED")
	s.refuseMachines(nil)
	if again, err = p.RetryStep(t.Context(), account, e.ID, steps[1].ID); err != nil || again.Attempt != 3 {
		t.Fatalf("%+v %v", again, err)
	}
	p.becomes(e.ID, "COMPLETED COMPLETED COMPLETED COMPLETED")

	// A failed step that is skipped lets the next one begin.
	s.refuseMachines(errors.New("no memory"))
	e = p.start(of.ID)
	p.becomes(e.ID, "FAILED COMPLETED FAILED NOT_STARTED")
	s.refuseMachines(nil)
	_, steps = p.look(e.ID)
	if _, err := p.UpdateExecutionStep(t.Context(), account, e.ID, steps[1].ID, drs.ExecutionStepChange{Skip: true}); err != nil {
		t.Fatal(err)
	}
	p.becomes(e.ID, "COMPLETED COMPLETED SKIPPED COMPLETED")
	if run, _ = p.look(e.ID); run.Error.Code != drs.PlanErrorSkipped || !strings.Contains(run.Error.Message, "step 2") {
		t.Errorf("%+v", run.Error)
	}
}

func TestRetryLeavesRecoveredServersAlone(t *testing.T) {
	s := newSite(t)
	p := newPlanner(t, s)
	ids := protectAll(t, s, "good", "bad")
	s.agents[ids[1]] = func(context.Context) (drs.RecoveryPoint, error) { panic("a bug") }
	e := p.start(p.planOf("p", ids).ID)
	p.becomes(e.ID, "FAILED FAILED")
	_, before := p.look(e.ID)
	delete(s.agents, ids[1])
	// Not even when nobody knows the job any more that recovered them.
	if err := s.db.DeleteJob(t.Context(), account, before[0].Servers[0].Job); err != nil {
		t.Fatal(err)
	}
	if _, err := p.RetryStep(t.Context(), account, e.ID, before[0].ID); err != nil {
		t.Fatal(err)
	}
	p.becomes(e.ID, "COMPLETED COMPLETED")
	_, after := p.look(e.ID)
	if after[0].Servers[0].Job != before[0].Servers[0].Job || after[0].Servers[1].Job == before[0].Servers[1].Job {
		t.Errorf("before %+v, after %+v", before[0].Servers, after[0].Servers)
	}
	if job, err := s.db.JobByID(t.Context(), after[0].Servers[1].Job); err != nil || len(job.Servers) != 1 {
		t.Errorf("%+v %v", job, err)
	}
}

// One server that cannot be recovered keeps the whole plan from launching
// anything; all such servers are named, and nothing can be retried or skipped.
func TestPlanIsValidatedAsAWhole(t *testing.T) {
	s := newSite(t)
	p := newPlanner(t, s)
	ids := protectAll(t, s, "one", "two")
	var bare []drs.SourceServerID
	for _, name := range []string{"three", "four"} {
		server, _, err := s.db.RegisterServer(t.Context(), db.Registration{Account: account, HardwareID: name})
		if err != nil {
			t.Fatal(err)
		}
		bare = append(bare, server.ID)
	}
	e := p.start(p.planOf("p", ids, bare).ID)
	p.becomes(e.ID, "FAILED NOT_STARTED NOT_STARTED")
	run, steps := p.look(e.ID)
	if run.Error.Code != drs.PlanErrorValidation || !strings.Contains(run.Error.Message, string(bare[0])) || !strings.Contains(run.Error.Message, string(bare[1])) {
		t.Errorf("%+v", run.Error)
	}
	if len(s.instances(t)) != 0 {
		t.Error("something was launched")
	}
	_, err := p.UpdateExecutionStep(t.Context(), account, e.ID, steps[1].ID, drs.ExecutionStepChange{Skip: true})
	refusedAs(t, err, drs.KindConflict, "cannot go on")
	_, err = p.RetryStep(t.Context(), account, e.ID, steps[0].ID)
	refusedAs(t, err, drs.KindConflict, "NOT_STARTED")
}

// A server that has become unrecoverable fails its own step when its turn comes.
func TestStepsAreValidatedAgain(t *testing.T) {
	s := newSite(t)
	p := newPlanner(t, s)
	ids := protectAll(t, s, "one", "two")
	e := p.start(p.planOf("p", ids[:1], 1, ids[1:]).ID)
	p.becomes(e.ID, "IN_PROGRESS COMPLETED WAITING NOT_STARTED")
	if err := s.db.ReplacePoints(t.Context(), ids[1], nil); err != nil {
		t.Fatal(err)
	}
	p.pass(time.Minute)
	p.becomes(e.ID, "FAILED COMPLETED COMPLETED FAILED")
	if _, steps := p.look(e.ID); steps[2].Error.Code != drs.PlanErrorValidation || steps[2].Servers[0].Job != "" {
		t.Errorf("%+v", steps[2])
	}
}

func TestCancelAndDelete(t *testing.T) {
	s := newSite(t)
	p := newPlanner(t, s)
	ids := protectAll(t, s, "one", "two")
	of := p.planOf("p", ids[:1], 60, ids[1:])
	e := p.start(of.ID)
	p.becomes(e.ID, "IN_PROGRESS COMPLETED WAITING NOT_STARTED")
	refusedAs(t, p.DeleteExecution(t.Context(), account, e.ID), drs.KindConflict, "IN_PROGRESS")
	refusedAs(t, p.DeletePlan(t.Context(), account, of.ID), drs.KindConflict, string(e.ID))
	got, err := p.CancelExecution(t.Context(), account, e.ID)
	if err != nil || got.Status != drs.ExecutionCancelling {
		t.Fatalf("%+v %v", got, err)
	}
	p.becomes(e.ID, "CANCELLED COMPLETED SKIPPED SKIPPED")
	if n := len(s.machines.running()); n != 1 {
		t.Errorf("%d machines run, want the one that was launched", n)
	}
	_, err = p.CancelExecution(t.Context(), account, e.ID)
	refusedAs(t, err, drs.KindConflict, "CANCELLED")
	if err := p.DeletePlan(t.Context(), account, of.ID); err != nil {
		t.Error(err)
	}
	if err := p.DeleteExecution(t.Context(), account, e.ID); err != nil {
		t.Error(err)
	}
	refusedAs(t, p.DeleteExecution(t.Context(), account, e.ID), drs.KindNotFound, string(e.ID))
}

// gate holds machines back until it is opened.
type gate struct {
	*idleMachines
	open chan struct{}
}

func (g gate) Start(ctx context.Context, spec machine.Spec) (machine.Started, error) {
	select {
	case <-g.open:
		return g.idleMachines.Start(ctx, spec)
	case <-ctx.Done():
		return machine.Started{}, ctx.Err()
	}
}

// A cancelled run ends with the step it is at, whose job goes on.
func TestCancelLetsTheStepEnd(t *testing.T) {
	s := newSite(t)
	s.stop()
	opened := make(chan struct{})
	s.config.Machines = gate{s.machines, opened}
	s.run(t)
	p := newPlanner(t, s)
	ids := protectAll(t, s, "one", "two")
	e := p.start(p.planOf("p", ids[:1], ids[1:]).ID)
	p.becomes(e.ID, "IN_PROGRESS EXECUTING NOT_STARTED")
	if _, err := p.CancelExecution(t.Context(), account, e.ID); err != nil {
		t.Fatal(err)
	}
	p.becomes(e.ID, "CANCELLING EXECUTING SKIPPED")
	close(opened)
	p.becomes(e.ID, "CANCELLED COMPLETED SKIPPED")
}

func TestTimeOutIsFinal(t *testing.T) {
	s := newSite(t)
	p := newPlanner(t, s)
	ids := protectAll(t, s, "one", "two")
	of := p.planOf("p", ids[:1], 120, ids[1:])
	e := p.start(of.ID)
	p.becomes(e.ID, "IN_PROGRESS COMPLETED WAITING NOT_STARTED")
	p.pass(drs.MaxPlanRun)
	p.becomes(e.ID, "FAILED COMPLETED TIMED_OUT NOT_STARTED")
	run, steps := p.look(e.ID)
	if run.Error.Code != drs.PlanErrorTimeout {
		t.Errorf("%+v", run.Error)
	}
	for _, step := range steps[1:] {
		_, err := p.UpdateExecutionStep(t.Context(), account, e.ID, step.ID, drs.ExecutionStepChange{Skip: true})
		refusedAs(t, err, drs.KindConflict, "")
	}
}

func TestOneRunHoldsPlanAndServers(t *testing.T) {
	s := newSite(t)
	p := newPlanner(t, s)
	ids := protectAll(t, s, "one", "two")
	of := p.planOf("p", ids[:1], 60)
	also := p.planOf("q", ids[1:], ids[:1])
	e := p.start(of.ID)
	_, err := p.StartExecution(t.Context(), account, drs.StartPlanExecution{Plan: of.ID})
	refusedAs(t, err, drs.KindConflict, string(of.ID))
	_, err = p.StartExecution(t.Context(), account, drs.StartPlanExecution{Plan: also.ID})
	refusedAs(t, err, drs.KindConflict, string(e.ID))
	refusedAs(t, err, drs.KindConflict, string(of.ID))

	// What runs is a copy: edits do not reach it.
	steps, err := s.db.PlanSteps(t.Context(), account, of.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.DeleteStep(t.Context(), account, of.ID, steps[1].ID); err != nil {
		t.Fatal(err)
	}
	p.becomes(e.ID, "IN_PROGRESS COMPLETED WAITING")

	empty := p.planOf("empty")
	_, err = p.StartExecution(t.Context(), account, drs.StartPlanExecution{Plan: empty.ID})
	refusedAs(t, err, drs.KindValidation, "no steps")
	_, err = p.StartExecution(t.Context(), account, drs.StartPlanExecution{
		Plan: also.ID, Pinned: []drs.StartRecoveryServer{{SourceServer: "s-00000000000000000", Snapshot: "pit-00000000000000000"}},
	})
	refusedAs(t, err, drs.KindValidation, "s-00000000000000000")
}

func TestPinnedPoints(t *testing.T) {
	s := newSite(t)
	p := newPlanner(t, s)
	one, old := s.protect(t, "one")
	s.point(t, one, drs.CrashConsistent)
	of := p.planOf("p", []drs.SourceServerID{one})
	e, err := p.StartExecution(t.Context(), account, drs.StartPlanExecution{
		Plan: of.ID, Pinned: []drs.StartRecoveryServer{{SourceServer: one, Snapshot: old.ID}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.becomes(e.ID, "COMPLETED COMPLETED")
	if all := s.instances(t); len(all) != 1 || all[0].Point != old.ID || all[0].Drill {
		t.Errorf("%+v", all)
	}
	e, err = p.StartExecution(t.Context(), account, drs.StartPlanExecution{
		Plan: of.ID, Pinned: []drs.StartRecoveryServer{{SourceServer: one, Snapshot: "pit-00000000000000000"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.becomes(e.ID, "FAILED NOT_STARTED")
}

func TestStepsOfARunCanBeChangedBeforeTheyBegin(t *testing.T) {
	s := newSite(t)
	p := newPlanner(t, s)
	ids := protectAll(t, s, "one", "two", "three", "four")
	of := p.planOf("p", ids[:1], 60, ids[1:2], 30, ids[2:3])
	e := p.start(of.ID)
	p.becomes(e.ID, "IN_PROGRESS COMPLETED WAITING NOT_STARTED NOT_STARTED NOT_STARTED")
	_, steps := p.look(e.ID)
	change := func(n int, c drs.ExecutionStepChange) error {
		_, err := p.UpdateExecutionStep(t.Context(), account, e.ID, steps[n].ID, c)
		return err
	}
	refusedAs(t, change(1, drs.ExecutionStepChange{WaitMinutes: 1}), drs.KindConflict, "WAITING")
	refusedAs(t, change(2, drs.ExecutionStepChange{WaitMinutes: 1}), drs.KindValidation, "keeps its kind")
	refusedAs(t, change(2, drs.ExecutionStepChange{Servers: []drs.PlanServer{{SourceServer: ids[0]}}}), drs.KindValidation, "twice")
	refusedAs(t, change(2, drs.ExecutionStepChange{Servers: []drs.PlanServer{{SourceServer: "s-00000000000000000"}}}), drs.KindNotFound, "")
	if err := errors.Join(
		change(2, drs.ExecutionStepChange{Servers: []drs.PlanServer{{SourceServer: ids[3]}}}),
		change(3, drs.ExecutionStepChange{WaitMinutes: 1}),
		change(4, drs.ExecutionStepChange{Skip: true})); err != nil {
		t.Fatal(err)
	}
	p.pass(time.Hour)
	p.becomes(e.ID, "IN_PROGRESS COMPLETED COMPLETED COMPLETED WAITING SKIPPED")
	p.pass(time.Minute)
	p.becomes(e.ID, "COMPLETED COMPLETED COMPLETED COMPLETED COMPLETED SKIPPED")
	var launched []drs.SourceServerID
	for _, i := range s.instances(t) {
		launched = append(launched, i.SourceServer)
	}
	slices.Sort(launched)
	want := []drs.SourceServerID{ids[0], ids[3]}
	slices.Sort(want)
	if !slices.Equal(launched, want) {
		t.Errorf("launched %v, want %v", launched, want)
	}
}
