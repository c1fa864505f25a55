package drsapi

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// identifiers are IDs of each kind, by their prefix.
var identifiers = regexp.MustCompile(`\b(s|i|drsjob|pit|rct|lct|sn|plan|execution|exec|step)-[0-9a-zA-Z]{8,32}\b`)

// strangers are the operations that reach over accounts by design, with the consent
// of the other one, and have tests of their own for it.
var strangers = []string{"CreateExtendedSourceServer", "ListExtensibleSourceServers", "ListStagingAccounts"}

// Nothing crosses accounts: whatever operation is asked for what another account
// has, the answer is the one for what does not exist.
func TestNothingCrossesAccounts(t *testing.T) {
	m, s := readModel(t), newSite(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.db.Initialize(t.Context(), other))
	server := s.addServer(other, "foreign1")
	point := s.addPoint(server.ID, time.Now(), drs.CrashConsistent)
	job := drs.Job{ID: drs.NewJobID(), Account: other, Type: drs.JobLaunch, Initiated: drs.StartedDrill, Status: drs.JobPending, Created: time.Now()}
	must(s.db.InTx(t.Context(), func(ctx context.Context, tx db.Tx) error { return tx.InsertJob(ctx, job) }))
	instance := s.addInstance(server, job.ID)
	made := func(operation, body string) map[string]any {
		t.Helper()
		got := s.send(other, "POST", "/"+operation, body)
		if got.status > 299 {
			t.Fatalf("%s: %s", operation, got.body)
		}
		return got.object(t)
	}
	plan := made("CreateRecoveryPlan", `{"name":"p"}`)["recoveryPlan"].(map[string]any)["recoveryPlanArn"].(string)
	network := made("CreateSourceNetwork", `{"vpcID":"vpc-0123456789abcdef0","originAccountID":"444455556666","originRegion":"eu-west-1"}`)["sourceNetworkID"].(string)
	foreign := map[string]string{
		"s": string(server.ID), "i": string(instance.ID), "drsjob": string(job.ID), "pit": string(point.ID), "sn": network,
	}
	for kind, operation := range map[string]string{"rct": "DescribeReplicationConfigurationTemplates", "lct": "DescribeLaunchConfigurationTemplates"} {
		text, err := json.Marshal(made(operation, "{}"))
		must(err)
		for _, id := range identifiers.FindAllString(string(text), -1) {
			if strings.HasPrefix(id, kind+"-") {
				foreign[kind] = id
			}
		}
	}

	asked := 0
	for _, op := range s.api.operations {
		if slices.Contains(strangers, op.name) {
			continue
		}
		text, err := json.Marshal(m.sample(t, m.Operations[op.name].Input.Shape, false))
		must(err)
		if filtered := m.sample(t, m.Operations[op.name].Input.Shape, true); op.access.targets == nil && strings.HasPrefix(op.name, "Describe") {
			text, err = json.Marshal(filtered) // what it lists by
			must(err)
		}
		text = []byte(strings.ReplaceAll(string(text), "111122223333", other.ID))
		for _, t := range op.access.targets {
			if t.kind == "" && strings.Contains(t.path, "Arn") && strings.Contains(t.path, "Plan") {
				text = regexp.MustCompile(`arn:aws:drs:[^"]*`).ReplaceAll(text, []byte(plan))
			}
		}
		with := func(id func(kind, old string) string) reply {
			body := identifiers.ReplaceAllStringFunc(string(text), func(old string) string {
				kind, _, _ := strings.Cut(old, "-")
				return id(kind, old)
			})
			input := map[string]any{}
			must(json.Unmarshal([]byte(body), &input))
			return m.invoke(t, s, op.name, input)
		}
		named := 0
		theirs := with(func(kind, old string) string {
			named++
			if id, ok := foreign[kind]; ok {
				return id
			}
			return old
		})
		if named == 0 {
			continue
		}
		asked++
		nobodys := with(func(kind, old string) string { return old[:len(old)-8] + "deadbeef" })
		plain := func(r reply) string { return identifiers.ReplaceAllString(string(r.body), "ID") }
		if theirs.status != nobodys.status || plain(theirs) != plain(nobodys) {
			t.Errorf("%s tells what another account has:\n%d %s\nand of what does not exist:\n%d %s", op.name, theirs.status, theirs.body, nobodys.status, nobodys.body)
		}
		if theirs.status < 300 && strings.Contains(string(theirs.body), "foreign1") {
			t.Errorf("%s shows another account's server: %s", op.name, theirs.body)
		}
	}
	if asked < 40 {
		t.Errorf("only %d operations were asked for what they name", asked)
	}
	// And nothing of the other account was changed.
	if kept, err := s.db.SourceServer(t.Context(), other, server.ID); err != nil || len(kept.Tags) > 0 || kept.Replication.State == drs.ReplicationDisconnected {
		t.Errorf("the other account's server: %+v, %v", kept, err)
	}
	if got := s.send(other, "POST", "/GetRecoveryPlan", `{"recoveryPlanArn":"`+plan+`"}`); got.status != 200 {
		t.Errorf("the other account's plan: %s", got.body)
	}
	if got := s.send(other, "POST", "/DescribeJobs", `{"filters":{"jobIDs":["`+string(job.ID)+`"]}}`); !strings.Contains(string(got.body), string(job.ID)) {
		t.Errorf("the other account's job: %s", got.body)
	}
}
