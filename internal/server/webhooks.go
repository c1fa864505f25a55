package server

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/events"
	"lifeboat/internal/iam"
)

const (
	maxWebhooks   = 20
	secretPrefix  = "whsec_" // as Standard Webhooks write secrets
	maxDeliveries = 1000
)

// webhookReply is a webhook as clients see it; the secret is told once.
type webhookReply struct {
	ID      string          `json:"id"`
	URL     string          `json:"url"`
	Types   []drs.EventType `json:"types"`
	Created time.Time       `json:"created"`
	Secret  string          `json:"secret,omitempty"`
	Waiting int             `json:"waiting"`
	Dead    int             `json:"dead"`
}

func replyOf(w db.Webhook) webhookReply {
	types := w.Types
	if types == nil {
		types = []drs.EventType{}
	}
	return webhookReply{ID: w.ID, URL: w.URL, Types: types, Created: w.Created}
}

// webhookHandler serves an account's webhooks:
//
//	GET    /lifeboat/v1/webhooks
//	POST   /lifeboat/v1/webhooks {"url": …, "types": […]}    the secret is told this once
//	DELETE /lifeboat/v1/webhooks/{id}
//	POST   /lifeboat/v1/webhooks/{id}/test                   one attempt, now
//	GET    /lifeboat/v1/webhooks/{id}/deliveries             what waits, the dead included
//	POST   /lifeboat/v1/webhooks/{id}/retry                  try the dead again
func (s *running) webhookHandler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern, action string, do func(http.ResponseWriter, *http.Request) error) {
		mux.Handle(pattern, s.gate.signed(onNothing(action), s.answering(do)))
	}
	const all, one = "/lifeboat/v1/webhooks", "/lifeboat/v1/webhooks/{id}"
	handle("GET "+all, "ListWebhooks", s.listWebhooks)
	handle("POST "+all, "CreateWebhook", s.createWebhook)
	handle("DELETE "+one, "DeleteWebhook", s.deleteWebhook)
	handle("POST "+one+"/test", "TestWebhook", s.testWebhook)
	handle("GET "+one+"/deliveries", "ListWebhookDeliveries", s.listDeliveries)
	handle("POST "+one+"/retry", "RetryWebhookDeliveries", s.retryDeliveries)
	return mux
}

func (s *running) listWebhooks(w http.ResponseWriter, r *http.Request) error {
	account, _ := caller(r.Context())
	list, err := s.db.Webhooks(r.Context(), account)
	if err != nil {
		return err
	}
	out := []webhookReply{}
	for _, hook := range list {
		reply := replyOf(hook)
		waiting, err := s.db.Deliveries(r.Context(), hook.ID, maxDeliveries)
		if err != nil {
			return err
		}
		for _, v := range waiting {
			if v.Dead {
				reply.Dead++
			} else {
				reply.Waiting++
			}
		}
		out = append(out, reply)
	}
	return replied(w, nil, map[string]any{"webhooks": out})
}

func (s *running) createWebhook(w http.ResponseWriter, r *http.Request) error {
	account, _ := caller(r.Context())
	var asked struct {
		URL   string          `json:"url"`
		Types []drs.EventType `json:"types"`
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		return drs.Invalid("body", "The body is no JSON document with a url: %v.", err)
	}
	to, err := url.Parse(asked.URL)
	if err != nil || to.Scheme != "http" && to.Scheme != "https" || to.Host == "" || to.User != nil || len(asked.URL) > 2048 {
		return drs.Invalid("url", "url must be an http or https URL without a password.")
	}
	for _, t := range asked.Types {
		if !slices.Contains(drs.EventTypes, t) {
			return drs.Invalid("types", "There is no event type %q. There are: %s.", t, joined(drs.EventTypes))
		}
	}
	id, secret := make([]byte, 8), make([]byte, 32)
	rand.Read(id) // never fails: crypto/rand aborts the program instead
	rand.Read(secret)
	hook := db.Webhook{ID: "wh-" + hex.EncodeToString(id), Account: account, URL: asked.URL, Types: asked.Types, Created: time.Now().UTC()}
	hook.Secret = s.webhookBox.Seal(secret, hook.ID)
	if err := s.db.AddWebhook(r.Context(), hook, maxWebhooks); err != nil {
		return err
	}
	reply := replyOf(hook)
	reply.Secret = secretPrefix + base64.StdEncoding.EncodeToString(secret)
	return replied(w, nil, map[string]any{"webhook": reply})
}

func joined(types []drs.EventType) string {
	var names []string
	for _, t := range types {
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}

// webhook finds the webhook in a request's path, of the caller's account.
func (s *running) webhook(r *http.Request) (db.Webhook, error) {
	account, _ := caller(r.Context())
	id := r.PathValue("id")
	hook, err := s.db.WebhookByID(r.Context(), id)
	if errors.Is(err, db.ErrAbsent) || err == nil && hook.Account != account {
		return hook, noWebhook(id)
	}
	return hook, err
}

func noWebhook(id string) error {
	return &drs.Error{Kind: drs.KindNotFound, ResourceID: id, Message: fmt.Sprintf("Webhook %s does not exist in this account. `lifeboat webhook list` lists those that do.", id)}
}

func (s *running) deleteWebhook(w http.ResponseWriter, r *http.Request) error {
	account, _ := caller(r.Context())
	err := s.db.RemoveWebhook(r.Context(), account, r.PathValue("id"))
	if errors.Is(err, db.ErrAbsent) {
		err = noWebhook(r.PathValue("id"))
	}
	return replied(w, err, map[string]any{})
}

func (s *running) testWebhook(w http.ResponseWriter, r *http.Request) error {
	hook, err := s.webhook(r)
	if err != nil {
		return err
	}
	e := drs.NewEvent(drs.EventWebhookTest, hook.Account, time.Now(), "arn:aws:drs:"+hook.Account.Region+":"+hook.Account.ID+":webhook/"+hook.ID, map[string]any{"webhook": hook.ID})
	if err := s.events.Send(r.Context(), hook, e); err != nil {
		return drs.Conflict("", hook.ID, "The webhook did not take the event: %v.", err)
	}
	return replied(w, nil, map[string]any{"event": e.ID})
}

// deliveryReply is an event that waits for a webhook.
type deliveryReply struct {
	Event    drs.Event `json:"event"`
	Attempts int       `json:"attempts"`
	Next     time.Time `json:"next"`
	Dead     bool      `json:"dead"`
	Error    string    `json:"error,omitempty"`
}

func (s *running) listDeliveries(w http.ResponseWriter, r *http.Request) error {
	hook, err := s.webhook(r)
	if err != nil {
		return err
	}
	list, err := s.db.Deliveries(r.Context(), hook.ID, maxDeliveries)
	out := []deliveryReply{}
	for _, v := range list {
		out = append(out, deliveryReply{v.Event, v.Attempts, v.Next, v.Dead, v.Error})
	}
	return replied(w, err, map[string]any{"deliveries": out})
}

func (s *running) retryDeliveries(w http.ResponseWriter, r *http.Request) error {
	hook, err := s.webhook(r)
	if err != nil {
		return err
	}
	n, err := s.db.RetryDead(r.Context(), hook.ID, time.Now())
	return replied(w, err, map[string]any{"retried": n})
}

// openEvents makes what brings events to webhooks. The tables must be open.
func (s *running) openEvents() (err error) {
	if s.webhookBox, err = iam.NewBox(s.dir.master, "webhook secrets v1"); err != nil {
		return err
	}
	s.events = events.New(events.Config{
		DB: s.db, Box: s.webhookBox, Log: s.Log.With("wing", "events"), Transport: s.webhookTransport(),
	})
	return nil
}
