package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var quiet = slog.New(slog.DiscardHandler)

func open(t testing.TB, dir string, limits Limits, now func() time.Time) *Log {
	t.Helper()
	l, err := Open(dir, limits, quiet, now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

const mine = "111122223333"

// own is the folder of the account of most events here.
func own(t testing.TB, l *Log) *folder {
	t.Helper()
	f, err := l.of(mine)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func event(name string, at time.Time) Event {
	return Event{
		Name: name, Time: at, Source: "drs.amazonaws.com", RequestID: name,
		Identity: Identity{Type: "IAMUser", ARN: "arn:aws:iam::111122223333:user/ann", AccountID: "111122223333", AccessKeyID: "AKIA1"},
	}
}

func names(t *testing.T, l *Log, q Query) string {
	t.Helper()
	if q.Most == 0 {
		q.Most = 1000
	}
	found, err := l.Search(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range found {
		out = append(out, e.Name)
	}
	return strings.Join(out, " ")
}

func TestSearch(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	now := at
	l := open(t, t.TempDir(), Limits{File: 700}, func() time.Time { now = now.Add(time.Second); return now })
	for i, name := range []string{"A", "B", "C", "D", "E", "F"} {
		e := event(name, at.Add(time.Duration(i)*time.Minute))
		e.ReadOnly = i%2 == 0
		switch name {
		case "B":
			e.ErrorCode, e.Identity.AccountID = "AccessDeniedException", "444455556666"
		case "C":
			e.Identity.ARN, e.Identity.AccessKeyID = "arn:aws:iam::111122223333:user/bob", "AKIA2"
		case "D":
			e.RequestParameters = json.RawMessage(`{"sourceServerID":"s-1"}`)
		case "E":
			e.Identity = Identity{Type: "Unknown"}
		}
		l.Record(e)
	}
	if files, err := own(t, l).files(); err != nil || len(files) < 2 {
		t.Fatalf("files %v, %v: want several", files, err)
	}
	for want, q := range map[string]Query{
		"F E D C B A": {},
		"F E":         {Most: 2},
		"F D C A":     {Account: "111122223333"},
		"E":           {Unsigned: true},
		"B":           {Errors: true},
		"C":           {User: "AKIA2"},
		"F D B A":     {User: "user/ann"},
		"D":           {Resource: "s-1"},
		"F D B":       {Changes: true},
		"A":           {Name: "a"},
		"D C":         {Since: at.Add(2 * time.Minute), Until: at.Add(4 * time.Minute)},
		"":            {Name: "none"},
	} {
		if got := names(t, l, q); got != want {
			t.Errorf("%+v: %q, want %q", q, got, want)
		}
	}
	// Another start goes on in another file.
	again := open(t, l.dir, Limits{}, func() time.Time { return at.Add(-time.Hour) }) // the clock was set back
	again.Record(event("G", at))
	if got := names(t, again, Query{Most: 2, Account: "111122223333"}); got != "G F" {
		t.Errorf("after another start: %q", got)
	}
}

// Each line is JSON of the documented members.
func TestShape(t *testing.T) {
	l := open(t, t.TempDir(), Limits{}, nil)
	e := event("StartRecovery", time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC))
	e.RequestParameters = Redacted(map[string]any{
		"sourceServers": []any{map[string]any{"sourceServerID": "s-1"}}, "tags": map[string]any{"password": "hunter2"}, "nextToken": "abc",
		"deep": map[string]any{"SecretAccessKey": "hunter2", "n": 5, "none": nil},
	})
	e.ErrorMessage = strings.Repeat("x", 2*maxText) + "\xff"
	l.Record(e)
	files, err := own(t, l).files()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(own(t, l).dir, files[0]))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("hunter2")) || bytes.Contains(text, []byte(`"abc"`)) {
		t.Errorf("a secret is written: %s", text)
	}
	var line map[string]any
	if err := json.Unmarshal(text, &line); err != nil {
		t.Fatal(err)
	}
	for member, want := range map[string]string{
		"eventVersion": "1.11", "eventTime": "2026-03-01T12:00:00.123Z", "eventType": "AwsApiCall", "eventCategory": "Management",
		"managementEvent": "true", "responseElements": "<nil>",
		"requestParameters": "map[deep:map[SecretAccessKey:HIDDEN_DUE_TO_SECURITY_REASONS n:5 none:<nil>] nextToken:HIDDEN_DUE_TO_SECURITY_REASONS " +
			"sourceServers:[map[sourceServerID:s-1]] tags:map[password:HIDDEN_DUE_TO_SECURITY_REASONS]]",
	} {
		if got := fmt.Sprint(line[member]); got != want {
			t.Errorf("%s is %s, want %s", member, got, want)
		}
	}
	if got := Redacted(map[string]any{"x": strings.Repeat("x", 2*maxDocument)}); string(got) != `{"omitted":true}` {
		t.Errorf("a huge document is kept: %.80s", got)
	}
}

// A line that a power cut tore is passed over; damage elsewhere is told, and hides
// nothing else.
func TestTorn(t *testing.T) {
	l := open(t, t.TempDir(), Limits{}, nil)
	l.Record(event("A", time.Now()))
	l.Record(event("B", time.Now()))
	files, err := own(t, l).files()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(own(t, l).dir, files[0])
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range text {
		if err := os.WriteFile(path, text[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		want := []string{"", "A"}[strings.Count(string(text[:n]), "\n")]
		if got := names(t, l, Query{}); got != want {
			t.Fatalf("cut at %d: %q, want %q", n, got, want)
		}
	}
	damaged := append([]byte("garbage\n"+strings.Repeat("y", 2*maxLine)+"\n"), text...)
	if err := os.WriteFile(path, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := l.Search(t.Context(), Query{Most: 10})
	if !errors.Is(err, ErrUnreadable) || len(found) != 2 || !strings.Contains(err.Error(), ": 2") {
		t.Errorf("%d events, %v: want 2 and 2 unreadable lines", len(found), err)
	}
}

func TestRetention(t *testing.T) {
	now := time.Now()
	l := open(t, t.TempDir(), Limits{File: 1, Total: 3000, Age: time.Hour}, func() time.Time { now = now.Add(time.Millisecond); return now })
	for i := range 50 {
		l.Record(event(fmt.Sprint(i), now))
	}
	files, err := own(t, l).files()
	if err != nil || len(files) < 2 || len(files) > 7 {
		t.Errorf("%d files are left, %v", len(files), err)
	}
	if got := names(t, l, Query{Most: 1}); got != "49" {
		t.Errorf("the latest event is %q", got)
	}
	now = now.Add(2 * time.Hour)
	l.Sweep()
	if files, err := own(t, l).files(); err != nil || len(files) != 1 {
		t.Errorf("two hours later %d files are left, %v: want the present one", len(files), err)
	}
}

// Calls that nobody signed, of which anybody can make any number, do not push out
// those that somebody did.
func TestUnsignedAreKeptApart(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	l := open(t, t.TempDir(), Limits{File: 2 << 10, Total: 16 << 10}, func() time.Time { at = at.Add(time.Second); return at })
	l.Record(event("Signed", at))
	for i := range 200 {
		e := event(fmt.Sprint("Unsigned", i), at)
		e.Identity, e.Time = Identity{Type: "Unknown"}, at.Add(time.Duration(i))
		l.Record(e)
	}
	if got := names(t, l, Query{Account: "111122223333"}); got != "Signed" {
		t.Errorf("of the signed calls the log has %q", got)
	}
	found, err := l.Search(t.Context(), Query{Unsigned: true, Most: 1000})
	if err != nil || len(found) == 0 || len(found) > 20 || found[0].Name != "Unsigned199" {
		t.Errorf("%d unsigned calls, %v: want the latest few", len(found), err)
	}
}

// An account that calls without end pushes out no calls but its own. What was kept
// before accounts were kept apart is still found.
func TestAccountsAreKeptApart(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { at = at.Add(time.Second); return at }
	dir := t.TempDir()
	l := open(t, dir, Limits{File: 2 << 10, Total: 16 << 10}, clock)
	early, err := event("Early", at).encoded()
	if err == nil {
		err = l.earlier.write(early)
	}
	if err != nil {
		t.Fatal(err)
	}
	l.Record(event("Mine", at))
	for i := range 200 {
		e := event(fmt.Sprint("Other", i), at.Add(time.Duration(i)))
		e.Identity.AccountID = "444455556666"
		l.Record(e)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, l := range []*Log{l, open(t, dir, Limits{File: 2 << 10, Total: 16 << 10}, clock)} {
		if got := names(t, l, Query{Account: mine}); got != "Mine Early" {
			t.Errorf("the account has %q", got)
		}
		l.Sweep()
		if n := len(strings.Fields(names(t, l, Query{Account: "444455556666"}))); n == 0 || n > 60 {
			t.Errorf("the other has %d", n)
		}
		if got := names(t, l, Query{Most: 1}); got != "Other199" {
			t.Errorf("the latest of all is %q", got)
		}
	}
	e := event("X", at)
	e.Identity.AccountID = "../444455556"
	l.Record(e)
	if l.Lost() != 1 {
		t.Errorf("an account that cannot be has a folder")
	}
}

// What cannot be kept is counted, and the log goes on when the cause is gone.
func TestLost(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l := open(t, dir, Limits{}, nil)
	own(t, l)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	l.Record(event("A", time.Now()))
	if l.Lost() != 1 {
		t.Errorf("%d lost, want 1", l.Lost())
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	l.Record(event("B", time.Now()))
	if got := names(t, l, Query{}); got != "B" || l.Lost() != 1 {
		t.Errorf("then %q, %d lost", got, l.Lost())
	}
}

func TestConcurrent(t *testing.T) {
	l := open(t, t.TempDir(), Limits{File: 20_000}, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				l.Record(event("X", time.Now()))
				l.sync()
			}
		})
	}
	wg.Wait()
	if found, err := l.Search(t.Context(), Query{Most: 10_000}); err != nil || len(found) != 800 {
		t.Errorf("%d events, %v: want 800", len(found), err)
	}
}

// Run closes the present file when it ends.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := open(t, dir, Limits{}, nil)
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- l.Run(ctx) }()
		l.Record(event("A", time.Now()))
		time.Sleep(2 * syncEvery) // of the bubble's clock
		f := own(t, l)
		f.mu.Lock()
		if f.dirty || f.file == nil {
			t.Error("two seconds later the event is not on disk")
		}
		f.mu.Unlock()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.file != nil {
			t.Error("the file is still open")
		}
	})
}

func FuzzLine(f *testing.F) {
	f.Add([]byte("{}\n{\"eventName\":\"x\"}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "a.jsonl"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, dir, Limits{}, nil)
		if _, err := l.Search(t.Context(), Query{Most: 3, Name: "x"}); err != nil && !errors.Is(err, ErrUnreadable) {
			t.Error(err)
		}
	})
}
