package events

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
)

var home = drs.Account{ID: "111122223333", Region: "eu-west-1"}

// receiver is a webhook that answers as told.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	answer int
	got    []*http.Request
	bodies [][]byte
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{answer: http.StatusNoContent}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got, r.bodies = append(r.got, q), append(r.bodies, body)
		if r.answer == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(r.answer)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) set(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = status
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

type site struct {
	t   *testing.T
	db  *db.DB
	d   *Dispatcher
	box *iam.Box
	now time.Time
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, now: time.Now().Add(time.Minute)}
	var err error
	s.db, err = db.Create(t.Context(), filepath.Join(t.TempDir(), "lifeboat.db"))
	must(t, err)
	t.Cleanup(func() { s.db.Close() })
	s.box, err = iam.NewBox(bytes.Repeat([]byte("m"), 32), "test")
	must(t, err)
	s.d = New(Config{DB: s.db, Box: s.box, Log: slog.New(slog.DiscardHandler), Transport: func(drs.Account) http.RoundTripper { return http.DefaultTransport }, Now: func() time.Time { return s.now }})
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const secret = "a secret of thirty-two bytes, or"

func (s *site) hook(id, url string, types ...drs.EventType) db.Webhook {
	s.t.Helper()
	w := db.Webhook{ID: id, Account: home, URL: url, Types: types, Created: s.now, Secret: s.box.Seal([]byte(secret), id)}
	must(s.t, s.db.AddWebhook(s.t.Context(), w, 20))
	return w
}

func (s *site) emit(e drs.Event) {
	s.t.Helper()
	must(s.t, s.db.InTx(s.t.Context(), func(ctx context.Context, tx db.Tx) error { return tx.Emit(ctx, e) }))
}

func launched(n int) drs.Event {
	job := drs.Job{ID: drs.JobID(fmt.Sprintf("drsjob-%017d", n)), Account: home, Initiated: drs.StartedDrill}
	return drs.LaunchResult(job, "s-00000000000000001", n%2 == 0, time.Now())
}

func (s *site) counts() string {
	s.t.Helper()
	waiting, dead, err := s.db.DeliveryCounts(s.t.Context())
	must(s.t, err)
	return fmt.Sprintf("%d waiting, %d dead", waiting, dead)
}

// A message is a CloudEvent around the event of EventBridge, signed so that its
// receiver can check it.
func TestMessage(t *testing.T) {
	s, r := newSite(t), newReceiver(t)
	s.hook("wh-1", r.URL)
	s.emit(launched(2))
	must(t, s.d.Deliver(t.Context()))
	if r.count() != 1 || s.counts() != "0 waiting, 0 dead" {
		t.Fatalf("%d messages, %s", r.count(), s.counts())
	}
	got, body := r.got[0], r.bodies[0]
	var m map[string]any
	must(t, json.Unmarshal(body, &m))
	data := m["data"].(map[string]any)
	for name, want := range map[string]any{
		"specversion": "1.0", "type": "aws.drs.source-server-launch-result", "source": "arn:aws:drs:eu-west-1:111122223333",
		"subject": "arn:aws:drs:eu-west-1:111122223333:source-server/s-00000000000000001", "datacontenttype": "application/json", "id": data["id"],
	} {
		if m[name] != want {
			t.Errorf("%s is %v, want %v", name, m[name], want)
		}
	}
	if text := fmt.Sprint(data["detail-type"], data["source"], data["account"], data["region"], data["detail"]); text !=
		"DRS Source Server Launch Resultaws.drs111122223333eu-west-1map[is-drill:TRUE job-id:drsjob-00000000000000002 state:RECOVERY_LAUNCH_SUCCEEDED]" {
		t.Errorf("data %s", text)
	}
	if kind := got.Header.Get("Content-Type"); !strings.HasPrefix(kind, "application/cloudevents+json") {
		t.Errorf("content type %s", kind)
	}
	want := "v1," + Sign([]byte(secret), got.Header.Get("Webhook-Id"), got.Header.Get("Webhook-Timestamp"), body)
	if got.Header.Get("Webhook-Signature") != want || got.Header.Get("Webhook-Id") != m["id"] {
		t.Errorf("signature %s of %s, want %s", got.Header.Get("Webhook-Signature"), got.Header.Get("Webhook-Id"), want)
	}
	// The scheme of Standard Webhooks, with figures of its own.
	if got := Sign([]byte("key"), "id", "1", []byte("{}")); len(got) != base64.StdEncoding.EncodedLen(32) || got != Sign([]byte("key"), "id", "1", []byte("{}")) || got == Sign([]byte("key"), "id", "2", []byte("{}")) {
		t.Errorf("signature %s", got)
	}
}

// What is not taken is tried again, later and later, for a day; then it is dead,
// visible, and can be tried again.
func TestRetry(t *testing.T) {
	s, r := newSite(t), newReceiver(t)
	hook := s.hook("wh-1", r.URL)
	r.set(http.StatusServiceUnavailable)
	s.emit(launched(1))
	s.emit(launched(2))
	last := 0
	for round := 0; s.counts() != "0 waiting, 2 dead"; round++ {
		if round > 2000 {
			t.Fatalf("after %d rounds: %s", round, s.counts())
		}
		must(t, s.d.Deliver(t.Context()))
		if n := r.count(); n > last+1 {
			t.Fatalf("%d attempts at once against a webhook that is down", n-last)
		} else {
			last = n
		}
		s.now = s.now.Add(5 * time.Minute)
	}
	if last < 50 || last > 800 {
		t.Errorf("%d attempts in a day", last)
	}
	list, err := s.db.Deliveries(t.Context(), hook.ID, 10)
	must(t, err)
	if len(list) != 2 || !list[0].Dead || !strings.Contains(list[0].Error, "503") || list[0].Attempts < 10 {
		t.Errorf("dead: %+v", list)
	}
	must(t, s.d.Deliver(t.Context()))
	if r.count() != last {
		t.Error("a dead delivery was tried")
	}
	r.set(http.StatusOK)
	if n, err := s.db.RetryDead(t.Context(), hook.ID, s.now); err != nil || n != 2 {
		t.Errorf("%d to retry, %v", n, err)
	}
	must(t, s.d.Deliver(t.Context()))
	if s.counts() != "0 waiting, 0 dead" || r.count() != last+2 {
		t.Errorf("%s, %d more", s.counts(), r.count()-last)
	}
	for i, want := range []string{"drsjob-00000000000000001", "drsjob-00000000000000002"} { // in order
		if !bytes.Contains(r.bodies[last+i], []byte(want)) {
			t.Errorf("message %d is %s, want %s", i, r.bodies[last+i], want)
		}
	}
}

// A webhook that is down holds nobody else up; a redirect is not followed.
func TestSideBySide(t *testing.T) {
	s, good, bad := newSite(t), newReceiver(t), newReceiver(t)
	bad.set(http.StatusFound)
	s.hook("wh-1", bad.URL)
	s.hook("wh-2", good.URL)
	gone := s.hook("wh-3", "http://127.0.0.1:1/")
	s.emit(launched(1))
	must(t, s.d.Deliver(t.Context()))
	if good.count() != 1 || bad.count() != 1 || s.counts() != "2 waiting, 0 dead" {
		t.Errorf("good %d, bad %d, %s", good.count(), bad.count(), s.counts())
	}
	must(t, s.db.RemoveWebhook(t.Context(), home, gone.ID))
	if s.counts() != "1 waiting, 0 dead" {
		t.Errorf("after a webhook is removed: %s", s.counts())
	}
}

// A webhook that answers slowly, and one with a long queue, keep no other waiting.
func TestEachHasItsTurn(t *testing.T) {
	s, good, slow := newSite(t), newReceiver(t), newReceiver(t)
	s.hook("wh-1", slow.URL)
	for n := range batch + 1 {
		s.emit(launched(n))
	}
	s.hook("wh-2", good.URL)
	s.emit(launched(1))
	var mu sync.Mutex
	s.d.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return s.now }
	s.d.Transport = func(drs.Account) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			if strings.HasSuffix(slow.URL, r.URL.Host) {
				mu.Lock()
				s.now = s.now.Add(9 * time.Second)
				mu.Unlock()
			}
			return http.DefaultTransport.RoundTrip(r)
		})
	}
	must(t, s.d.Deliver(t.Context()))
	if good.count() != 1 || slow.count() != 2 {
		t.Errorf("%d messages to the quick one, %d to the slow one: want 1 and 2", good.count(), slow.count())
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// What fails once makes all that waits for the webhook wait, and what has waited
// for a day is dead, whether or not its own turn came. A queue has an end.
func TestQueueIsBounded(t *testing.T) {
	s, bad := newSite(t), newReceiver(t)
	bad.set(http.StatusInternalServerError)
	s.hook("wh-1", bad.URL+"/the-secret")
	for n := range batch + 10 {
		s.emit(launched(n))
	}
	for range 3 {
		must(t, s.d.Deliver(t.Context()))
	}
	if bad.count() != 1 {
		t.Errorf("%d attempts at once, want 1", bad.count())
	}
	s.now = s.now.Add(25 * time.Hour)
	must(t, s.d.Deliver(t.Context()))
	if got, want := s.counts(), fmt.Sprintf("0 waiting, %d dead", batch+10); got != want {
		t.Errorf("after a day %s, want %s", got, want)
	}
	list, err := s.db.Deliveries(t.Context(), "wh-1", 1000)
	must(t, err)
	for _, v := range list {
		if v.Error == "" || strings.Contains(v.Error, "the-secret") {
			t.Fatalf("error %q", v.Error)
		}
	}
	_, err = s.db.SQL().ExecContext(t.Context(), `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO deliveries (webhook, event_id, event, created, next) SELECT webhook, event_id || n.i, event, created, next FROM n, (SELECT * FROM deliveries LIMIT 1)`, db.MaxDeliveries)
	must(t, err)
	s.emit(launched(1))
	if got, want := s.counts(), fmt.Sprintf("%d waiting, 0 dead", db.MaxDeliveries); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Webhooks get what they ask for, of their own account; frequent events only by
// name.
func TestTypes(t *testing.T) {
	s, r := newSite(t), newReceiver(t)
	s.hook("wh-all", r.URL+"/all")
	s.hook("wh-stalls", r.URL+"/stalls", drs.EventStalled)
	s.hook("wh-points", r.URL+"/points", drs.EventSnapshotTaken)
	server, _, err := s.db.RegisterServer(t.Context(), db.Registration{Account: home, HardwareID: "x", Properties: drs.SourceProperties{
		Hostname: "x", Disks: []drs.Disk{{Device: "/dev/vda", Bytes: 1}, {Device: "/dev/vdb", Bytes: 1}},
	}})
	must(t, err)
	other := home
	other.ID = "444455556666"
	s.emit(drs.NewEvent(drs.EventStalled, other, s.now, "x", nil))

	report := func(state drs.ReplicationState, code drs.ReplicationErrorCode) {
		t.Helper()
		info := drs.DataReplicationInfo{State: state}
		if code != "" {
			info.Error = &drs.DataReplicationErr{Code: code}
		}
		must(t, s.db.ReportReplication(t.Context(), server.ID, info, s.now))
	}
	report(drs.ReplicationInitialSync, "")
	report(drs.ReplicationStalled, drs.FailedToStartDataTransfer)
	report(drs.ReplicationStalled, drs.FailedToStartDataTransfer)
	report(drs.ReplicationInitialSync, "")
	report(drs.ReplicationInitialSync, drs.AgentNotSeen) // a lost agent is a stall to whoever waits for events
	p := drs.RecoveryPoint{ID: drs.NewRecoverySnapshotID(), SourceServer: server.ID, Taken: s.now, Expected: s.now, Consistency: drs.CrashConsistent, Method: drs.QuietPass}
	must(t, s.db.AddPoint(t.Context(), p))
	must(t, s.db.AddPoint(t.Context(), p)) // again is no event
	must(t, s.d.Deliver(t.Context()))

	got := map[string][]string{}
	for i, q := range r.got {
		var m message
		must(t, json.Unmarshal(r.bodies[i], &m))
		if state, ok := m.Data.Detail["state"]; ok {
			got[q.URL.Path] = append(got[q.URL.Path], fmt.Sprint(state))
		} else {
			got[q.URL.Path] = append(got[q.URL.Path], fmt.Sprintf("%s %d", m.Data.Detail["DrsSnapshotID"], strings.Count(fmt.Sprint(m.Data.Detail["EbsSnapshotIDs"]), "snap-")))
		}
	}
	const stalls = "STALLED NOT_STALLED STALLED"
	for path, want := range map[string]string{"/all": stalls, "/stalls": stalls, "/points": string(p.ID) + " 2"} {
		if have := strings.Join(got[path], " "); have != want {
			t.Errorf("%s got %q, want %q", path, have, want)
		}
	}
}

// An event is there exactly when what it tells of is.
func TestAtomic(t *testing.T) {
	s, r := newSite(t), newReceiver(t)
	s.hook("wh-1", r.URL)
	err := s.db.InTx(t.Context(), func(ctx context.Context, tx db.Tx) error {
		if err := tx.Emit(ctx, launched(1)); err != nil {
			return err
		}
		return io.ErrUnexpectedEOF
	})
	if err == nil || s.counts() != "0 waiting, 0 dead" {
		t.Errorf("%v, then %s", err, s.counts())
	}
}
