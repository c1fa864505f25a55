package main

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"lifeboat/internal/client"
	"lifeboat/internal/client/show"
)

type webhookCommand struct {
	Add     webhookAdd     `cmd:"" help:"Send events to a URL; prints the secret that signs them, this once."`
	List    webhookList    `cmd:"" help:"List the account's webhooks, and how much waits for them."`
	Test    webhookTest    `cmd:"" help:"Send a webhook an event now."`
	Waiting webhookWaiting `cmd:"" help:"List what a webhook has not taken yet, with the cause; the dead are tried no more."`
	Retry   webhookRetry   `cmd:"" help:"Try the dead deliveries of a webhook again."`
	Remove  webhookRemove  `cmd:"" help:"Forget a webhook and what waits for it."`
}

type webhookAdd struct {
	clientFlags
	URL  string   `arg:"" help:"An http or https URL."`
	Type []string `placeholder:"TYPE" sep:"none" help:"Only events of this detail-type; may be given again. Without it, all but \"DRS PIT Snapshot Taken\"."`
}

// Run makes a webhook.
func (v *webhookAdd) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	hook, err := c.AddWebhook(ctx, v.URL, v.Type)
	if err != nil {
		return err
	}
	return v.result(map[string]any{"webhook": hook}, func(p *show.Printer) {
		p.Printf("Webhook %s. Its messages are signed with this secret, told this once:\n\n%s\n", hook.ID, hook.Secret)
	})
}

type webhookList struct{ clientFlags }

// Run lists webhooks.
func (v *webhookList) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	hooks, err := c.Webhooks(ctx)
	if err != nil {
		return err
	}
	return v.result(map[string]any{"webhooks": hooks}, func(p *show.Printer) {
		var rows [][]string
		for _, h := range hooks {
			types := strings.Join(h.Types, ", ")
			if types == "" {
				types = "all but points"
			}
			rows = append(rows, []string{h.ID, h.URL, types, strconv.Itoa(h.Waiting), strconv.Itoa(h.Dead)})
		}
		p.Table([]string{"WEBHOOK", "URL", "EVENTS", "WAITING", "DEAD"}, rows)
	})
}

// webhookFlags name one webhook.
type webhookFlags struct {
	clientFlags
	ID string `arg:"" help:"The webhook's ID."`
}

type webhookTest struct{ webhookFlags }

// Run tries a webhook.
func (v *webhookTest) Run(ctx context.Context) error {
	return v.change(ctx, func(c *client.Client) error { return c.TestWebhook(ctx, v.ID) }, "Webhook %s took the event.\n", v.ID)
}

type webhookRemove struct{ webhookFlags }

// Run forgets a webhook.
func (v *webhookRemove) Run(ctx context.Context) error {
	return v.change(ctx, func(c *client.Client) error { return c.RemoveWebhook(ctx, v.ID) }, "Webhook %s is removed.\n", v.ID)
}

type webhookWaiting struct{ webhookFlags }

// Run lists what waits.
func (v *webhookWaiting) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	waiting, err := c.WebhookDeliveries(ctx, v.ID)
	if err != nil {
		return err
	}
	return v.result(map[string]any{"deliveries": waiting}, func(p *show.Printer) {
		var rows [][]string
		for _, w := range waiting {
			var event struct {
				ID   string `json:"id"`
				Type string `json:"detail-type"`
			}
			_ = json.Unmarshal(w.Event, &event) // the server wrote it; an empty row shows that it did not
			next := "dead"
			if !w.Dead {
				next = p.Moment(w.Next)
			}
			rows = append(rows, []string{event.ID, event.Type, strconv.Itoa(w.Attempts), next, w.Error})
		}
		p.Table([]string{"EVENT", "TYPE", "ATTEMPTS", "NEXT", "ERROR"}, rows)
	})
}

type webhookRetry struct{ webhookFlags }

// Run tries the dead again.
func (v *webhookRetry) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	n, err := c.RetryWebhook(ctx, v.ID)
	if err != nil {
		return err
	}
	return v.result(map[string]any{"retried": n}, func(p *show.Printer) { p.Printf("%d deliveries are tried again.\n", n) })
}
