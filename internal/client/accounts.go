package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// ask sends a JSON document to what the server has beside the DRS API, and reads
// the one that it answers with. Either may be nil.
func (c *Client) ask(ctx context.Context, method string, query url.Values, in, out any, path ...string) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	answer, err := c.besideWith(ctx, method, body, func(r *http.Request) {
		r.URL.RawQuery = query.Encode()
		r.Header.Set("Content-Type", "application/json")
	}, path...)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(answer.Body).Decode(out); err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return nil
}

// Account is one account of the server.
type Account struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

// RootKey is the access key of an account's root.
type RootKey struct {
	ID      string `json:"accessKeyId"`
	Secret  string `json:"secretAccessKey"`
	Account string `json:"account"`
}

// CreateAccount makes an account and the key of its root; an empty id makes one up.
func (c *Client) CreateAccount(ctx context.Context, id, name string) (Account, RootKey, error) {
	var out struct {
		Account   Account `json:"account"`
		AccessKey RootKey `json:"accessKey"`
	}
	err := c.ask(ctx, http.MethodPost, nil, map[string]string{"id": id, "name": name}, &out, "accounts")
	return out.Account, out.AccessKey, err
}

// Accounts lists the server's accounts.
func (c *Client) Accounts(ctx context.Context) ([]Account, error) {
	var out struct{ Accounts []Account }
	err := c.fill(ctx, &out, nil, "accounts")
	return out.Accounts, err
}

// CreateRootKey makes another key of an account's root.
func (c *Client) CreateRootKey(ctx context.Context, account string) (RootKey, error) {
	var out struct{ AccessKey RootKey }
	err := c.ask(ctx, http.MethodPost, nil, map[string]string{}, &out, "accounts", account, "keys")
	return out.AccessKey, err
}

// fill reads a document.
func (c *Client) fill(ctx context.Context, out any, query url.Values, path ...string) error {
	return c.ask(ctx, http.MethodGet, query, nil, out, path...)
}

// AuditFilter picks calls; empty members pick all.
type AuditFilter struct {
	Since, Until      time.Time
	User, Name, About string
	Changes, Errors   bool
	Unsigned          bool
	Most              int
}

// AuditEvent is one call, as it was recorded; the document is in Raw.
type AuditEvent struct {
	Time      time.Time `json:"eventTime"`
	Source    string    `json:"eventSource"`
	Name      string    `json:"eventName"`
	SourceIP  string    `json:"sourceIPAddress"`
	ErrorCode string    `json:"errorCode"`
	Identity  struct {
		Type string `json:"type"`
		ARN  string `json:"arn"`
	} `json:"userIdentity"`
	Raw json.RawMessage `json:"-"`
}

// Audit returns recorded calls, latest first, and whether a part of the log could
// not be read.
func (c *Client) Audit(ctx context.Context, f AuditFilter) (events []AuditEvent, incomplete bool, err error) {
	query := url.Values{}
	set := func(name, value string) {
		if value != "" {
			query.Set(name, value)
		}
	}
	for name, at := range map[string]time.Time{"since": f.Since, "until": f.Until} {
		if !at.IsZero() {
			set(name, at.UTC().Format(time.RFC3339))
		}
	}
	set("user", f.User)
	set("event", f.Name)
	set("about", f.About)
	for name, on := range map[string]bool{"changes": f.Changes, "errors": f.Errors, "unsigned": f.Unsigned} {
		if on {
			set(name, "true")
		}
	}
	if f.Most > 0 {
		set("limit", strconv.Itoa(f.Most))
	}
	var out struct {
		Events     []json.RawMessage
		Incomplete bool
	}
	if err := c.fill(ctx, &out, query, "audit"); err != nil {
		return nil, false, err
	}
	events = []AuditEvent{}
	for _, raw := range out.Events {
		e := AuditEvent{Raw: raw}
		if err := json.Unmarshal(raw, &e); err != nil {
			return nil, false, fmt.Errorf("read the server's answer: %w", err)
		}
		events = append(events, e)
	}
	return events, out.Incomplete, nil
}

// Webhook is where events go.
type Webhook struct {
	ID      string    `json:"id"`
	URL     string    `json:"url"`
	Types   []string  `json:"types"`
	Created time.Time `json:"created"`
	Secret  string    `json:"secret,omitempty"`
	Waiting int       `json:"waiting"`
	Dead    int       `json:"dead"`
}

// AddWebhook makes a webhook, with its secret.
func (c *Client) AddWebhook(ctx context.Context, to string, types []string) (Webhook, error) {
	var out struct{ Webhook Webhook }
	err := c.ask(ctx, http.MethodPost, nil, map[string]any{"url": to, "types": types}, &out, "webhooks")
	return out.Webhook, err
}

// Webhooks lists the account's webhooks.
func (c *Client) Webhooks(ctx context.Context) ([]Webhook, error) {
	var out struct{ Webhooks []Webhook }
	err := c.fill(ctx, &out, nil, "webhooks")
	return out.Webhooks, err
}

// RemoveWebhook forgets a webhook and what waits for it.
func (c *Client) RemoveWebhook(ctx context.Context, id string) error {
	return c.ask(ctx, http.MethodDelete, nil, nil, nil, "webhooks", id)
}

// TestWebhook sends a webhook an event now.
func (c *Client) TestWebhook(ctx context.Context, id string) error {
	return c.ask(ctx, http.MethodPost, nil, map[string]string{}, nil, "webhooks", id, "test")
}

// WebhookDelivery is an event that waits for a webhook.
type WebhookDelivery struct {
	Event    json.RawMessage `json:"event"`
	Attempts int             `json:"attempts"`
	Next     time.Time       `json:"next"`
	Dead     bool            `json:"dead"`
	Error    string          `json:"error,omitempty"`
}

// WebhookDeliveries lists what waits for a webhook, the dead included.
func (c *Client) WebhookDeliveries(ctx context.Context, id string) ([]WebhookDelivery, error) {
	var out struct{ Deliveries []WebhookDelivery }
	err := c.fill(ctx, &out, nil, "webhooks", id, "deliveries")
	return out.Deliveries, err
}

// RetryWebhook tries the dead deliveries of a webhook again.
func (c *Client) RetryWebhook(ctx context.Context, id string) (retried int64, err error) {
	var out struct{ Retried int64 }
	err = c.ask(ctx, http.MethodPost, nil, map[string]string{}, &out, "webhooks", id, "retry")
	return out.Retried, err
}

// Token is an install token.
type Token struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// InstallToken makes a token with which agents register to the account.
func (c *Client) InstallToken(ctx context.Context) (Token, error) {
	var out Token
	err := c.ask(ctx, http.MethodPost, nil, map[string]string{}, &out, "install-tokens")
	return out, err
}
