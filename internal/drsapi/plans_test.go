package drsapi

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// ask sends an operation as home and returns its reply, which must have the
// status.
func (s *site) ask(status int, operation string, in map[string]any) map[string]any {
	s.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		s.t.Fatal(err)
	}
	got := s.send(home, "POST", "/"+operation, string(body))
	if got.status != status {
		s.t.Fatalf("%s: %d %s, want %d\n%s", operation, got.status, got.body, status, s.log)
	}
	out := map[string]any{}
	if err := json.Unmarshal(got.body, &out); err != nil {
		s.t.Fatalf("%s: %v", operation, err)
	}
	return out
}

// refuses sends an operation that must be refused, with the exception and a part
// of its message.
func (s *site) refuses(exception, part, operation string, in map[string]any) {
	s.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		s.t.Fatal(err)
	}
	got := s.send(home, "POST", "/"+operation, string(body))
	if name := got.header.Get("X-Amzn-Errortype"); name != exception || !strings.Contains(string(got.body), part) {
		s.t.Errorf("%s %s: %d %s, want %s with %q", operation, body, got.status, got.body, exception, part)
	}
}

type obj = map[string]any

func servers(list ...drs.SourceServer) obj {
	var out []any
	for _, s := range list {
		out = append(out, obj{"serverArn": s.ARN()})
	}
	return obj{"serverStepConfiguration": obj{"servers": out}}
}

func waiting(minutes int) obj {
	return obj{"waitStepConfiguration": obj{"waitDurationMinutes": minutes}}
}

// What a tool that manages plans as code does: create, read, update, read, delete,
// and no difference between what it wrote and what it reads.
func TestPlanRoundTrip(t *testing.T) {
	s := newSite(t)
	a, b := s.addServer(home, "web1"), s.addServer(home, "web2")
	made := s.ask(201, "CreateRecoveryPlan", obj{"name": "Shop 1", "description": "The shop", "tags": obj{"team": "a"}, "clientToken": "t1"})["recoveryPlan"].(obj)
	arn := made["recoveryPlanArn"].(string)
	if made["status"] != "INVALID" || made["name"] != "Shop 1" || made["description"] != "The shop" || !reflect.DeepEqual(made["tags"], obj{"team": "a"}) {
		t.Errorf("%v", made)
	}
	same := func(what string, want, got any) {
		t.Helper()
		if !reflect.DeepEqual(want, got) {
			t.Errorf("%s:\nwrote %v\nreads %v", what, want, got)
		}
	}
	same("created", made, s.ask(200, "GetRecoveryPlan", obj{"recoveryPlanArn": arn})["recoveryPlan"])
	same("the same request again", made, s.ask(201, "CreateRecoveryPlan", obj{"name": "Shop 1", "description": "The shop", "tags": obj{"team": "a"}, "clientToken": "t1"})["recoveryPlan"])
	s.refuses("ConflictException", "clientToken", "CreateRecoveryPlan", obj{"name": "Other", "clientToken": "t1"})
	s.refuses("ConflictException", "Shop 1", "CreateRecoveryPlan", obj{"name": "Shop 1"})

	one := s.ask(201, "CreateRecoveryPlanStep", obj{"recoveryPlanArn": arn, "stepName": "one", "configuration": servers(a), "clientToken": "s1"})["recoveryPlanStep"].(obj)
	again := s.ask(201, "CreateRecoveryPlanStep", obj{"recoveryPlanArn": arn, "stepName": "one", "configuration": servers(a), "clientToken": "s1"})["recoveryPlanStep"]
	same("the same step again", one, again)
	two := s.ask(201, "CreateRecoveryPlanStep", obj{"recoveryPlanArn": arn, "stepName": "two", "configuration": waiting(5)})["recoveryPlanStep"].(obj)
	first := s.ask(201, "CreateRecoveryPlanStep", obj{"recoveryPlanArn": arn, "stepName": "first", "stepOrder": 1, "configuration": obj{
		"serverStepConfiguration": obj{"servers": []any{obj{"serverArn": b.ARN(), "impactLevel": "OPTIONAL"}}}}})["recoveryPlanStep"].(obj)
	if first["stepOrder"] != 1.0 || one["stepOrder"] != 1.0 || two["stepOrder"] != 2.0 {
		t.Errorf("orders %v %v %v", first["stepOrder"], one["stepOrder"], two["stepOrder"])
	}
	names := func() string {
		var out []string
		for _, step := range s.ask(200, "ListRecoveryPlanSteps", obj{"recoveryPlanArn": arn})["recoveryPlanSteps"].([]any) {
			out = append(out, fmt.Sprint(step.(obj)["stepOrder"], step.(obj)["stepName"]))
		}
		return strings.Join(out, " ")
	}
	if got := names(); got != "1first 2one 3two" {
		t.Errorf("steps %s", got)
	}
	same("a step", first, s.ask(200, "GetRecoveryPlanStep", obj{"recoveryPlanStepArn": first["recoveryPlanStepArn"]})["recoveryPlanStep"])
	if plan := s.ask(200, "GetRecoveryPlan", obj{"recoveryPlanArn": arn})["recoveryPlan"].(obj); plan["status"] != "ACTIVE" {
		t.Errorf("with servers it is %v", plan["status"])
	}

	changed := s.ask(200, "UpdateRecoveryPlanStep", obj{"recoveryPlanStepArn": two["recoveryPlanStepArn"], "stepName": "pause", "configuration": waiting(7)})["recoveryPlanStep"]
	same("an updated step", changed, s.ask(200, "GetRecoveryPlanStep", obj{"recoveryPlanStepArn": two["recoveryPlanStepArn"]})["recoveryPlanStep"])
	updated := s.ask(200, "UpdateRecoveryPlan", obj{"recoveryPlanArn": arn, "name": "Shop 2", "description": ""})["recoveryPlan"].(obj)
	if updated["name"] != "Shop 2" || updated["description"] != nil {
		t.Errorf("%v", updated)
	}
	same("updated", updated, s.ask(200, "GetRecoveryPlan", obj{"recoveryPlanArn": arn})["recoveryPlan"])
	same("updated with the same", updated, s.ask(200, "UpdateRecoveryPlan", obj{"recoveryPlanArn": arn, "name": "Shop 2"})["recoveryPlan"])

	s.ask(200, "ReorderRecoveryPlanSteps", obj{"recoveryPlanArn": arn, "orderedStepArns": []any{one["recoveryPlanStepArn"], two["recoveryPlanStepArn"], first["recoveryPlanStepArn"]}})
	if got := names(); got != "1one 2pause 3first" {
		t.Errorf("steps %s", got)
	}
	for _, step := range []obj{first, two, one} {
		s.ask(200, "DeleteRecoveryPlanStep", obj{"recoveryPlanStepArn": step["recoveryPlanStepArn"]})
	}
	if plan := s.ask(200, "GetRecoveryPlan", obj{"recoveryPlanArn": arn})["recoveryPlan"].(obj); plan["status"] != "INVALID" {
		t.Errorf("without servers it is %v", plan["status"])
	}
	if gone := s.ask(200, "DeleteRecoveryPlan", obj{"recoveryPlanArn": arn}); gone["recoveryPlanArn"] != arn {
		t.Errorf("%v", gone)
	}
	s.refuses("ResourceNotFoundException", "", "GetRecoveryPlan", obj{"recoveryPlanArn": arn})
	s.refuses("ResourceNotFoundException", "", "DeleteRecoveryPlan", obj{"recoveryPlanArn": arn})
	s.refuses("ResourceNotFoundException", "", "GetRecoveryPlanStep", obj{"recoveryPlanStepArn": one["recoveryPlanStepArn"]})
}

func TestPlanRules(t *testing.T) {
	s := newSite(t)
	a, b := s.addServer(home, "web1"), s.addServer(home, "web2")
	foreign := s.addServer(other, "web3")
	arn := s.ask(201, "CreateRecoveryPlan", obj{"name": "p"})["recoveryPlan"].(obj)["recoveryPlanArn"]
	step := func(name string, configuration obj) obj {
		return obj{"recoveryPlanArn": arn, "stepName": name, "configuration": configuration}
	}
	s.refuses("ValidationException", "begin with a wait", "CreateRecoveryPlanStep", step("w", waiting(5)))
	s.refuses("ValidationException", "exactly one", "CreateRecoveryPlanStep", step("n", obj{}))
	both := servers(a)
	both["waitStepConfiguration"] = obj{"waitDurationMinutes": 5}
	s.refuses("ValidationException", "exactly one", "CreateRecoveryPlanStep", step("b", both))
	s.refuses("ValidationException", "twice", "CreateRecoveryPlanStep", step("t", servers(a, a)))
	s.refuses("ResourceNotFoundException", string(foreign.ID), "CreateRecoveryPlanStep", step("f", servers(foreign)))
	gone := a
	gone.ID = "s-00000000000000000"
	s.refuses("ResourceNotFoundException", string(gone.ID), "CreateRecoveryPlanStep", step("g", servers(gone)))
	late := step("l", servers(a))
	late["stepOrder"] = 3
	s.refuses("ValidationException", "gap", "CreateRecoveryPlanStep", late)

	one := s.ask(201, "CreateRecoveryPlanStep", step("one", servers(a)))["recoveryPlanStep"].(obj)
	pause := s.ask(201, "CreateRecoveryPlanStep", step("pause", waiting(5)))["recoveryPlanStep"].(obj)
	s.refuses("ValidationException", "twice", "CreateRecoveryPlanStep", step("t", servers(a)))
	first := step("w", waiting(5))
	first["stepOrder"] = 1
	s.refuses("ValidationException", "begin with a wait", "CreateRecoveryPlanStep", first)
	s.refuses("ConflictException", "begin with a wait", "DeleteRecoveryPlanStep", obj{"recoveryPlanStepArn": one["recoveryPlanStepArn"]})
	s.refuses("ValidationException", "keeps its kind", "UpdateRecoveryPlanStep", obj{"recoveryPlanStepArn": one["recoveryPlanStepArn"], "configuration": waiting(1)})
	s.refuses("ValidationException", "keeps its kind", "UpdateRecoveryPlanStep", obj{"recoveryPlanStepArn": pause["recoveryPlanStepArn"], "configuration": servers(b)})
	order := func(arns ...any) obj { return obj{"recoveryPlanArn": arn, "orderedStepArns": arns} }
	s.refuses("ValidationException", "begin with a wait", "ReorderRecoveryPlanSteps", order(pause["recoveryPlanStepArn"], one["recoveryPlanStepArn"]))
	s.refuses("ValidationException", "Name every one", "ReorderRecoveryPlanSteps", order(one["recoveryPlanStepArn"]))
	s.refuses("ValidationException", "twice", "ReorderRecoveryPlanSteps", order(one["recoveryPlanStepArn"], one["recoveryPlanStepArn"]))
	s.refuses("ValidationException", "not a step", "ReorderRecoveryPlanSteps", order(arn))

	for n := 3; n <= drs.MaxPlanSteps; n++ {
		s.ask(201, "CreateRecoveryPlanStep", step(fmt.Sprint("pause ", n), waiting(1)))
	}
	s.refuses("ServiceQuotaExceededException", "20 steps", "CreateRecoveryPlanStep", step("one more", waiting(1)))

	// Another account sees nothing of it.
	s.ask(200, "ListRecoveryPlans", obj{})
	if err := s.db.Initialize(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	if got := s.send(other, "POST", "/ListRecoveryPlans", "{}"); string(got.body) != `{"recoveryPlans":[]}` {
		t.Errorf("another account lists %s", got.body)
	}
	if got := s.send(other, "POST", "/GetRecoveryPlan", fmt.Sprintf(`{"recoveryPlanArn":%q}`, arn)); got.status != 404 {
		t.Errorf("another account reads %d %s", got.status, got.body)
	}
}

func TestPlanServersQuota(t *testing.T) {
	s := newSite(t)
	var all []drs.SourceServer
	for i := range drs.MaxPlanServers + 1 {
		all = append(all, s.addServer(home, fmt.Sprintf("web%03d", i)))
	}
	arn := s.ask(201, "CreateRecoveryPlan", obj{"name": "p"})["recoveryPlan"].(obj)["recoveryPlanArn"]
	s.ask(201, "CreateRecoveryPlanStep", obj{"recoveryPlanArn": arn, "stepName": "most", "configuration": servers(all[:drs.MaxPlanServers]...)})
	s.refuses("ServiceQuotaExceededException", "101 servers", "CreateRecoveryPlanStep",
		obj{"recoveryPlanArn": arn, "stepName": "more", "configuration": servers(all[drs.MaxPlanServers:]...)})
}

func TestPlanPages(t *testing.T) {
	s := newSite(t)
	var want []any
	for i := range 5 {
		want = append(want, s.ask(201, "CreateRecoveryPlan", obj{"name": fmt.Sprint("p", i)})["recoveryPlan"].(obj)["recoveryPlanArn"])
	}
	var got []any
	in := obj{"maxResults": 2}
	for pages := 1; ; pages++ {
		out := s.ask(200, "ListRecoveryPlans", in)
		for _, p := range out["recoveryPlans"].([]any) {
			got = append(got, p.(obj)["recoveryPlanArn"])
		}
		if out["nextToken"] == nil {
			if pages != 3 {
				t.Errorf("%d pages", pages)
			}
			break
		}
		in["nextToken"] = out["nextToken"]
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	s.refuses("ValidationException", "maxResults", "ListRecoveryPlans", obj{"maxResults": 1001})
	s.refuses("ValidationException", "nextToken", "ListRecoveryPlanExecutions", in)
}

// An execution as a client sees it, from its start to the end of its record.
func TestPlanExecution(t *testing.T) {
	s := newSite(t)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.plans.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	a, b := s.addServer(home, "web1"), s.addServer(home, "web2")
	arn := s.ask(201, "CreateRecoveryPlan", obj{"name": "p"})["recoveryPlan"].(obj)["recoveryPlanArn"]
	s.refuses("ValidationException", "no steps", "StartRecoveryPlanExecution", obj{"recoveryPlanArn": arn, "mode": "DRILL"})
	s.ask(201, "CreateRecoveryPlanStep", obj{"recoveryPlanArn": arn, "stepName": "one", "configuration": servers(a)})
	s.ask(201, "CreateRecoveryPlanStep", obj{"recoveryPlanArn": arn, "stepName": "pause", "configuration": waiting(60)})
	s.ask(201, "CreateRecoveryPlanStep", obj{"recoveryPlanArn": arn, "stepName": "two", "configuration": servers(b)})

	run := s.ask(201, "StartRecoveryPlanExecution", obj{"recoveryPlanArn": arn, "mode": "DRILL", "tags": obj{"why": "practice"}, "clientToken": "e1"})["recoveryPlanExecution"].(obj)
	if run["status"] != "CREATED" || run["mode"] != "DRILL" || run["recoveryPlanArn"] != arn || run["tags"].(obj)["why"] != "practice" {
		t.Errorf("%v", run)
	}
	runARN := run["recoveryPlanExecutionArn"]
	again := s.ask(201, "StartRecoveryPlanExecution", obj{"recoveryPlanArn": arn, "mode": "DRILL", "tags": obj{"why": "practice"}, "clientToken": "e1"})["recoveryPlanExecution"].(obj)
	if again["recoveryPlanExecutionArn"] != runARN {
		t.Errorf("the same request began another run: %v", again)
	}
	steps := func() []any {
		return s.ask(200, "ListRecoveryPlanExecutionSteps", obj{"recoveryPlanExecutionArn": runARN})["recoveryPlanExecutionSteps"].([]any)
	}
	until := func(index int, status string) obj {
		t.Helper()
		for deadline := time.Now().Add(3 * time.Minute); ; {
			step := steps()[index].(obj)
			if step["status"] == status {
				return step
			}
			if time.Now().After(deadline) {
				t.Fatalf("step %d is %v", index+1, step)
			}
			time.Sleep(5 * time.Millisecond) // a reply cannot be waited on
		}
	}
	executing := until(0, "EXECUTING")
	unstarted := obj{"recoveryPlanExecutionArn": runARN, "filter": obj{"status": "NOT_STARTED"}, "maxResults": 1}
	first := s.ask(200, "ListRecoveryPlanExecutionSteps", unstarted)
	var job drs.JobID
	for job == "" {
		server := until(0, "EXECUTING")["configuration"].(obj)["executionServerStepConfiguration"].(obj)["servers"].([]any)[0].(obj)
		if id, ok := server["jobID"].(string); ok {
			job = drs.JobID(id)
		}
		if server["impactLevel"] != "CRITICAL" || server["serverArn"] != a.ARN() {
			t.Fatalf("%v", server)
		}
	}
	err := s.db.InTx(t.Context(), func(ctx context.Context, tx db.Tx) error {
		for _, err := range []error{
			tx.SetJobStatus(ctx, job, drs.JobStarted), tx.SetLaunchStatus(ctx, job, a.ID, "", drs.LaunchInProgress, ""),
			tx.SetLaunchStatus(ctx, job, a.ID, "", drs.LaunchLaunched, ""), tx.SetJobStatus(ctx, job, drs.JobCompleted),
		} {
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.plans.Wake()
	until(1, "WAITING")
	// The step that the first page ended with has moved on; the second goes on after it.
	unstarted["nextToken"] = first["nextToken"]
	second := s.ask(200, "ListRecoveryPlanExecutionSteps", unstarted)["recoveryPlanExecutionSteps"].([]any)
	if len(second) != 1 || second[0].(obj)["stepIndex"] != 3.0 {
		t.Errorf("second page %v", second)
	}
	if filtered := s.ask(200, "ListRecoveryPlanExecutionSteps", obj{"recoveryPlanExecutionArn": runARN, "filter": obj{"status": "WAITING"}})["recoveryPlanExecutionSteps"].([]any); len(filtered) != 1 {
		t.Errorf("%v", filtered)
	}
	full := s.ask(200, "GetRecoveryPlanExecutionStep", obj{"recoveryPlanExecutionStepArn": executing["recoveryPlanExecutionStepArn"]})["recoveryPlanExecutionStep"].(obj)
	if full["attempt"] != 1.0 || full["status"] != "COMPLETED" || full["stepIndex"] != 1.0 {
		t.Errorf("%v", full)
	}

	last := steps()[2].(obj)["recoveryPlanExecutionStepArn"]
	s.refuses("ValidationException", "exactly one", "UpdateRecoveryPlanExecutionStep", obj{"recoveryPlanExecutionStepArn": last})
	s.refuses("ValidationException", "SKIPPED only", "UpdateRecoveryPlanExecutionStep", obj{"recoveryPlanExecutionStepArn": last, "status": "COMPLETED"})
	s.refuses("ConflictException", "NOT_STARTED", "RetryRecoveryPlanExecutionStep", obj{"recoveryPlanExecutionStepArn": last})
	s.refuses("ConflictException", "IN_PROGRESS", "DeleteRecoveryPlanExecution", obj{"recoveryPlanExecutionArn": runARN})
	s.refuses("ConflictException", "", "StartRecoveryPlanExecution", obj{"recoveryPlanArn": arn, "mode": "RECOVERY"})
	if got := s.ask(200, "CancelRecoveryPlanExecution", obj{"recoveryPlanExecutionArn": runARN})["recoveryPlanExecution"].(obj); got["status"] != "CANCELLING" {
		t.Errorf("%v", got)
	}
	until(1, "SKIPPED")
	for s.ask(200, "GetRecoveryPlanExecution", obj{"recoveryPlanExecutionArn": runARN})["recoveryPlanExecution"].(obj)["status"] != "CANCELLED" {
		time.Sleep(5 * time.Millisecond) // likewise
	}
	list := s.ask(200, "ListRecoveryPlanExecutions", obj{"recoveryPlanArn": arn, "status": "CANCELLED"})["recoveryPlanExecutions"].([]any)
	if len(list) != 1 || list[0].(obj)["recoveryPlanExecutionArn"] != runARN {
		t.Errorf("%v", list)
	}
	none := s.ask(200, "ListRecoveryPlanExecutions", obj{"recoveryPlanArn": "arn:aws:drs:eu-west-1:999999999999:recovery-plan/plan-0123456789abcdef0"})
	if len(none["recoveryPlanExecutions"].([]any)) != 0 {
		t.Errorf("%v", none)
	}
	s.ask(200, "DeleteRecoveryPlanExecution", obj{"recoveryPlanExecutionArn": runARN})
	s.refuses("ResourceNotFoundException", "", "GetRecoveryPlanExecution", obj{"recoveryPlanExecutionArn": runARN})
}

// A server is taken out of its plans before it can be deleted.
func TestServersOfPlansStay(t *testing.T) {
	s := newSite(t)
	a := s.addServer(home, "web1")
	arn := s.ask(201, "CreateRecoveryPlan", obj{"name": "p"})["recoveryPlan"].(obj)["recoveryPlanArn"]
	step := s.ask(201, "CreateRecoveryPlanStep", obj{"recoveryPlanArn": arn, "stepName": "one", "configuration": servers(a)})["recoveryPlanStep"].(obj)
	s.ask(200, "DisconnectSourceServer", obj{"sourceServerID": string(a.ID)})
	s.refuses("ConflictException", "recovery plan", "DeleteSourceServer", obj{"sourceServerID": string(a.ID)})
	s.ask(200, "DeleteRecoveryPlanStep", obj{"recoveryPlanStepArn": step["recoveryPlanStepArn"]})
	if got := s.send(home, "POST", "/DeleteSourceServer", `{"sourceServerID":"`+string(a.ID)+`"}`); got.status != 204 {
		t.Errorf("%d %s", got.status, got.body)
	}
}
