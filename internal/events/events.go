// Package events brings what happened to the webhooks that want to know.
//
// An event is written to the tables in the transaction of what it tells of, so
// that neither can be without the other; from there it goes to each webhook at
// least once, until the webhook answers with a 2xx status or a day has passed.
// What could not be delivered in that time is kept as dead, to be looked at and
// tried again. Order is kept as long as nothing fails, and not promised.
//
// A message is a CloudEvent 1.0 in structured JSON whose data is the event as
// EventBridge would deliver it, signed as Standard Webhooks are; docs/access.md
// tells how to check it.
package events

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
)

// Config is what a Dispatcher is made of. All but Now are required.
type Config struct {
	DB  *db.DB
	Box *iam.Box // that the webhooks' secrets are sealed in
	Log *slog.Logger
	// Transport is what carries the messages of an account.
	Transport func(drs.Account) http.RoundTripper
	Now       func() time.Time
}

// Dispatcher delivers events. Safe for concurrent use.
type Dispatcher struct{ Config }

const (
	// pollEvery is how long an event may lie before it is seen.
	pollEvery = time.Second
	// timeout bounds one attempt.
	timeout = 10 * time.Second
	// turn is how long one webhook is served before all others are: one that answers
	// slowly keeps nobody waiting for long.
	turn = 10 * time.Second
	// maxAge is how long a delivery is tried, as EventBridge tries it.
	maxAge = 24 * time.Hour
	// keepDead is how long dead deliveries can be looked at.
	keepDead    = 14 * 24 * time.Hour
	firstPause  = time.Second
	longestWait = 15 * time.Minute
	batch       = 256
	parallel    = 8 // webhooks at a time
)

// New makes a Dispatcher.
func New(c Config) *Dispatcher {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Dispatcher{c}
}

func (d *Dispatcher) client(account drs.Account) *http.Client {
	return &http.Client{
		Transport: d.Transport(account), Timeout: timeout,
		// A redirect could lead a signed message anywhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Run delivers until ctx ends.
func (d *Dispatcher) Run(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for sweep := 0; ; sweep++ {
		if sweep%3600 == 0 {
			if err := d.DB.DropDead(ctx, d.Now().Add(-keepDead)); err != nil && ctx.Err() == nil {
				d.Log.Error("dead deliveries stay", "err", err)
			}
		}
		if err := d.Deliver(ctx); err != nil && ctx.Err() == nil {
			d.Log.Error("events wait", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Deliver tries everything that is due once: the webhooks side by side, the
// messages of each in order. It returns when all attempts have ended; an error
// means that an outcome could not be kept, and the attempt will be made again.
func (d *Dispatcher) Deliver(ctx context.Context) error {
	due, err := d.DB.DueDeliveries(ctx, d.Now(), batch)
	if err != nil || len(due) == 0 {
		return err
	}
	var order []string
	queues := map[string][]db.Delivery{}
	for _, v := range due {
		if queues[v.Webhook] == nil {
			order = append(order, v.Webhook)
		}
		queues[v.Webhook] = append(queues[v.Webhook], v)
	}
	errs := make([]error, len(order))
	free := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for i, id := range order {
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			errs[i] = d.deliverTo(ctx, id, queues[id])
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// deliverTo works off the queue of one webhook. Where one message fails, the
// others wait for their own turn: what is down is not hammered.
func (d *Dispatcher) deliverTo(ctx context.Context, id string, queue []db.Delivery) error {
	w, err := d.DB.WebhookByID(ctx, id)
	if errors.Is(err, db.ErrAbsent) {
		return nil // removed meanwhile, and its queue with it
	}
	if err != nil {
		return err
	}
	began := d.Now()
	for _, v := range queue {
		if d.Now().Sub(began) >= turn {
			return nil // the rest is due the next time
		}
		sendErr := d.Send(ctx, w, v.Event)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if sendErr == nil {
			if err := d.DB.Delivered(ctx, v.Seq); err != nil {
				return err
			}
			continue
		}
		if err := d.fail(ctx, v, sendErr); err != nil {
			return err
		}
		now := d.Now()
		return d.DB.PostponeDeliveries(ctx, id, now.Add(pause(v.Attempts+1)), now.Add(-maxAge), "What came before it was not taken for a day: "+sendErr.Error())
	}
	return nil
}

func (d *Dispatcher) fail(ctx context.Context, v db.Delivery, cause error) error {
	now := d.Now()
	v.Attempts++
	v.Error = cause.Error()
	v.Next = now.Add(pause(v.Attempts))
	v.Dead = now.Sub(v.Created) >= maxAge
	if v.Dead {
		d.Log.Error("an event was not delivered within a day", "webhook", v.Webhook, "event", v.Event.ID, "type", v.Event.Type, "err", cause)
	} else {
		d.Log.Warn("an event was not delivered yet", "webhook", v.Webhook, "event", v.Event.ID, "attempt", v.Attempts, "next", v.Next, "err", cause)
	}
	return d.DB.DeliveryFailed(ctx, v)
}

// pause grows twofold with each attempt, up to a bound, with a random fifth so
// that many do not come back as one.
func pause(attempts int) time.Duration {
	p := longestWait
	if attempts < 20 {
		p = min(p, firstPause<<(attempts-1))
	}
	return p + time.Duration(rand.Int64N(int64(p)/5+1)) //nolint:gosec // nobody gains by guessing it
}

// message is a CloudEvent in structured JSON.
type message struct {
	SpecVersion string    `json:"specversion"`
	ID          string    `json:"id"`
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	Subject     string    `json:"subject,omitempty"`
	Time        time.Time `json:"time"`
	ContentType string    `json:"datacontenttype"`
	Data        drs.Event `json:"data"`
}

// Send makes one attempt; nil means that the webhook has the event.
func (d *Dispatcher) Send(ctx context.Context, w db.Webhook, e drs.Event) error {
	secret, err := d.Box.Open(w.Secret, w.ID)
	if err != nil {
		return fmt.Errorf("secret of webhook %s: %w", w.ID, err)
	}
	m := message{
		SpecVersion: "1.0", ID: e.ID, Source: "arn:aws:drs:" + e.Region + ":" + e.AccountID, Type: e.Type.CloudType(),
		Time: e.Time, ContentType: "application/json", Data: e,
	}
	if len(e.Resources) > 0 {
		m.Subject = e.Resources[0]
	}
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode event %s: %w", e.ID, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("deliver to webhook %s: %w", w.ID, withoutURL(err))
	}
	at := strconv.FormatInt(d.Now().Unix(), 10)
	request.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	request.Header.Set("User-Agent", "lifeboat")
	request.Header.Set("Webhook-Id", e.ID)
	request.Header.Set("Webhook-Timestamp", at)
	request.Header.Set("Webhook-Signature", "v1,"+Sign(secret, e.ID, at, body))
	answer, err := d.client(w.Account).Do(request)
	if err != nil {
		return fmt.Errorf("deliver to %s: %w", request.URL.Host, withoutURL(err))
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)) // so that the connection can be used again
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return fmt.Errorf("%s answered %s", request.URL.Host, answer.Status)
	}
	return nil
}

// withoutURL is the cause alone: what stands in the path of a webhook's URL is often
// a secret, and errors go to the log.
func withoutURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// Sign is the signature of a message, as receivers compute it.
func Sign(secret []byte, id, timestamp string, body []byte) string {
	h := hmac.New(sha256.New, secret)
	fmt.Fprintf(h, "%s.%s.", id, timestamp)
	h.Write(body)
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}
