package drsapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// invoke sends an input of the model's form: members go to path, query or body
// as the model says.
func (m *model) invoke(t *testing.T, s *site, name string, input map[string]any) reply {
	t.Helper()
	op := m.Operations[name]
	target, query, body := op.HTTP.RequestURI, []string{}, map[string]any{}
	for member, v := range input {
		switch m.Shapes[op.Input.Shape].Members[member].Location {
		case "uri":
			target = strings.Replace(target, "{"+member+"}", escape(fmt.Sprint(v)), 1)
		case "querystring":
			list, ok := v.([]any)
			if !ok {
				list = []any{v}
			}
			for _, item := range list {
				query = append(query, member+"="+escape(fmt.Sprint(item)))
			}
		default:
			body[member] = v
		}
	}
	if len(query) > 0 {
		target += "?" + strings.Join(query, "&")
	}
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	if op.HTTP.Method == "GET" || op.HTTP.Method == "DELETE" {
		text = nil
	}
	return s.send(home, op.HTTP.Method, target, string(text))
}

func escape(s string) string {
	var out strings.Builder
	for _, b := range []byte(s) {
		if b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || strings.IndexByte("-._~", b) >= 0 {
			out.WriteByte(b)
		} else {
			fmt.Fprintf(&out, "%%%02X", b)
		}
	}
	return out.String()
}

func supported(m *model, s *site) []string {
	var names []string
	for _, op := range s.api.operations {
		names = append(names, op.name)
	}
	slices.Sort(names)
	return names
}

// Every operation of the model is there, at its path and with its status, and no
// other.
func TestModelOperations(t *testing.T) {
	m, s := readModel(t), newSite(t)
	if names := supported(m, s); len(names) != len(m.Operations) {
		t.Errorf("%d operations are supported, want %d", len(names), len(m.Operations))
	}
	for name, op := range m.Operations {
		path := strings.Replace(op.HTTP.RequestURI, "{resourceArn}", "", 1)
		ours := s.api.operations[route{op.HTTP.Method, path}]
		switch {
		case ours == nil || ours.name != name:
			t.Errorf("%s is not at %s %s", name, op.HTTP.Method, path)
		case ours.status != op.HTTP.ResponseCode:
			t.Errorf("%s answers %d, want %d", name, ours.status, op.HTTP.ResponseCode)
		}
	}
}

// A minimal and a full valid request reach their handler; each constraint that a
// request can break is refused and named.
func TestModelConstraints(t *testing.T) {
	m, s := readModel(t), newSite(t)
	// What the samples name exists, so that nothing but validity is in question.
	reached := func(name string, got reply) {
		t.Helper()
		if got.status < 300 {
			return
		}
		// Past validation, only the domain refuses: what the sample names is not
		// there, and launching into an instance is not supported.
		body := got.object(t)
		switch got.code(t) {
		case "ResourceNotFoundException", "ConflictException", "AccessDeniedException", "ServiceQuotaExceededException":
			return
		case "ValidationException":
			if !strings.Contains(fmt.Sprint(body["message"]), "detected: Value") { // the domain's own
				return
			}
		}
		t.Errorf("%s did not reach its handler: %d %s", name, got.status, got.body)
	}
	count := 0
	for _, name := range supported(m, s) {
		input := m.Operations[name].Input.Shape
		reached(name, m.invoke(t, s, name, m.sample(t, input, false).(map[string]any)))
		reached(name, m.invoke(t, s, name, m.sample(t, input, true).(map[string]any)))

		whole := func(v any) map[string]any { return v.(map[string]any) }
		for _, v := range m.violations(t, input, "", whole) {
			member, _, _ := strings.Cut(v.field, ".")
			member, _, _ = strings.Cut(member, "[")
			if m.Shapes[input].Members[member].Location != "" && strings.Contains(v.name, "wrong type") {
				continue // a path or query has but text
			}
			count++
			got := m.invoke(t, s, name, v.input)
			if got.status != 400 || got.code(t) != "ValidationException" {
				t.Errorf("%s, %s: %d %s", name, v.name, got.status, got.body)
				continue
			}
			body := got.object(t)
			fields, _ := body["fieldList"].([]any)
			if body["reason"] != "fieldValidationFailed" || len(fields) == 0 {
				t.Errorf("%s, %s: %s", name, v.name, got.body)
				continue
			}
			if field := fields[0].(map[string]any); v.field != "" && field["name"] != v.field {
				t.Errorf("%s, %s: blames %v", name, v.name, field["name"])
			}
		}
	}
	t.Logf("%d violations refused", count)
	if count < 150 {
		t.Errorf("only %d violations were tried", count)
	}
}

// Every reply holds only members of the model, of its types and within its
// constraints.
func TestModelReplies(t *testing.T) {
	m, s := readModel(t), newSite(t)
	server := s.addServer(home, "web1")
	point := s.addPoint(server.ID, time.Now(), drs.CrashConsistent)
	info := drs.DataReplicationInfo{
		State: drs.ReplicationRescan, AsOf: time.Now().Add(-time.Hour), ETA: time.Now().Add(time.Hour), Begun: time.Now(),
		Disks: []drs.ReplicatedDisk{{Device: "/dev/vda", Total: 10, Replicated: 5, Rescanned: 1, Backlogged: 2}},
		Error: &drs.DataReplicationErr{Code: drs.NotConverging, Raw: "too slow"},
	}
	for _, step := range drs.InitiationSteps {
		info.Steps = append(info.Steps, drs.InitiationStep{Name: step, Status: drs.StepSucceeded})
	}
	if err := s.db.ReportReplication(t.Context(), server.ID, info, time.Now()); err != nil {
		t.Fatal(err)
	}
	id := string(server.ID)
	started := s.send(home, "POST", "/StartRecovery", `{"sourceServers":[{"sourceServerID":"`+id+`","recoverySnapshotID":"`+string(point.ID)+`"}],"tags":{"a":"b"}}`)
	job := started.object(t)["job"].(map[string]any)["jobID"].(string)
	s.finishJob(server, drs.JobID(job))
	instance := s.addInstance(server, drs.JobID(job))

	for _, request := range [][2]string{
		{"DescribeSourceServers", `{"maxResults":1}`},
		{"DescribeRecoverySnapshots", `{"sourceServerID":"` + id + `"}`},
		{"GetLaunchConfiguration", `{"sourceServerID":"` + id + `"}`},
		{"UpdateLaunchConfiguration", `{"sourceServerID":"` + id + `","name":"n"}`},
		{"GetReplicationConfiguration", `{"sourceServerID":"` + id + `"}`},
		{"StartRecovery", `{"sourceServers":[{"sourceServerID":"` + id + `"}]}`},
		{"DescribeJobs", `{}`},
		{"DescribeJobLogItems", `{"jobID":"` + job + `"}`},
		{"DescribeRecoveryInstances", `{}`},
		{"TerminateRecoveryInstances", `{"recoveryInstanceIDs":["` + string(instance.ID) + `"]}`},
		{"ListTagsForResource", ""},
	} {
		name, body := request[0], request[1]
		op := m.Operations[name]
		got := s.send(home, op.HTTP.Method, strings.Replace(op.HTTP.RequestURI, "{resourceArn}", escape(server.ARN()), 1), body)
		if got.status != op.HTTP.ResponseCode {
			t.Errorf("%s: %d %s", name, got.status, got.body)
			continue
		}
		if items, ok := got.object(t)["items"].([]any); ok && len(items) == 0 {
			t.Errorf("%s shows nothing", name)
		}
		for _, problem := range m.check(op.Output.Shape, op.Output.Shape, got.object(t)) {
			t.Errorf("%s: %s", name, problem)
		}
	}
}

// Every exception has the status that the model gives it, and only members that
// it declares.
func TestModelErrors(t *testing.T) {
	m := readModel(t)
	if m.Shapes["ConflictException"] == nil {
		t.Skip("only the published model ../shared/api/drs-api.json has the exceptions, and it is not beside this repository")
	}
	refused := &drs.Error{
		Message: "m", ResourceID: "id", ResourceType: drs.TypeJob, Quota: drs.QuotaConcurrentJobs,
		Fields: []drs.FieldError{{Name: "f", Message: "m"}},
	}
	for kind, exception := range exceptions {
		shape, ok := m.Shapes[exception.name]
		if !ok || shape.Error == nil || shape.Error.Status != exception.status {
			t.Errorf("%s with status %d is not in the model", exception.name, exception.status)
			continue
		}
		one := *refused
		one.Kind = kind
		if _, ok := shape.Members["resourceId"]; !ok {
			one.ResourceID, one.ResourceType = "", ""
		}
		_, body, _ := describe(&one)
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		object := map[string]any{}
		if err := json.Unmarshal(text, &object); err != nil {
			t.Fatal(err)
		}
		delete(object, "__type")
		for _, problem := range m.check(exception.name, exception.name, object) {
			t.Error(problem)
		}
	}
}

// finishJob completes a job with every kind of line in its log.
func (s *site) finishJob(server drs.SourceServer, id drs.JobID) {
	s.t.Helper()
	err := s.db.InTx(s.t.Context(), func(ctx context.Context, tx db.Tx) error {
		for i, event := range []drs.JobEvent{
			drs.EventJobStart, drs.EventServerSkipped, drs.EventCleanupStart, drs.EventCleanupEnd, drs.EventCleanupFail,
			drs.EventSnapshotStart, drs.EventSnapshotEnd, drs.EventSnapshotFail, drs.EventUsingPreviousSnapshot,
			drs.EventUsingPreviousSnapshotFailed, drs.EventConversionStart, drs.EventConversionEnd, drs.EventConversionFail,
			drs.EventLaunchStart, drs.EventLaunchFailed, drs.EventJobEnd,
		} {
			item := drs.JobLogItem{
				Job: id, Time: time.Now(), Event: event, SourceServer: server.ID, Instance: drs.NewRecoveryInstanceID(),
				RawError: "e", Note: "n", Conversion: &drs.Conversion{RootVolume: "/dev/vda", DataTimestamp: time.Now(), VolumeSizes: map[string]int64{"/dev/vda": 1}},
			}
			if err := tx.Log(ctx, fmt.Sprint(i), item); err != nil {
				return err
			}
		}
		return errors.Join(tx.SetJobStatus(ctx, id, drs.JobStarted), tx.SetJobStatus(ctx, id, drs.JobCompleted),
			tx.SetLastLaunch(ctx, &drs.LastLaunch{Job: id, Initiated: time.Now(), Status: drs.LaunchLaunched}, drs.LastLaunchSucceeded, server.ID),
			tx.SetRecoveryInstance(ctx, server.ID, drs.NewRecoveryInstanceID()))
	})
	if err != nil {
		s.t.Fatal(err)
	}
}
