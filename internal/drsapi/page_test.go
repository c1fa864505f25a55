package drsapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/drs"
)

// ids walks all pages of a listing and returns the values of one member.
func (s *site) ids(t *testing.T, operation, input, member string, size int) []string {
	t.Helper()
	var out []string
	token := ""
	for range 100 {
		whole := map[string]any{}
		if err := json.Unmarshal([]byte(input), &whole); err != nil {
			t.Fatal(err)
		}
		whole["maxResults"], whole["nextToken"] = size, token
		text, err := json.Marshal(whole)
		if err != nil {
			t.Fatal(err)
		}
		got := s.send(home, "POST", "/"+operation, string(text))
		if got.status != 200 {
			t.Fatalf("%s: %d %s", operation, got.status, got.body)
		}
		body := got.object(t)
		items := body["items"].([]any)
		if len(items) > size {
			t.Fatalf("%s: %d items on a page of %d", operation, len(items), size)
		}
		for _, item := range items {
			out = append(out, item.(map[string]any)[member].(string))
		}
		var more bool
		if token, more = body["nextToken"].(string); !more {
			return out
		}
	}
	t.Fatalf("%s has no last page", operation)
	return nil
}

func TestPagesAndOrder(t *testing.T) {
	s := newSite(t)
	var servers, jobs, points []string
	var server drs.SourceServer
	for i := range 5 {
		server = s.addServer(home, fmt.Sprint("web", i))
		servers = append(servers, string(server.ID))
	}
	s.addServer(other, "foreign1")
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for i := range 5 {
		points = append(points, string(s.addPoint(server.ID, at.Add(time.Duration(i)*time.Minute), drs.CrashConsistent).ID))
	}
	for _, id := range servers {
		got := s.send(home, "POST", "/StartRecovery", `{"sourceServers":[{"sourceServerID":"`+id+`"}]}`)
		jobs = append(jobs, got.object(t)["job"].(map[string]any)["jobID"].(string))
	}
	slices.Reverse(jobs) // newest first
	newest := slices.Clone(points)
	slices.Reverse(newest)
	point := `{"sourceServerID":"` + string(server.ID) + `"`
	cases := []struct {
		operation, input, member string
		want                     []string
	}{
		{"DescribeSourceServers", `{}`, "sourceServerID", servers},
		{"DescribeSourceServers", `{"filters":{"sourceServerIDs":["` + servers[3] + `","` + servers[1] + `","s-00000000000000000"]}}`, "sourceServerID", []string{servers[1], servers[3]}},
		{"DescribeSourceServers", `{"filters":{"hardwareId":"02:00:00:00:00:02"}}`, "sourceServerID", servers[2:3]},
		{"DescribeSourceServers", `{"filters":{"stagingAccountIDs":["111122223333"]}}`, "sourceServerID", nil},
		{"DescribeJobs", `{}`, "jobID", jobs},
		{"DescribeJobs", `{"filters":{"jobIDs":["` + jobs[2] + `"]}}`, "jobID", jobs[2:3]},
		{"DescribeJobs", `{"filters":{"toDate":"2026-01-01T00:00:00Z"}}`, "jobID", nil},
		{"DescribeJobs", `{"filters":{"jobIDs":["drsjob-00000000000000000"]}}`, "jobID", nil},
		{"DescribeRecoverySnapshots", point + `}`, "snapshotID", points},
		{"DescribeRecoverySnapshots", point + `,"order":"ASC"}`, "snapshotID", points},
		{"DescribeRecoverySnapshots", point + `,"order":"DESC"}`, "snapshotID", newest},
		{"DescribeRecoverySnapshots", point + `,"filters":{"fromDateTime":"2026-03-01T12:01:02Z","toDateTime":"2026-03-01T12:03:02.000Z"}}`, "snapshotID", points[1:4]},
		{"DescribeRecoverySnapshots", `{"sourceServerID":"s-00000000000000000"}`, "snapshotID", nil},
		{"DescribeJobLogItems", `{"jobID":"drsjob-00000000000000000"}`, "event", nil},
		{"DescribeRecoveryInstances", `{"filters":{"recoveryInstanceIDs":["i-00000000000000000"]}}`, "recoveryInstanceID", nil},
	}
	for _, c := range cases {
		for _, size := range []int{1, 2, 5, 1000} {
			if got := s.ids(t, c.operation, c.input, c.member, size); !slices.Equal(got, c.want) {
				t.Errorf("%s %s by %d:\n got %v\nwant %v", c.operation, c.input, size, got, c.want)
			}
		}
	}
}

func TestFuzzyPointsAreAskedFor(t *testing.T) {
	s := newSite(t)
	server := s.addServer(home, "web1")
	good := s.addPoint(server.ID, time.Now().Add(-time.Hour), drs.CrashConsistent)
	fuzzy := s.addPoint(server.ID, time.Now(), drs.Fuzzy)
	id := `{"sourceServerID":"` + string(server.ID) + `"`
	if got := s.ids(t, "DescribeRecoverySnapshots", id+`}`, "snapshotID", 10); !slices.Equal(got, []string{string(good.ID)}) {
		t.Errorf("by default: %v", got)
	}
	if got := s.ids(t, "DescribeRecoverySnapshots", id+`,"filters":{"includeFuzzy":true}}`, "snapshotID", 10); !slices.Equal(got, []string{string(good.ID), string(fuzzy.ID)}) {
		t.Errorf("with fuzzy ones: %v", got)
	}
	if got := s.ids(t, "DescribeRecoverySnapshots", id+`,"filters":{"includeFuzzy":true}}`, "consistency", 10); !slices.Equal(got, []string{"crash", "fuzzy"}) {
		t.Errorf("consistency: %v", got)
	}
}

// A token is good for the listing, filters and account that it was made for.
func TestPageTokens(t *testing.T) {
	s := newSite(t)
	for i := range 3 {
		s.addServer(home, fmt.Sprint("web", i))
		s.addServer(other, fmt.Sprint("foreign", i))
	}
	if err := s.db.Initialize(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	first := s.send(home, "POST", "/DescribeSourceServers", `{"maxResults":1}`).object(t)
	token := first["nextToken"].(string)
	with := func(token, rest string) string { return `{"nextToken":"` + token + `"` + rest + `}` }
	flipped := []byte(token)
	flipped[len(flipped)-1] ^= 1
	for name, try := range map[string]func() reply{
		"changed":         func() reply { return s.send(home, "POST", "/DescribeSourceServers", with(string(flipped), "")) },
		"cut":             func() reply { return s.send(home, "POST", "/DescribeSourceServers", with(token[:20], "")) },
		"nonsense":        func() reply { return s.send(home, "POST", "/DescribeSourceServers", with("?", "")) },
		"zeros":           func() reply { return s.send(home, "POST", "/DescribeSourceServers", with(strings.Repeat("A", 80), "")) },
		"other operation": func() reply { return s.send(home, "POST", "/DescribeJobs", with(token, "")) },
		"other account":   func() reply { return s.send(other, "POST", "/DescribeSourceServers", with(token, "")) },
		"other filters": func() reply {
			return s.send(home, "POST", "/DescribeSourceServers", with(token, `,"filters":{"hardwareId":"x"}`))
		},
	} {
		got := try()
		if got.status != 400 || got.code(t) != "ValidationException" || !strings.Contains(string(got.body), `"nextToken"`) {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	got := s.send(home, "POST", "/DescribeSourceServers", with(token, `,"maxResults":2`))
	if got.status != 200 || len(got.object(t)["items"].([]any)) != 2 {
		t.Errorf("another page size: %d %s", got.status, got.body)
	}
}

// A job that is started while another client pages neither repeats nor hides one.
func TestPagesWhileJobsCome(t *testing.T) {
	s := newSite(t)
	start := func(name string) string {
		server := s.addServer(home, name)
		got := s.send(home, "POST", "/StartRecovery", `{"sourceServers":[{"sourceServerID":"`+string(server.ID)+`"}]}`)
		return got.object(t)["job"].(map[string]any)["jobID"].(string)
	}
	a, b := start("web1"), start("web2")
	first := s.send(home, "POST", "/DescribeJobs", `{"maxResults":1}`).object(t)
	start("web3")
	second := s.send(home, "POST", "/DescribeJobs", `{"maxResults":5,"nextToken":"`+first["nextToken"].(string)+`"}`).object(t)
	seen := []string{}
	for _, page := range []map[string]any{first, second} {
		for _, item := range page["items"].([]any) {
			seen = append(seen, item.(map[string]any)["jobID"].(string))
		}
	}
	if !slices.Equal(seen, []string{b, a}) {
		t.Errorf("saw %v, want %v", seen, []string{b, a})
	}
}

func TestDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "P0D", -time.Hour: "P0D", time.Nanosecond: "P0D",
		152 * 24 * time.Hour: "P152D",
		16*time.Hour + 20*time.Minute + 38*time.Second + 697305*time.Microsecond: "PT16H20M38.697305S",
		time.Second:                "PT1S",
		24*time.Hour + time.Minute: "P1DT1M",
		90 * time.Minute:           "PT1H30M",
		1500 * time.Millisecond:    "PT1.5S",
	} {
		if got := durationOf(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestReplicationShown(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		state drs.ReplicationState
		asOf  time.Time
		want  string
	}{
		{drs.ReplicationContinuous, now.Add(-10 * time.Second), "P0D"},
		{drs.ReplicationContinuous, now.Add(-20 * time.Second), "PT20S"},
		{drs.ReplicationBacklog, now.Add(-10 * time.Second), "PT10S"},
		{drs.ReplicationStalled, now.Add(-26 * time.Hour), "P1DT2H"},
		{drs.ReplicationInitialSync, time.Time{}, ""},
		{drs.ReplicationDisconnected, now.Add(-time.Hour), ""},
		{drs.ReplicationStopped, now.Add(-time.Hour), ""},
	} {
		got := dataReplicationInfoOf(drs.DataReplicationInfo{State: c.state, AsOf: c.asOf, ETA: now}, now)
		if got.LagDuration != c.want {
			t.Errorf("%s since %v: lag %q, want %q", c.state, c.asOf, got.LagDuration, c.want)
		}
		if ended := c.state == drs.ReplicationStopped || c.state == drs.ReplicationDisconnected; ended != (got.ETADateTime == "") {
			t.Errorf("%s: ETA %q", c.state, got.ETADateTime)
		}
	}
}
