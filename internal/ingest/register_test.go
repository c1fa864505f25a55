package ingest_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
	"lifeboat/internal/ingest"
	"lifeboat/internal/replication"
)

// Every registration is told of, and one that comes too fast is told to wait.
func TestRegistrationsAreRecordedAndHeldBack(t *testing.T) {
	var calls []ingest.RegistrationCall
	var pace error
	g := ingest.Registrar{
		CheckToken: func(token string) (drs.Account, error) {
			if token != goodToken {
				return drs.Account{}, iam.ErrTokenExpired
			}
			return account, nil
		},
		Register: func(context.Context, drs.Account, replication.Registration) (drs.SourceServerID, error) {
			return "s-00000000000000001", nil
		},
		CreateServer: func(context.Context, drs.SourceServerID) error { return nil },
		IssueAgent: func(context.Context, []byte, string, drs.SourceServerID) ([]byte, error) {
			return []byte("certificate"), nil
		},
		Throttle: func(drs.Account) error { return pace },
		Record:   func(c ingest.RegistrationCall) { calls = append(calls, c) },
	}
	body := func(token string) string {
		text, err := json.Marshal(replication.Registration{
			Token: token, HardwareID: "hw", Inventory: drs.SourceProperties{Hostname: "web1", Disks: []drs.Disk{{Device: "/dev/sda", Bytes: 1}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, c := range []struct {
		body   string
		pace   error
		status int
		code   string
		by     drs.Account
	}{
		{body(goodToken), nil, http.StatusCreated, "", account},
		{body("another"), nil, http.StatusUnauthorized, "AccessDeniedException", drs.Account{}},
		{`{`, nil, http.StatusBadRequest, "ValidationException", drs.Account{}},
		{body(goodToken), &drs.Error{Kind: drs.KindThrottled, Message: "too fast", RetryAfter: 1500 * time.Millisecond}, http.StatusTooManyRequests, "ThrottlingException", account},
	} {
		calls, pace = nil, c.pace
		w := httptest.NewRecorder()
		g.ServeHTTP(w, httptest.NewRequest(http.MethodPost, replication.RegisterPath, strings.NewReader(c.body)))
		if w.Code != c.status || len(calls) != 1 || calls[0].Code != c.code || calls[0].Account != c.by || (calls[0].Server != "") != (c.code == "") || calls[0].Machine.Token != "" {
			t.Errorf("%.40s: %d %s, told %+v", c.body, w.Code, w.Body, calls)
		}
		if got := w.Header().Get("Retry-After"); c.pace != nil && got != "2" {
			t.Errorf("Retry-After %q", got)
		}
	}
}

// Many machines are installed at once: an agent that is asked to come later does.
func TestAgentRegistersWhenTheServerHasTime(t *testing.T) {
	r := newRig(t, nil)
	g := registrar(r.authority, r.vault, r.backend).(ingest.Registrar)
	busy := 2
	g.Throttle = func(drs.Account) error {
		if busy--; busy >= 0 {
			return &drs.Error{Kind: drs.KindThrottled, Message: "Too many registrations", RetryAfter: 10 * time.Millisecond}
		}
		return nil
	}
	r.register(g)
	a := runAgent(r.config(filepath.Join(t.TempDir(), "agent"), image(t, 1<<20, seed(t))))
	r.catalog.await(t, "the agent's first point", func() bool { return len(r.catalog.points) > 0 })
	a.stop(t)
	if busy >= 0 {
		t.Error("nobody held the agent back")
	}
}
