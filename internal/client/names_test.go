package client

import (
	"errors"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/drs"
)

func TestFindServers(t *testing.T) {
	s := newSite(t)
	db1, web, twin1, twin2 := s.addServer("db1"), s.addServer("web"), s.addServer("twin"), s.addServer("twin")
	for name, want := range map[string]struct {
		names []string
		ids   []drs.SourceServerID
	}{
		"hostname":          {[]string{"db1"}, []drs.SourceServerID{db1.ID}},
		"letter case":       {[]string{"DB1"}, []drs.SourceServerID{db1.ID}},
		"domain name":       {[]string{"web.example.org"}, []drs.SourceServerID{web.ID}},
		"ID":                {[]string{string(twin2.ID)}, []drs.SourceServerID{twin2.ID}},
		"part of an ID":     {[]string{string(web.ID[:12])}, []drs.SourceServerID{web.ID}},
		"several, in order": {[]string{"web", "db1"}, []drs.SourceServerID{web.ID, db1.ID}},
		"one by two names":  {[]string{"web", string(web.ID), "db1"}, []drs.SourceServerID{web.ID, db1.ID}},
	} {
		t.Run(name, func(t *testing.T) {
			found, err := s.client.FindServers(t.Context(), want.names)
			must(t, err)
			var ids []string
			for _, f := range found {
				ids = append(ids, f.ID)
			}
			if got := strings.Join(ids, " "); got != join(want.ids) {
				t.Errorf("got %s, want %s", got, join(want.ids))
			}
		})
	}
	for name, words := range map[string][]string{
		"twin": {"more than one", string(twin1.ID), string(twin2.ID)},
		"nope": {"no source server", "lifeboat servers"},
		"s-":   {"no source server"}, // says nothing of an ID
	} {
		_, err := s.client.FindServers(t.Context(), []string{"db1", name})
		wantRefusal(t, err, words...)
	}
}

func join(ids []drs.SourceServerID) string {
	var out []string
	for _, id := range ids {
		out = append(out, string(id))
	}
	return strings.Join(out, " ")
}

// wantRefusal checks that err is a refusal that says all the words.
func wantRefusal(t *testing.T, err error, words ...string) {
	t.Helper()
	var refusal *Refusal
	if !errors.As(err, &refusal) || !refusal.Refused() {
		t.Fatalf("got %v, want a refusal", err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("refusal %q lacks %q", err, word)
		}
	}
}

func TestParseMoment(t *testing.T) {
	zone := time.FixedZone("EST", -5*3600)
	now := time.Date(2026, 3, 10, 12, 30, 45, 0, zone)
	at := func(d time.Duration) time.Time { return now.Add(-d) }
	const whole = time.Second - time.Microsecond
	for text, want := range map[string]time.Time{
		"15m":                       at(15 * time.Minute),
		"2h30m":                     at(150 * time.Minute),
		"90 s":                      at(90 * time.Second),
		"5 minutes ago":             at(5 * time.Minute),
		"an hour ago":               at(time.Hour),
		"1 day and 2 hours ago":     at(26 * time.Hour),
		"1.5h":                      at(90 * time.Minute),
		"2 weeks":                   at(14 * 24 * time.Hour),
		"now":                       now,
		"2026-03-10T17:00:00Z":      time.Date(2026, 3, 10, 17, 0, 0, 0, time.UTC).Add(whole),
		"2026-03-10T17:00:00.123Z":  time.Date(2026, 3, 10, 17, 0, 0, 123_999_000, time.UTC),
		"2026-03-10T12:00:00-05:00": time.Date(2026, 3, 10, 17, 0, 0, 0, time.UTC).Add(whole),
		"2026-03-10 12:00":          time.Date(2026, 3, 10, 12, 0, 0, 0, zone),
		"2026-03-09":                time.Date(2026, 3, 9, 0, 0, 0, 0, zone),
		"12:30":                     time.Date(2026, 3, 10, 12, 30, 0, 0, zone),
		"12:31":                     time.Date(2026, 3, 9, 12, 31, 0, 0, zone), // not come yet today
		"12:30:45":                  now.Add(whole),                            // the second that runs
	} {
		if got, err := ParseMoment(text, now); err != nil || !got.Equal(want) {
			t.Errorf("ParseMoment(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "ago", "soon", "15", "15x", "m", "-5m", "2026-03-10T18:00:00Z", "2026-13-01", "25:00", "99999999999w", "5 minutes later"} {
		if got, err := ParseMoment(text, now); err == nil {
			t.Errorf("ParseMoment(%q) = %v, want an error", text, got)
		}
	}
}

func TestParseISODuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"P0D": 0, "PT3S": 3 * time.Second, "PT0.25S": 250 * time.Millisecond, "P1DT2H3M4S": 26*time.Hour + 3*time.Minute + 4*time.Second,
	} {
		if got, ok := parseISODuration(text); !ok || got != want {
			t.Errorf("parseISODuration(%q) = %v, %v; want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "P", "3S", "P1Y", "P99999999999999D"} {
		if got, ok := parseISODuration(text); ok {
			t.Errorf("parseISODuration(%q) = %v, want none", text, got)
		}
	}
}

func FuzzParseMoment(f *testing.F) {
	f.Add("5 minutes ago")
	f.Add("2026-03-10T17:00:00.123Z")
	now := time.Date(2026, 3, 10, 12, 30, 45, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		if at, err := ParseMoment(text, now); err == nil && at.After(now.Add(time.Second)) {
			t.Errorf("ParseMoment(%q) = %v, which is in the future", text, at)
		}
	})
}
