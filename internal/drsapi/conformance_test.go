package drsapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// model is the API's description in the form that AWS publishes for its SDKs.
type model struct {
	Operations map[string]struct {
		HTTP struct {
			Method       string `json:"method"`
			RequestURI   string `json:"requestUri"`
			ResponseCode int    `json:"responseCode"`
		} `json:"http"`
		Input  *struct{ Shape string }  `json:"input"`
		Output *struct{ Shape string }  `json:"output"`
		Errors []struct{ Shape string } `json:"errors"`
	} `json:"operations"`
	Shapes map[string]*modelShape `json:"shapes"`
}

type modelShape struct {
	Type     string                 `json:"type"`
	Required []string               `json:"required"`
	Members  map[string]modelMember `json:"members"`
	Member   *modelMember           `json:"member"`
	Key      *modelMember           `json:"key"`
	Value    *modelMember           `json:"value"`
	Min      *int64                 `json:"min"`
	Max      *int64                 `json:"max"`
	Pattern  string                 `json:"pattern"`
	Enum     []string               `json:"enum"`
	Error    *struct {
		Status int `json:"httpStatusCode"`
	} `json:"error"`
}

type modelMember struct {
	Shape    string `json:"shape"`
	Location string `json:"location"`
}

// readModel finds the model beside the repository; it is not part of it.
func readModel(t *testing.T) *model {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "shared", "api", "drs-api.json"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the API model ../shared/api/drs-api.json is not beside this repository")
	}
	if err != nil {
		t.Fatal(err)
	}
	m := &model{}
	if err := json.Unmarshal(text, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// extensions are the members that are ours and not in the model.
var extensions = []string{
	"DescribeRecoverySnapshotsRequestFilters.includeFuzzy", "RecoverySnapshot.consistency", "JobLogEventData.note",
}

// sampleText is a value of each string shape of the requests.
var sampleText = map[string]string{
	"SourceServerID": "s-0123456789abcdef0", "RecoverySnapshotID": "pit-0123456789abcdef0", "JobID": "drsjob-0123456789abcdef0",
	"RecoveryInstanceID": "i-0123456789abcdef0", "EC2InstanceID": "i-0123456789abcdef0", "AccountID": "111122223333",
	"ISO8601DatetimeString": "2026-03-01T12:00:00Z", "ARN": "arn:aws:drs:eu-west-1:111122223333:source-server/s-0123456789abcdef0",
	"BoundedString": "x", "SmallBoundedString": "x", "PaginationToken": "", "TagKey": "k", "TagValue": "v",
}

// sample builds a valid value of a shape: only what is required, or everything.
func (m *model) sample(t *testing.T, name string, full bool) any {
	s := m.Shapes[name]
	switch s.Type {
	case "structure":
		out := map[string]any{}
		for member, ref := range s.Members {
			if full || slices.Contains(s.Required, member) {
				out[member] = m.sample(t, ref.Shape, full)
			}
		}
		return out
	case "list":
		return []any{m.sample(t, s.Member.Shape, full)}
	case "map":
		return map[string]any{m.sample(t, s.Key.Shape, full).(string): m.sample(t, s.Value.Shape, full)}
	case "string":
		if len(s.Enum) > 0 {
			return s.Enum[0]
		}
		text, ok := sampleText[name]
		if !ok {
			t.Fatalf("no sample of string shape %s", name)
		}
		return text
	case "boolean":
		return true
	case "integer", "long":
		return 7
	}
	t.Fatalf("no sample of %s %s", s.Type, name)
	return nil
}

// violation is one request that breaks one constraint.
type violation struct {
	name, field string
	input       map[string]any
}

// violations breaks each constraint of a shape once, in an input that is
// otherwise valid. put returns a whole input with the given value in the place
// of the shape.
func (m *model) violations(t *testing.T, name, path string, put func(any) map[string]any) []violation {
	s := m.Shapes[name]
	var out []violation
	broken := func(what string, v any) {
		out = append(out, violation{name: path + ": " + what, field: path, input: put(v)})
	}
	switch s.Type {
	case "structure":
		if path != "" {
			broken("wrong type", "x")
		}
		for _, member := range slices.Sorted(keys(s.Members)) {
			ref, inner := s.Members[member], member
			if path != "" {
				inner = path + "." + member
			}
			putMember := func(v any) map[string]any {
				whole := m.sample(t, name, false).(map[string]any)
				if v == nil {
					delete(whole, member)
				} else {
					whole[member] = v
				}
				return put(whole)
			}
			if slices.Contains(s.Required, member) && ref.Location != "uri" {
				out = append(out, violation{inner + ": missing", inner, putMember(nil)})
			}
			out = append(out, m.violations(t, ref.Shape, inner, putMember)...)
		}
	case "list":
		broken("wrong type", map[string]any{})
		if s.Min != nil && *s.Min > 0 {
			broken("too short", []any{})
		}
		if s.Max != nil {
			broken("too long", slices.Repeat([]any{m.sample(t, s.Member.Shape, false)}, int(*s.Max)+1))
		}
		out = append(out, m.violations(t, s.Member.Shape, path+"[0]", func(v any) map[string]any { return put([]any{v}) })...)
	case "map":
		broken("wrong type", []any{})
		for _, long := range []map[string]any{{strings.Repeat("k", 257): "v"}, {"k": strings.Repeat("v", 257)}} {
			out = append(out, violation{path + ": too long an entry", "", put(long)})
		}
	case "string":
		broken("wrong type", 5)
		if s.Max != nil {
			broken("too long", strings.Repeat("x", int(*s.Max)+1))
		}
		if s.Min != nil && *s.Min > 1 {
			broken("too short", "x")
		}
		if s.Pattern != "" {
			broken("wrong pattern", strings.Repeat("?", max(1, int(deref(s.Min)))))
		}
		if len(s.Enum) > 0 {
			broken("not in enum", "SOMETHING_ELSE")
		}
	case "boolean":
		broken("wrong type", "true")
	case "integer", "long":
		broken("wrong type", "5")
		broken("not whole", 1.5)
		if s.Min != nil {
			broken("too small", *s.Min-1)
		}
		if s.Type == "integer" {
			broken("too large", int64(1)<<31)
		}
	}
	return out
}

func deref(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

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
			list, _ := v.([]any)
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

// Every operation of the model is either supported, at its path and with its
// status, or known as not supported.
func TestModelOperations(t *testing.T) {
	m, s := readModel(t), newSite(t)
	names := supported(m, s)
	if len(names) != 14 {
		t.Errorf("%d operations are supported, want 14", len(names))
	}
	for name, op := range m.Operations {
		if slices.Contains(names, name) == unsupported[name] {
			t.Errorf("%s is both supported and not, or neither", name)
		}
		path := strings.Replace(op.HTTP.RequestURI, "{resourceArn}", "", 1)
		ours := s.api.operations[route{op.HTTP.Method, path}]
		switch {
		case unsupported[name]:
			got := s.send(home, op.HTTP.Method, op.HTTP.RequestURI, "{}")
			if got.code(t) != "UnknownOperationException" || got.status != 404 || !strings.Contains(string(got.body), name) {
				t.Errorf("%s: %d %s", name, got.status, got.body)
			}
		case ours == nil || ours.name != name:
			t.Errorf("%s is not at %s %s", name, op.HTTP.Method, path)
		case ours.status != op.HTTP.ResponseCode:
			t.Errorf("%s answers %d, want %d", name, ours.status, op.HTTP.ResponseCode)
		}
	}
	for name := range unsupported {
		if _, ok := m.Operations[name]; !ok {
			t.Errorf("%s is not in the model", name)
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
		case "ResourceNotFoundException", "ConflictException":
			return
		case "ValidationException":
			if strings.Contains(fmt.Sprint(body["message"]), "not supported here") {
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

// check compares a value with a shape of the model.
func (m *model) check(name, path string, v any) (problems []string) {
	s := m.Shapes[name]
	bad := func(format string, args ...any) {
		problems = append(problems, path+" "+fmt.Sprintf(format, args...))
	}
	switch s.Type {
	case "structure":
		object, ok := v.(map[string]any)
		if !ok {
			bad("is %T, want an object", v)
			return problems
		}
		for member, inner := range object {
			ref, known := s.Members[member]
			switch {
			case known:
				problems = append(problems, m.check(ref.Shape, path+"."+member, inner)...)
			case !slices.Contains(extensions, name+"."+member):
				bad("has %s, which is not in the model", member)
			}
		}
		for _, member := range s.Required {
			if object[member] == nil {
				bad("lacks %s", member)
			}
		}
	case "list":
		list, ok := v.([]any)
		if !ok {
			bad("is %T, want a list", v)
			return problems
		}
		for i, item := range list {
			problems = append(problems, m.check(s.Member.Shape, fmt.Sprintf("%s[%d]", path, i), item)...)
		}
		if n := int64(len(list)); s.Min != nil && n < *s.Min || s.Max != nil && n > *s.Max {
			bad("has %d items", n)
		}
	case "map":
		object, ok := v.(map[string]any)
		if !ok {
			bad("is %T, want a map", v)
			return problems
		}
		for key, inner := range object {
			problems = append(problems, m.check(s.Value.Shape, path+"."+key, inner)...)
		}
	case "string":
		text, ok := v.(string)
		if !ok {
			bad("is %T, want a string", v)
			return problems
		}
		if n := int64(len(text)); s.Min != nil && n < *s.Min || s.Max != nil && n > *s.Max {
			bad("has %d characters", n)
		}
		if s.Pattern != "" && !strings.Contains(s.Pattern, "{16,2044}") && !compiled("^(?:"+s.Pattern+")$").MatchString(text) {
			bad("%q does not match %s", text, s.Pattern)
		}
		if len(s.Enum) > 0 && !slices.Contains(s.Enum, text) {
			bad("%q is not one of %v", text, s.Enum)
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			bad("is %T, want a boolean", v)
		}
	case "integer", "long":
		if n, ok := v.(float64); !ok || s.Min != nil && n < float64(*s.Min) {
			bad("is %v, want a number", v)
		}
	default:
		bad("is of type %s, which this test does not know", s.Type)
	}
	return problems
}

// Every exception has the status that the model gives it, and only members that
// it declares.
func TestModelErrors(t *testing.T) {
	m := readModel(t)
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
			tx.SetLastLaunch(ctx, server.ID, &drs.LastLaunch{Job: id, Initiated: time.Now(), Status: drs.LaunchLaunched}, drs.LastLaunchSucceeded),
			tx.SetRecoveryInstance(ctx, server.ID, drs.NewRecoveryInstanceID()))
	})
	if err != nil {
		s.t.Fatal(err)
	}
}
