package drsapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Nothing that a client writes into a request is a fault of ours: it is refused in
// words, or it means something.
func TestHostileBodies(t *testing.T) {
	s := newSite(t)
	server := s.addServer(home, "web1")
	deep := strings.Repeat(`{"filters":`, 20_000)
	wide := `{"filters":{"jobIDs":[` + strings.Repeat(`"drsjob-0123456789abcdef0",`, 30_000) + `"drsjob-0123456789abcdef0"]}}`
	for _, c := range []struct {
		name, operation, body string
		status                int
	}{
		{"deep", "DescribeJobs", deep, 400},
		{"deep and closed", "DescribeJobs", strings.Repeat("[", 400_000) + strings.Repeat("]", 400_000), 400},
		{"deep where nothing is declared", "DescribeJobs", `{"x":` + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000) + `}`, 200},
		{"wide", "DescribeJobs", wide, 400},
		{"many members", "DescribeJobs", `{` + strings.Repeat(`"maxResults":7,`, 50_000) + `"maxResults":7}`, 200},
		{"a member twice: the last counts", "DescribeJobs", `{"maxResults":0,"maxResults":7}`, 200},
		{"a member twice, the last wrong", "DescribeJobs", `{"maxResults":7,"maxResults":0}`, 400},
		{"half a surrogate", "CreateRecoveryPlan", `{"name":"p","description":"\ud800"}`, 201},
		{"no UTF-8", "CreateRecoveryPlan", "{\"name\":\"q\",\"description\":\"\xff\xfe\"}", 201},
		{"no UTF-8 in a pattern", "CreateRecoveryPlan", "{\"name\":\"\xff\"}", 400},
		{"a zero byte in a pattern", "CreateRecoveryPlan", `{"name":"a\u0000b"}`, 400},
		{"a zero byte in text", "CreateRecoveryPlan", `{"name":"z","description":"\u0000"}`, 400},
		{"a zero byte in a filter", "DescribeSourceServers", `{"filters":{"hardwareId":"\u0000"}}`, 400},
		{"a zero byte in a tag's key", "CreateRecoveryPlan", `{"name":"z","tags":{"\u0000":"x"}}`, 400},
		{"a zero byte in a tag", "CreateRecoveryPlan", `{"name":"z","tags":{"x":"\u0000"}}`, 400},
		{"a zero byte between members", "DescribeJobs", "{\x00}", 400},
		{"UTF-16", "DescribeJobs", "\xff\xfe{\x00}\x00", 400},
		{"a byte order mark", "DescribeJobs", "\xef\xbb\xbf{}", 400},
		{"a huge number", "DescribeJobs", `{"maxResults":` + strings.Repeat("9", 10_000) + `}`, 400},
		{"a huge exponent", "DescribeJobs", `{"maxResults":1e999999999}`, 400},
		{"a negative zero", "DescribeJobs", `{"maxResults":-0}`, 400},
		{"a fraction", "DescribeJobs", `{"maxResults":1.0}`, 400},
		{"a number as text", "DescribeJobs", `{"maxResults":"7"}`, 400},
		{"a long name", "CreateRecoveryPlan", `{"name":"` + strings.Repeat("a", 500_000) + `"}`, 400},
		{"members named like ours", "DescribeJobs", `{"__proto__":{},"constructor":1,"":null}`, 200},
		{"an expression", "DescribeSourceServers", `{"filters":{"hardwareId":"' OR 1=1 --"}}`, 200},
	} {
		got := s.send(home, "POST", "/"+c.operation, c.body)
		if got.status != c.status || got.status >= 500 {
			t.Errorf("%s: %d %.300s, want %d", c.name, got.status, got.body, c.status)
		}
		if !json.Valid(got.body) && len(got.body) > 0 {
			t.Errorf("%s: no JSON: %.200q", c.name, got.body)
		}
	}

	// What is taken is given back as it was.
	text := "tab \t, quote \" and $.\"path\", \u2028, \U0001f6df"
	body, err := json.Marshal(map[string]any{"tags": map[string]string{text: text}})
	if err != nil {
		t.Fatal(err)
	}
	arn := "/tags/" + escape(server.ARN())
	if got := s.send(home, "POST", arn, string(body)); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	if got := s.send(home, "GET", arn, "").object(t)["tags"].(map[string]any); got[text] != text {
		t.Errorf("tags %q", got)
	}
	plan := s.ask(201, "CreateRecoveryPlan", obj{"name": "zero", "description": text})["recoveryPlan"].(obj)
	if got := s.ask(200, "GetRecoveryPlan", obj{"recoveryPlanArn": plan["recoveryPlanArn"]})["recoveryPlan"].(obj); got["description"] != text {
		t.Errorf("description %q", got["description"])
	}
	if log := s.log.String(); strings.Contains(log, "level=ERROR") {
		t.Errorf("the log has %s", log)
	}
}

// slowBody is a body of white space that stops after its first part until it is
// let go.
type slowBody struct {
	left    int
	reached chan<- struct{} // told once, when it stops
	gate    <-chan struct{}
}

func (b *slowBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		if b.reached != nil {
			b.reached <- struct{}{}
			b.reached = nil
		}
		<-b.gate
		return 0, io.EOF
	}
	n := copy(p, bytes.Repeat([]byte(" "), min(len(p), b.left)))
	b.left -= n
	return n, nil
}

// However many clients send large bodies, and slowly, few are read at a time, and
// small requests are served beside them.
func TestManyLargeBodies(t *testing.T) {
	s := newSite(t)
	send := func(body io.Reader) int {
		w := httptest.NewRecorder()
		s.api.ServeHTTP(w, httptest.NewRequest("POST", "/DescribeJobs", body))
		return w.Code
	}
	reached, gate := make(chan struct{}, largeBodies), make(chan struct{})
	var senders sync.WaitGroup
	for range largeBodies {
		senders.Go(func() {
			if status := send(&slowBody{left: smallBody + 1, reached: reached, gate: gate}); status != http.StatusForbidden { // unsigned
				t.Errorf("a large request that was read: %d", status)
			}
		})
	}
	for range largeBodies {
		<-reached
	}
	if status := send(strings.NewReader(strings.Repeat(" ", smallBody+1))); status != http.StatusServiceUnavailable {
		t.Errorf("one more: %d", status)
	}
	if got := s.send(home, "POST", "/DescribeJobs", "{}"); got.status != 200 {
		t.Errorf("a small one: %d %s", got.status, got.body)
	}
	close(gate)
	senders.Wait()
	if got := s.send(home, "POST", "/DescribeJobs", "{"+strings.Repeat(" ", smallBody)+"}"); got.status != 200 {
		t.Errorf("a large one afterwards: %d %s", got.status, got.body)
	}
}

// Headers and targets that no client means are refused, not served.
func TestHostileTargets(t *testing.T) {
	s := newSite(t)
	for _, target := range []string{
		"/DescribeJobs%00", "/%2e%2e/DescribeJobs", "/DescribeJobs/../StartRecovery", "/tags/%", "/tags/%zz", "/tags/..%2f..",
		"/tags/" + strings.Repeat("a", 5000), "/DescribeJobs?" + strings.Repeat("a=b&", 5000), "/\x7f", "//", "/tags//",
	} {
		u := s.server.URL + target
		r, err := http.NewRequest("POST", u, strings.NewReader("{}"))
		if err != nil {
			continue // our own client refuses to send it
		}
		s.sign(home, r, "{}")
		if got := s.do(r); got.status >= 500 || got.status == 200 && !strings.HasPrefix(target, "/DescribeJobs?") {
			t.Errorf("%.60s: %d %.200s", target, got.status, got.body)
		}
	}
	for n, value := range []string{
		"AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=", "AWS4-HMAC-SHA256 Credential=/////, SignedHeaders=;;;, Signature=",
		"AWS4-HMAC-SHA256 " + strings.Repeat("Credential=a/b/c/d/e,", 1000), "Basic YWRtaW46YWRtaW4=", "\xff\xfe", strings.Repeat("x", 30_000),
	} {
		r, err := http.NewRequest("POST", s.server.URL+"/DescribeJobs", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", value)
		r.Header.Set("X-Amz-Date", fmt.Sprint(n))
		got := s.do(r)
		if got.status < 400 || got.status >= 500 {
			t.Errorf("Authorization %.40q: %d %s", value, got.status, got.body)
		}
	}
}
