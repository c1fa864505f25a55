package drsapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
	"lifeboat/internal/protection"
	"lifeboat/internal/recovery"
	"lifeboat/internal/recovery/plan"
)

func TestWire(t *testing.T) {
	s := newSite(t)
	server := s.addServer(home, "web1")
	arn := escape(server.ARN())
	cases := []struct {
		name, method, target, body string
		status                     int
		want                       string // exception, then part of the message
	}{
		{"no body", "POST", "/DescribeJobs", "", 200, ""},
		{"white space", "POST", "/DescribeJobs", " \n", 200, ""},
		{"null member", "POST", "/DescribeJobs", `{"filters":null,"maxResults":null}`, 200, ""},
		{"null item", "POST", "/DescribeJobs", `{"filters":{"jobIDs":[null]}}`, 400, "ValidationException"},
		{"unknown members", "POST", "/DescribeJobs", `{"x":{"y":[1]},"filters":{"z":1},"MaxResults":0}`, 200, ""},
		{"empty filters", "POST", "/DescribeSourceServers", `{"filters":{"sourceServerIDs":[]}}`, 200, ""},
		{"empty token", "POST", "/DescribeJobs", `{"nextToken":""}`, 200, ""},
		{"initialize", "POST", "/InitializeService", "", 204, ""},
		{"initialize with an object", "POST", "/InitializeService", "{}", 204, ""},
		{"tag", "POST", "/tags/" + arn, `{"tags":{"a":"1"}}`, 200, ""},
		{"tag without escapes", "POST", "/tags/" + server.ARN(), `{"tags":{"a":"1"}}`, 200, ""},
		{"untag", "DELETE", "/tags/" + arn + "?tagKeys=a&tagKeys=b", "", 200, ""},

		{"no JSON", "POST", "/DescribeJobs", `{`, 400, "ValidationException cannotParse"},
		{"a list", "POST", "/DescribeJobs", `[]`, 400, "ValidationException cannotParse"},
		{"null", "POST", "/DescribeJobs", `null`, 400, "ValidationException cannotParse"},
		{"two objects", "POST", "/DescribeJobs", `{}{}`, 400, "ValidationException cannotParse"},
		{"no servers", "POST", "/StartRecovery", `{"sourceServers":[]}`, 400, "ValidationException fieldValidationFailed"},
		{"no such day", "POST", "/DescribeJobs", `{"filters":{"fromDate":"2026-02-31T00:00:00Z"}}`, 400, "ValidationException fieldValidationFailed"},
		{"tags without keys", "DELETE", "/tags/" + arn, "", 400, "ValidationException fieldValidationFailed"},
		{"reserved tag", "POST", "/tags/" + arn, `{"tags":{"aws:x":"1"}}`, 400, "ValidationException fieldValidationFailed"},
		{"not an ARN", "GET", "/tags/arn%3Aaws%3Adrs%3Anonsense", "", 400, "ValidationException fieldValidationFailed"},
		{"launch into", "POST", "/UpdateLaunchConfiguration", `{"sourceServerID":"` + string(server.ID) + `","launchIntoInstanceProperties":{"launchIntoEC2InstanceID":"i-01234567"}}`, 400, "ValidationException fieldValidationFailed"},

		{"no such operation", "POST", "/DescribeNothing", "{}", 404, "UnknownOperationException"},
		{"root", "POST", "/", "{}", 404, "UnknownOperationException"},
		{"other method", "GET", "/DescribeJobs", "", 404, "UnknownOperationException"},
		{"slash after", "POST", "/DescribeJobs/", "{}", 404, "UnknownOperationException"},
		{"other case", "POST", "/describejobs", "{}", 404, "UnknownOperationException"},
		{"tags of nothing", "GET", "/tags/", "", 404, "UnknownOperationException"},
		{"put tags", "PUT", "/tags/" + arn, "", 404, "UnknownOperationException"},
		{"delete nothing", "POST", "/DeleteJob", "{}", 400, "ValidationException fieldValidationFailed"},
		{"unknown server", "POST", "/GetReplicationConfiguration", `{"sourceServerID":"s-00000000000000000"}`, 404, "ResourceNotFoundException"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got := s.send(home, c.method, c.target, c.body)
			if got.status != c.status {
				t.Fatalf("%d %s", got.status, got.body)
			}
			if c.want == "" {
				if c.status == 204 || strings.HasPrefix(c.name, "tag") || c.name == "untag" {
					if len(got.body) > 0 {
						t.Errorf("body %q, want none", got.body)
					}
				} else if !bytes.HasPrefix(got.body, []byte("{")) || got.header.Get("Content-Type") != "application/json" {
					t.Errorf("%s %q", got.header.Get("Content-Type"), got.body)
				}
				return
			}
			code, reason, _ := strings.Cut(c.want, " ")
			if got.code(t) != code || reason != "" && got.object(t)["reason"] != reason {
				t.Errorf("%s, want %s", got.body, c.want)
			}
		})
	}
}

func TestContentTypes(t *testing.T) {
	s := newSite(t)
	for _, contentType := range []string{"", "application/json", "application/json; charset=utf-8", "application/x-amz-json-1.1", "text/plain"} {
		r, err := http.NewRequest("POST", s.server.URL+"/DescribeJobs", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
		signOnly(t, s, home, r, "{}")
		if got := s.do(r); got.status != 200 {
			t.Errorf("%q: %d %s", contentType, got.status, got.body)
		}
	}
	r, err := http.NewRequest("POST", s.server.URL+"/DescribeJobs", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Encoding", "gzip")
	signOnly(t, s, home, r, "{}")
	if got := s.do(r); got.status != 400 || got.code(t) != "MalformedHttpRequestException" {
		t.Errorf("gzip: %d %s", got.status, got.body)
	}
}

func TestUnsigned(t *testing.T) {
	s := newSite(t)
	for _, target := range []string{"/DescribeJobs", "/nothing", "/"} {
		r, err := http.NewRequest("POST", s.server.URL+target, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if got := s.do(r); got.status != 403 || got.code(t) != "MissingAuthenticationTokenException" {
			t.Errorf("%s: %d %s", target, got.status, got.body)
		}
	}
}

func TestBodyLimit(t *testing.T) {
	s := newSite(t)
	body := `{"x":"` + strings.Repeat("x", MaxBody) + `"}`
	if got := s.send(home, "POST", "/DescribeJobs", body); got.status != 413 || got.code(t) != "RequestEntityTooLargeException" {
		t.Errorf("%d %s", got.status, got.body)
	}
	fits := `{"x":"` + strings.Repeat("x", MaxBody-8) + `"}`
	if got := s.send(home, "POST", "/DescribeJobs", fits); got.status != 200 {
		t.Errorf("%d bytes: %d %s", len(fits), got.status, got.body)
	}
}

// Faults of ours show the request's ID and nothing else; the log has the cause.
func TestInternalErrors(t *testing.T) {
	const secret = "password=hunter2"
	s := newSite(t)
	request := `{"sourceServers":[{"sourceServerID":"s-0123456789abcdef0"}]}`
	try := func(name string) {
		t.Helper()
		s.log.Reset()
		got := s.send(home, "POST", "/StartRecovery", request)
		id := got.header.Get("X-Amzn-Requestid")
		if got.status != 500 || got.code(t) != "InternalServerException" || !bytes.Contains(got.body, []byte(id)) {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
		if bytes.Contains(got.body, []byte("hunter2")) || bytes.Contains(got.body, []byte("sql")) || bytes.Contains(got.body, []byte(".go")) {
			t.Errorf("%s: leaks: %s", name, got.body)
		}
		if log := s.log.String(); !strings.Contains(log, id) || !strings.Contains(log, "level=ERROR") {
			t.Errorf("%s: the log has %q", name, log)
		}
	}
	s.witness.lenient = true
	s.recovery.fail = errors.New(secret)
	try("error")
	s.recovery.panic = secret
	try("panic")
	s.recovery.panic = nil
	s.db.Close()
	try("closed database")
}

func TestDomainRefusals(t *testing.T) {
	s := newSite(t)
	s.witness.lenient = true
	request := `{"sourceServers":[{"sourceServerID":"s-0123456789abcdef0"}]}`
	cases := []struct {
		refusal *drs.Error
		status  int
		code    string
		members map[string]string
		retry   string
	}{
		{drs.Conflict(drs.TypeSourceServer, "s-1", "busy"), 409, "ConflictException", map[string]string{"resourceId": "s-1", "resourceType": "source-server", "message": "busy"}, ""},
		{drs.QuotaExceeded(drs.QuotaConcurrentJobs, drs.TypeJob, "", "too many"), 402, "ServiceQuotaExceededException", map[string]string{"quotaCode": "L-D88FAC3A", "serviceCode": "drs"}, ""},
		{&drs.Error{Kind: drs.KindThrottled, Message: "slow down", RetryAfter: 1500 * time.Millisecond}, 429, "ThrottlingException", nil, "2"},
		{&drs.Error{Kind: drs.KindAccessDenied, Message: "no"}, 403, "AccessDeniedException", nil, ""},
		{&drs.Error{Kind: drs.KindInternal, Message: "try later", RetryAfter: time.Second}, 500, "InternalServerException", map[string]string{"message": "try later"}, "1"},
		{drs.Invalid("sourceServers", "twice"), 400, "ValidationException", map[string]string{"reason": "fieldValidationFailed"}, ""},
		{&drs.Error{Kind: drs.KindValidation, Message: "odd"}, 400, "ValidationException", map[string]string{"reason": "other"}, ""},
	}
	for _, c := range cases {
		s.recovery.fail = fmt.Errorf("start recovery: %w", c.refusal)
		got := s.send(home, "POST", "/StartRecovery", request)
		if got.status != c.status || got.code(t) != c.code || got.header.Get("Retry-After") != c.retry {
			t.Errorf("%s: %d %v %s", c.code, got.status, got.header, got.body)
		}
		for member, want := range c.members {
			if body := got.object(t); body[member] != want {
				t.Errorf("%s: %s is %v, want %s", c.code, member, body[member], want)
			}
		}
	}
}

func TestOpenAPI(t *testing.T) {
	s := newSite(t)
	r, err := http.NewRequest("GET", s.server.URL+"/openapi.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := s.do(r)
	if got.status != 200 || got.header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %s", got.status, got.body)
	}
	var doc struct {
		OpenAPI    string
		Paths      map[string]map[string]struct{ OperationID string }
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(got.body, &doc); err != nil {
		t.Fatal(err)
	}
	operations := map[string]bool{}
	for _, methods := range doc.Paths {
		for _, op := range methods {
			operations[op.OperationID] = true
		}
	}
	if len(operations) != len(s.api.operations) || !operations["StartRecovery"] || doc.Paths["/tags/{resourceArn}"]["delete"].OperationID != "UntagResource" {
		t.Errorf("operations %v, paths %v", operations, doc.Paths)
	}
	// Every reference leads somewhere.
	for part := range bytes.SplitSeq(got.body, []byte(`"$ref":"`+schemaPrefix)) {
		if name, _, ok := bytes.Cut(part, []byte(`"`)); ok && bytes.HasPrefix(part, []byte("{")) == false && doc.Components.Schemas[string(name)] == nil {
			t.Errorf("no schema %s", name)
		}
	}
	if bytes.Contains(got.body, []byte("http://")) && bytes.Contains(got.body, []byte("cdn")) {
		t.Error("the document refers to a CDN")
	}
}

// trusting takes every request for the holder of one key.
type trusting struct{ key iam.AccessKey }

func (v trusting) Verify(context.Context, *http.Request, []byte) (iam.AccessKey, error) {
	return v.key, nil
}

// Whatever a client sends is answered by a refusal or a reply, never by a fault.
func FuzzAPI(f *testing.F) {
	store, err := db.Create(context.Background(), filepath.Join(f.TempDir(), "lifeboat.db"))
	if err != nil {
		f.Fatal(err)
	}
	defer store.Close()
	if err := store.Initialize(context.Background(), home); err != nil {
		f.Fatal(err)
	}
	var log bytes.Buffer
	jobs := newJobStarter(store)
	networks, err := recovery.New(context.Background(), recovery.Config{DB: store, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	api, err := New(Config{
		DB: store, Recovery: jobs, Protection: protection.New(protection.Config{
			DB: store, Agents: &agentLog{}, Vault: newMemVault(), Log: slog.New(slog.DiscardHandler),
		}),
		Plans:    plan.New(store, jobs, slog.New(slog.DiscardHandler), nil),
		Networks: networks,
		Verifier: trusting{iam.NewAccessKey(home)}, PageKey: make([]byte, 32),
		Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		f.Fatal(err)
	}
	for name := range api.operations {
		f.Add(name.method, name.path, `{}`)
	}
	f.Add("POST", "/DescribeJobs", `{"maxResults":1e300,"filters":{"jobIDs":["drsjob-0123456789abcdef0"],"fromDate":"9999-12-31T23:59:59.999999999Z","toDate":"1000-01-01T00:00:00Z"}}`)
	f.Add("POST", "/DescribeSourceServers", `{"maxResults":2147483647,"nextToken":"AAAA","filters":{"hardwareId":"\u0000'","sourceServerIDs":["s-0123456789abcdef0"]}}`)
	f.Add("POST", "/StartRecovery", `{"sourceServers":[{"sourceServerID":"s-0123456789abcdef0","recoverySnapshotID":"pit-0123456789abcdef0"}],"isDrill":true,"tags":{"":""}}`)
	f.Add("POST", "/DescribeRecoverySnapshots", `{"sourceServerID":"s-0123456789abcdef0","order":"DESC","filters":{"includeFuzzy":true}}`)
	f.Add("POST", "/tags/arn%3Aaws%3Adrs%3Aeu-west-1%3A111122223333%3Ajob%2Fx", `{"tags":{"a":"b"}}`)
	f.Add("DELETE", "/tags/arn:aws:drs:eu-west-1:111122223333:job/x?tagKeys=%ff&tagKeys", "")
	f.Add("DELETE", "/tags/arn:aws:drs:eu-west-1:111122223333:job/x?tagKeys=a;b", "")
	f.Add("POST", "//DescribeJobs", "{}")
	f.Add("POST", "/CreateRecoveryPlan", `{"name":"p","description":"\u0000","tags":{"\u0000":"\ud800"},"clientToken":"t"}`)
	f.Add("POST", "/CreateRecoveryPlanStep", `{"recoveryPlanArn":"arn:aws:drs:eu-west-1:111122223333:recovery-plan/plan-0123456789abcdef0","stepName":"s","configuration":{"waitStepConfiguration":{"waitDurationMinutes":1}}}`)
	f.Add("POST", "/CreateSourceNetwork", `{"vpcID":"vpc-01234567","originAccountID":"111122223333","originRegion":"eu-west-1"}`)
	f.Add("POST", "/TerminateRecoveryInstances", `{"recoveryInstanceIDs":["i-0123456789abcdef0"]}`)
	f.Add("POST", "/UpdateLaunchConfiguration", `{"sourceServerID":"s-0123456789abcdef0","licensing":{"osByol":true}}`)
	f.Fuzz(func(t *testing.T, method, target, body string) {
		at, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(target, "/") {
			t.Skip("net/http refuses such a target")
		}
		r := &http.Request{
			Method: method, URL: at, RequestURI: target, Host: "localhost", Header: http.Header{},
			Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		}
		log.Reset()
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r.WithContext(t.Context()))
		if w.Code >= 500 || log.Len() > 0 {
			t.Errorf("%d %s\n%s", w.Code, w.Body, log.String())
		}
		if w.Code >= 400 && w.Header().Get("X-Amzn-Errortype") == "" {
			t.Errorf("a refusal without a name: %d %s", w.Code, w.Body)
		}
		if w.Body.Len() > 0 && !json.Valid(w.Body.Bytes()) {
			t.Errorf("no JSON: %q", w.Body)
		}
	})
}
