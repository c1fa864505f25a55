package plan

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// run is one execution within a transaction.
type run struct {
	jobs  Jobs
	tx    db.Tx
	e     drs.PlanExecution
	steps []drs.ExecutionStep
	now   time.Time
}

func (s *Service) load(ctx context.Context, tx db.Tx, account drs.Account, id drs.PlanExecutionID) (*run, error) {
	e, err := tx.PlanExecution(ctx, account, id)
	if err != nil {
		return nil, err
	}
	steps, err := tx.ExecutionSteps(ctx, e)
	if err != nil {
		return nil, err
	}
	return &run{s.jobs, tx, e, steps, s.now()}, nil
}

// progress tells what to do after an advance.
type progress struct {
	again bool      // there may be more to do at once
	at    time.Time // nothing happens by itself before this; zero when it is over
}

// advance makes at most one transition of an execution.
func (r *run) advance(ctx context.Context) (progress, error) {
	if !r.e.Status.Running() {
		return progress{}, nil
	}
	if !r.now.Before(r.e.Deadline()) {
		return progress{}, r.timeOut(ctx)
	}
	if r.e.Status == drs.ExecutionCreated {
		return r.begin(ctx)
	}
	at := 0
	for at < len(r.steps) && r.steps[at].Status.Over() {
		at++
	}
	if at == len(r.steps) {
		return progress{}, r.finish(ctx)
	}
	switch r.steps[at].Status {
	case drs.PlanStepNotStarted:
		return progress{again: true}, r.startStep(ctx, at)
	case drs.PlanStepWaiting:
		return r.wait(ctx, at)
	case drs.PlanStepExecuting:
		return r.execute(ctx, at)
	default: // a failed step that its execution has not followed: only a fault of ours leaves it so
		return progress{}, r.stop(ctx, r.steps[at])
	}
}

// begin validates every server of the run before anything is launched.
func (r *run) begin(ctx context.Context) (progress, error) {
	var all []drs.ExecutionServer
	for _, step := range r.steps {
		all = append(all, step.Servers...)
	}
	problem, err := r.validate(ctx, all)
	if err != nil {
		return progress{}, err
	}
	if problem != "" {
		return progress{}, r.move(ctx, drs.ExecutionFailed, drs.ErrorDetail{
			Code: drs.PlanErrorValidation, Message: "Nothing was launched. " + problem,
		})
	}
	return progress{again: true}, r.move(ctx, drs.ExecutionInProgress, drs.ErrorDetail{})
}

// startStep records that a step begins; what it does comes after.
func (r *run) startStep(ctx context.Context, at int) error {
	if r.steps[at].Waits() {
		r.steps[at].WaitUntil = r.now.Add(time.Duration(r.steps[at].WaitMinutes) * time.Minute)
		return r.moveStep(ctx, at, drs.PlanStepWaiting, drs.ErrorDetail{})
	}
	return r.moveStep(ctx, at, drs.PlanStepExecuting, drs.ErrorDetail{})
}

func (r *run) wait(ctx context.Context, at int) (progress, error) {
	step := r.steps[at]
	switch {
	case r.e.Status == drs.ExecutionCancelling:
		return progress{again: true}, r.moveStep(ctx, at, drs.PlanStepSkipped, drs.ErrorDetail{
			Code: drs.PlanErrorCancelled, Message: "The wait was cut short: the execution was cancelled.",
		})
	case r.now.Before(step.WaitUntil):
		return progress{at: earlier(step.WaitUntil, r.e.Deadline())}, nil
	}
	return progress{again: true}, r.moveStep(ctx, at, drs.PlanStepCompleted, drs.ErrorDetail{})
}

// execute gives a step's servers their job, or judges the step when the jobs
// have ended.
func (r *run) execute(ctx context.Context, at int) (progress, error) {
	var without []drs.ExecutionServer
	for _, server := range r.steps[at].Servers {
		if server.Job == "" {
			without = append(without, server)
		}
	}
	if len(without) > 0 {
		return progress{at: r.e.Deadline()}, r.launch(ctx, at, without)
	}
	var critical, optional []string
	for _, server := range r.steps[at].Servers {
		recovered, ended, err := r.outcome(ctx, server)
		switch {
		case err != nil:
			return progress{}, err
		case !ended:
			return progress{at: r.e.Deadline()}, nil
		case recovered:
		case server.Impact == drs.ImpactOptional:
			optional = append(optional, fmt.Sprintf("%s (job %s)", server.SourceServer, server.Job))
		default:
			critical = append(critical, fmt.Sprintf("%s (job %s)", server.SourceServer, server.Job))
		}
	}
	var detail drs.ErrorDetail
	if len(optional) > 0 {
		detail = drs.ErrorDetail{Code: drs.PlanErrorOptional, Message: "Optional servers were not recovered: " +
			strings.Join(optional, ", ") + ". DescribeJobLogItems tells why."}
	}
	if len(critical) == 0 {
		return progress{again: true}, r.moveStep(ctx, at, drs.PlanStepCompleted, detail)
	}
	return progress{}, r.failStep(ctx, at, drs.ErrorDetail{Code: drs.PlanErrorServer, Message: strings.TrimSpace(
		"Critical servers were not recovered: " + strings.Join(critical, ", ") + ". DescribeJobLogItems tells why; then " +
			"RetryRecoveryPlanExecutionStep tries them again, or UpdateRecoveryPlanExecutionStep skips the step. " + detail.Message)})
}

// launch validates the servers again and starts one job for all of them.
func (r *run) launch(ctx context.Context, at int, servers []drs.ExecutionServer) error {
	problem, err := r.validate(ctx, servers)
	if err != nil {
		return err
	}
	var job drs.Job
	if problem == "" {
		request := r.request(servers)
		request.Tags = drs.Tags{"lifeboat:recovery-plan": string(r.e.Plan), "lifeboat:recovery-plan-execution": string(r.e.ID)}
		job, err = r.jobs.StartRecoveryIn(ctx, r.tx, r.e.Account, request)
		if problem, err = refusal(err); err != nil {
			return err
		}
	}
	if problem != "" {
		return r.failStep(ctx, at, drs.ErrorDetail{Code: drs.PlanErrorValidation, Message: "Nothing of this attempt was launched. " + problem})
	}
	for n := range r.steps[at].Servers {
		if r.steps[at].Servers[n].Job == "" {
			r.steps[at].Servers[n].Job = job.ID
		}
	}
	return r.moveStep(ctx, at, drs.PlanStepExecuting, r.steps[at].Error)
}

// validate tells all that keeps the servers from being recovered, or nothing.
func (r *run) validate(ctx context.Context, servers []drs.ExecutionServer) (string, error) {
	problem, err := refusal(r.jobs.CheckRecoveryIn(ctx, r.tx, r.e.Account, r.request(servers)))
	if problem == "" || err != nil {
		return "", err
	}
	// There is at least one; a person wants to know of all.
	var problems []string
	for _, server := range servers {
		one, err := refusal(r.jobs.CheckRecoveryIn(ctx, r.tx, r.e.Account, r.request([]drs.ExecutionServer{server})))
		if err != nil {
			return "", err
		}
		if one != "" {
			problems = append(problems, one)
		}
	}
	if len(problems) == 0 {
		return problem, nil
	}
	return strings.Join(problems, " "), nil
}

// refusal splits an error into what a person is told and what is a fault.
func refusal(err error) (string, error) {
	var refused *drs.Error
	if errors.As(err, &refused) {
		return refused.Message, nil
	}
	return "", err
}

func (r *run) request(servers []drs.ExecutionServer) drs.StartRecovery {
	request := drs.StartRecovery{Drill: r.e.Drill}
	for _, s := range servers {
		request.Servers = append(request.Servers, drs.StartRecoveryServer{SourceServer: s.SourceServer, Snapshot: s.Snapshot})
	}
	return request
}

// outcome tells whether a server's job has ended, and recovered it. A job may be
// deleted then; what it did, its server still tells until it is launched again.
func (r *run) outcome(ctx context.Context, server drs.ExecutionServer) (recovered, ended bool, err error) {
	if server.Job == "" {
		return false, true, nil
	}
	job, err := r.tx.JobByID(ctx, server.Job)
	if errors.Is(err, db.ErrAbsent) {
		kept, err := r.tx.SourceServers(ctx, r.e.Account, []drs.SourceServerID{server.SourceServer})
		was := kept[server.SourceServer]
		last := was.LifeCycle.LastLaunch
		return last != nil && last.Job == server.Job && was.LastLaunchResult == drs.LastLaunchSucceeded, true, err
	}
	if err != nil || job.Status != drs.JobCompleted {
		return false, false, err
	}
	for _, p := range job.Servers {
		if p.SourceServer == server.SourceServer && p.Recovered() {
			return true, true, nil
		}
	}
	return false, true, nil
}

func (r *run) failStep(ctx context.Context, at int, detail drs.ErrorDetail) error {
	if err := r.moveStep(ctx, at, drs.PlanStepFailed, detail); err != nil {
		return err
	}
	return r.stop(ctx, r.steps[at])
}

// stop ends a run at a failed step. One that is being cancelled is cancelled.
func (r *run) stop(ctx context.Context, step drs.ExecutionStep) error {
	if r.e.Status == drs.ExecutionCancelling {
		return r.finish(ctx)
	}
	return r.move(ctx, drs.ExecutionFailed, drs.ErrorDetail{
		Code: drs.PlanErrorStep, Message: fmt.Sprintf("Step %d, %q, failed: %s", step.Index, step.Name, step.Error.Message),
	})
}

// finish ends a run that has nothing more to do.
func (r *run) finish(ctx context.Context) error {
	if r.e.Status == drs.ExecutionCancelling {
		return r.move(ctx, drs.ExecutionCancelled, drs.ErrorDetail{})
	}
	var skipped []string
	for _, step := range r.steps {
		if step.Status == drs.PlanStepSkipped {
			skipped = append(skipped, fmt.Sprintf("%d, %q", step.Index, step.Name))
		}
	}
	var notice drs.ErrorDetail
	if len(skipped) > 0 {
		notice = drs.ErrorDetail{Code: drs.PlanErrorSkipped, Message: "Completed without the skipped steps: " + strings.Join(skipped, "; ") + "."}
	}
	return r.move(ctx, drs.ExecutionCompleted, notice)
}

// timeOut ends a run for good. Jobs that run go on.
func (r *run) timeOut(ctx context.Context) error {
	detail := drs.ErrorDetail{Code: drs.PlanErrorTimeout, Message: "The execution took longer than 24 hours. Start another one of the plan for what is left."}
	for i, step := range r.steps {
		if step.Status == drs.PlanStepExecuting || step.Status == drs.PlanStepWaiting {
			if err := r.moveStep(ctx, i, drs.PlanStepTimedOut, detail); err != nil {
				return err
			}
		}
	}
	return r.move(ctx, drs.ExecutionFailed, detail)
}

func (r *run) move(ctx context.Context, to drs.ExecutionStatus, detail drs.ErrorDetail) error {
	r.e.Status, r.e.Error, r.e.Completed = to, detail, time.Time{}
	if !to.Running() {
		r.e.Completed = r.now
	}
	return r.tx.MovePlanExecution(ctx, r.e)
}

func (r *run) moveStep(ctx context.Context, at int, to drs.ExecutionStepStatus, detail drs.ErrorDetail) error {
	r.steps[at].Status, r.steps[at].Error, r.steps[at].Updated = to, detail, r.now
	return r.tx.MoveExecutionStep(ctx, r.steps[at])
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
