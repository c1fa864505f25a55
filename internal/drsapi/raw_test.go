package drsapi

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// call sends a request to an operation that the SDK does not have yet, and returns
// its reply, which must have the status.
func (s *site) call(t *testing.T, operation string, status int, input map[string]any) map[string]any {
	t.Helper()
	text, err := json.Marshal(input)
	if err != nil {
		t.Fatal(err)
	}
	got := s.send(home, "POST", "/"+operation, string(text))
	if got.status != status {
		t.Fatalf("%s %s: %d %s, want %d", operation, text, got.status, got.body, status)
	}
	if len(got.body) == 0 {
		return nil
	}
	return got.object(t)
}

// at follows members into a reply.
func at(t *testing.T, v any, path ...string) any {
	t.Helper()
	for _, member := range path {
		object, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("no %v in %v", path, v)
		}
		v = object[member]
	}
	return v
}

type input = map[string]any

// Recovery plans from their making to the end of a run in which a step fails, is
// tried again, and is cancelled.
func TestRawRecoveryPlans(t *testing.T) {
	s := newSite(t)
	server := s.replicating(home, "web1")
	plan := at(t, s.call(t, "CreateRecoveryPlan", 201, input{"name": "Plan 1", "tags": input{"a": "b"}}), "recoveryPlan", "recoveryPlanArn")
	of := input{"recoveryPlanArn": plan}
	if got := at(t, s.call(t, "UpdateRecoveryPlan", 200, input{"recoveryPlanArn": plan, "description": "all of it"}), "recoveryPlan", "description"); got != "all of it" {
		t.Errorf("updated description: %v", got)
	}
	servers := input{"serverStepConfiguration": input{"servers": []any{input{"serverArn": server.ARN()}}}}
	step := func(name string, config any) any {
		t.Helper()
		return at(t, s.call(t, "CreateRecoveryPlanStep", 201, input{"recoveryPlanArn": plan, "stepName": name, "configuration": config}), "recoveryPlanStep", "recoveryPlanStepArn")
	}
	first := step("web", servers)
	wait := step("wait", input{"waitStepConfiguration": input{"waitDurationMinutes": 5}})
	extra := step("wait more", input{"waitStepConfiguration": input{"waitDurationMinutes": 1}})
	s.call(t, "ReorderRecoveryPlanSteps", 200, input{"recoveryPlanArn": plan, "orderedStepArns": []any{first, extra, wait}})
	s.call(t, "UpdateRecoveryPlanStep", 200, input{"recoveryPlanStepArn": wait, "stepName": "wait less"})
	s.call(t, "DeleteRecoveryPlanStep", 200, input{"recoveryPlanStepArn": extra})
	if got := at(t, s.call(t, "GetRecoveryPlanStep", 200, input{"recoveryPlanStepArn": wait}), "recoveryPlanStep", "stepOrder"); got != float64(2) {
		t.Errorf("order of the step: %v", got)
	}
	if got := at(t, s.call(t, "ListRecoveryPlanSteps", 200, of), "recoveryPlanSteps"); len(got.([]any)) != 2 {
		t.Errorf("steps: %v", got)
	}
	if got := at(t, s.call(t, "GetRecoveryPlan", 200, of), "recoveryPlan", "status"); got != "ACTIVE" {
		t.Errorf("status: %v", got)
	}

	execution := at(t, s.call(t, "StartRecoveryPlanExecution", 201, input{"recoveryPlanArn": plan, "mode": "DRILL"}), "recoveryPlanExecution", "recoveryPlanExecutionArn")
	run := input{"recoveryPlanExecutionArn": execution}
	steps := at(t, s.call(t, "ListRecoveryPlanExecutionSteps", 200, run), "recoveryPlanExecutionSteps").([]any)
	if len(steps) != 2 {
		t.Fatalf("steps of the run: %v", steps)
	}
	runStep, runWait := at(t, steps[0], "recoveryPlanExecutionStepArn"), at(t, steps[1], "recoveryPlanExecutionStepArn")

	life, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.plans.Run(life) }()
	defer func() {
		end()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	status := func() any {
		return at(t, s.call(t, "GetRecoveryPlanExecutionStep", 200, input{"recoveryPlanExecutionStepArn": runStep}), "recoveryPlanExecutionStep", "status")
	}
	// fail ends the job that the step started, with its server not launched.
	fail := func(after int) {
		t.Helper()
		var jobs []drs.Job
		s.until(t, "the step's job", func() bool {
			s.plans.Wake()
			var err error
			jobs, _, err = s.db.Jobs(t.Context(), home, db.JobFilter{}, db.Page{Limit: 10})
			return err == nil && len(jobs) > after
		})
		err := s.db.InTx(t.Context(), func(ctx context.Context, tx db.Tx) error {
			return errors.Join(
				tx.SetLaunchStatus(ctx, jobs[0].ID, server.ID, "", drs.LaunchInProgress, ""), tx.SetLaunchStatus(ctx, jobs[0].ID, server.ID, "", drs.LaunchFailed, ""),
				tx.SetJobStatus(ctx, jobs[0].ID, drs.JobStarted), tx.SetJobStatus(ctx, jobs[0].ID, drs.JobCompleted))
		})
		if err != nil {
			t.Fatal(err)
		}
		s.until(t, "the step's failure", func() bool { s.plans.Wake(); return status() == "FAILED" })
	}
	fail(0)
	s.call(t, "RetryRecoveryPlanExecutionStep", 200, input{"recoveryPlanExecutionStepArn": runStep})
	fail(1)
	s.call(t, "RetryRecoveryPlanExecutionStep", 200, input{"recoveryPlanExecutionStepArn": runStep})
	s.call(t, "UpdateRecoveryPlanExecutionStep", 200, input{"recoveryPlanExecutionStepArn": runWait, "waitDurationMinutes": 9})
	s.call(t, "CancelRecoveryPlanExecution", 200, run)
	fail(2)
	s.until(t, "the end of the run", func() bool {
		s.plans.Wake()
		state := at(t, s.call(t, "GetRecoveryPlanExecution", 200, run), "recoveryPlanExecution", "status")
		return state == "CANCELLED" || state == "FAILED"
	})
	if got := at(t, s.call(t, "ListRecoveryPlanExecutions", 200, of), "recoveryPlanExecutions"); len(got.([]any)) != 1 {
		t.Errorf("runs: %v", got)
	}
	s.call(t, "DeleteRecoveryPlanExecution", 200, run)
	s.call(t, "DeleteRecoveryPlan", 200, of)
	if got := at(t, s.call(t, "ListRecoveryPlans", 200, input{}), "recoveryPlans"); len(got.([]any)) != 0 {
		t.Errorf("plans: %v", got)
	}
}

func TestRawSourceNetworks(t *testing.T) {
	s := newSite(t)
	id := at(t, s.call(t, "CreateSourceNetwork", 201, input{"vpcID": "vpc-0123456789abcdef0", "originAccountID": home.ID, "originRegion": home.Region}), "sourceNetworkID")
	of := input{"sourceNetworkID": id}
	s.call(t, "StartSourceNetworkReplication", 200, of)
	if got := at(t, s.call(t, "DescribeSourceNetworks", 200, input{}), "items"); len(got.([]any)) != 1 {
		t.Errorf("networks: %v", got)
	}
	s.call(t, "ExportSourceNetworkCfnTemplate", 200, of)
	job := at(t, s.call(t, "StartSourceNetworkRecovery", 202, input{"sourceNetworks": []any{of}}), "job")
	if at(t, job, "initiatedBy") != "CREATE_NETWORK_RECOVERY" {
		t.Errorf("job: %v", job)
	}
	s.call(t, "DescribeJobs", 200, input{}) // shows the network that takes part

	second := input{"sourceNetworkID": at(t, s.call(t, "CreateSourceNetwork", 201, input{"vpcID": "vpc-0123456789abcdef1", "originAccountID": home.ID, "originRegion": home.Region}), "sourceNetworkID")}
	s.call(t, "DeleteSourceNetwork", 204, second)
	third := input{"sourceNetworkID": at(t, s.call(t, "CreateSourceNetwork", 201, input{"vpcID": "vpc-0123456789abcdef2", "originAccountID": home.ID, "originRegion": home.Region}), "sourceNetworkID")}
	s.call(t, "StartSourceNetworkReplication", 200, third)
	s.call(t, "StopSourceNetworkReplication", 200, third)
	s.call(t, "AssociateSourceNetworkStack", 202, input{"sourceNetworkID": third["sourceNetworkID"], "cfnStackName": "isolated"})
}

// until polls what can only be looked up.
func (s *site) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}
