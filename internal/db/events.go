package db

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

// Webhook is where events of an account go. Its secret is sealed.
type Webhook struct {
	ID      string
	Account drs.Account
	URL     string
	Secret  []byte
	Types   []drs.EventType // empty: all but the frequent ones
	Created time.Time
}

// wants tells whether events of a type go there.
func (w Webhook) wants(t drs.EventType) bool {
	if len(w.Types) == 0 {
		return !t.Frequent()
	}
	return slices.Contains(w.Types, t)
}

type webhookRow struct {
	bun.BaseModel `bun:"table:webhooks"`

	ID      string `bun:",pk"`
	Account string
	Region  string
	URL     string `bun:"url"`
	Secret  []byte
	Types   document[[]drs.EventType]
	Created stamp
}

func (r webhookRow) resource() Webhook {
	return Webhook{r.ID, drs.Account{ID: r.Account, Region: r.Region}, r.URL, r.Secret, r.Types.V, r.Created.Time()}
}

// AddWebhook keeps a webhook; more than most of one account are refused with a
// *drs.Error.
func (d *DB) AddWebhook(ctx context.Context, w Webhook, most int) error {
	return d.InTx(ctx, func(ctx context.Context, tx Tx) error {
		n, err := tx.NewSelect().Model((*webhookRow)(nil)).Where("account = ? AND region = ?", w.Account.ID, w.Account.Region).Count(ctx)
		if err != nil {
			return fmt.Errorf("count webhooks: %w", err)
		}
		if int(n) >= most {
			return drs.Conflict("", "", "The account has %d webhooks, the most it may have. Remove one first.", most)
		}
		row := webhookRow{
			ID: w.ID, Account: w.Account.ID, Region: w.Account.Region, URL: w.URL, Secret: w.Secret,
			Types: document[[]drs.EventType]{w.Types}, Created: stampOf(w.Created),
		}
		if _, err := tx.NewInsert().Model(&row).Exec(ctx); err != nil {
			return fmt.Errorf("keep webhook: %w", err)
		}
		return nil
	})
}

// Webhooks lists the webhooks of an account, oldest first.
func (d *DB) Webhooks(ctx context.Context, account drs.Account) ([]Webhook, error) {
	return webhooks(ctx, d.read, account)
}

func webhooks(ctx context.Context, db bun.IDB, account drs.Account) ([]Webhook, error) {
	var rows []webhookRow
	err := db.NewSelect().Model(&rows).Where("account = ? AND region = ?", account.ID, account.Region).Order("created", "id").Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("list webhooks: %w", err)
	}
	return convert(rows, webhookRow.resource), nil
}

// WebhookByID returns one webhook, or ErrAbsent.
func (d *DB) WebhookByID(ctx context.Context, id string) (Webhook, error) {
	var row webhookRow
	if err := d.read.NewSelect().Model(&row).Where("id = ?", id).Scan(ctx); err != nil {
		return Webhook{}, fmt.Errorf("look up webhook %s: %w", id, absent(err))
	}
	return row.resource(), nil
}

// RemoveWebhook forgets a webhook and what waits for it; ErrAbsent when the
// account has none of this ID.
func (d *DB) RemoveWebhook(ctx context.Context, account drs.Account, id string) error {
	result, err := d.write.NewDelete().Model((*webhookRow)(nil)).
		Where("id = ? AND account = ? AND region = ?", id, account.ID, account.Region).Exec(ctx)
	if err != nil {
		return fmt.Errorf("remove webhook %s: %w", id, err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return fmt.Errorf("remove webhook %s: %w", id, ErrAbsent)
	}
	return nil
}

// Delivery is an event on its way to a webhook.
type Delivery struct {
	Seq      int64
	Webhook  string
	Event    drs.Event
	Created  time.Time
	Attempts int // that failed
	Next     time.Time
	Dead     bool   // tried no more
	Error    string // of the latest attempt
}

type deliveryRow struct {
	bun.BaseModel `bun:"table:deliveries"`

	Seq      int64 `bun:",pk,autoincrement"`
	Webhook  string
	EventID  string
	Event    document[drs.Event]
	Created  stamp
	Attempts int
	Next     stamp
	Dead     bool
	Error    string
}

func (r deliveryRow) resource() Delivery {
	return Delivery{r.Seq, r.Webhook, r.Event.V, r.Created.Time(), r.Attempts, r.Next.Time(), r.Dead, r.Error}
}

// MaxDeliveries is how many events wait for one webhook, the dead included; of
// more, the oldest go.
const MaxDeliveries = 10_000

// Emit hands an event to all webhooks that want it, together with what else the
// transaction does: either both happen or none.
func (tx Tx) Emit(ctx context.Context, e drs.Event) error {
	all, err := webhooks(ctx, tx, drs.Account{ID: e.AccountID, Region: e.Region})
	if err != nil {
		return err
	}
	now := stampOf(time.Now())
	for _, w := range all {
		if !w.wants(e.Type) {
			continue
		}
		row := deliveryRow{Webhook: w.ID, EventID: e.ID, Event: document[drs.Event]{e}, Created: now, Next: now}
		if _, err := tx.NewInsert().Model(&row).Exec(ctx); err != nil {
			return fmt.Errorf("emit %s: %w", e.Type, err)
		}
		_, err := tx.NewRaw("DELETE FROM deliveries WHERE webhook = ? AND seq <= (SELECT seq FROM deliveries WHERE webhook = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)",
			w.ID, w.ID, MaxDeliveries).Exec(ctx)
		if err != nil {
			return fmt.Errorf("forget what waits too long for webhook %s: %w", w.ID, err)
		}
	}
	return nil
}

// emitPoint tells of a new recovery point. Points are taken every few seconds, so
// it looks first whether anybody wants to know.
func (tx Tx) emitPoint(ctx context.Context, p drs.RecoveryPoint) error {
	var row serverRow
	err := tx.NewSelect().Model(&row).Column("account", "region", "properties").Where("id = ?", p.SourceServer).
		Where(`EXISTS (SELECT 1 FROM webhooks AS w, json_each(w.types) AS t
			WHERE w.account = ?TableAlias.account AND w.region = ?TableAlias.region AND t.value = ?)`, string(drs.EventSnapshotTaken)).Scan(ctx)
	if errors.Is(absent(err), ErrAbsent) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("emit %s: %w", drs.EventSnapshotTaken, err)
	}
	return tx.Emit(ctx, drs.SnapshotTaken(drs.Account{ID: row.Account, Region: row.Region}, p, row.Properties.V.Disks))
}

// DueDeliveries returns at most so many deliveries whose time has come, those of
// each webhook oldest first. Of all webhooks alike: the long queue of one keeps no
// other waiting.
func (d *DB) DueDeliveries(ctx context.Context, now time.Time, most int) ([]Delivery, error) {
	var rows []deliveryRow
	err := d.read.NewRaw(`SELECT d.* FROM deliveries AS d JOIN (
			SELECT seq, ROW_NUMBER() OVER (PARTITION BY webhook ORDER BY next, seq) AS place FROM deliveries WHERE dead = FALSE AND next <= ?
		) AS due ON due.seq = d.seq ORDER BY due.place, d.next, d.seq LIMIT ?`, stampOf(now), most).Scan(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("list due deliveries: %w", err)
	}
	return convert(rows, deliveryRow.resource), nil
}

// Delivered forgets a delivery that arrived.
func (d *DB) Delivered(ctx context.Context, seq int64) error {
	if _, err := d.write.NewDelete().Model((*deliveryRow)(nil)).Where("seq = ?", seq).Exec(ctx); err != nil {
		return fmt.Errorf("forget delivery: %w", err)
	}
	return nil
}

// DeliveryFailed keeps the outcome of an attempt: when the next one is due, or
// that there is none.
func (d *DB) DeliveryFailed(ctx context.Context, v Delivery) error {
	_, err := d.write.NewUpdate().Model((*deliveryRow)(nil)).Where("seq = ?", v.Seq).
		Set("attempts = ?", v.Attempts).Set("next = ?", stampOf(v.Next)).Set("dead = ?", v.Dead).Set("error = ?", v.Error).Exec(ctx)
	if err != nil {
		return fmt.Errorf("keep failed delivery: %w", err)
	}
	return nil
}

// PostponeDeliveries keeps all that waits for a webhook from being tried before a
// moment, and gives up what was made at expired or before.
func (d *DB) PostponeDeliveries(ctx context.Context, webhook string, until, expired time.Time, reason string) error {
	_, err := d.write.NewUpdate().Model((*deliveryRow)(nil)).Where("webhook = ? AND dead = FALSE", webhook).
		Set("next = MAX(next, ?)", stampOf(until)).Set("dead = (created <= ?)", stampOf(expired)).
		Set("error = CASE WHEN error = '' AND created <= ? THEN ? ELSE error END", stampOf(expired), reason).Exec(ctx)
	if err != nil {
		return fmt.Errorf("postpone deliveries: %w", err)
	}
	return nil
}

// Deliveries lists what waits for a webhook, the dead included, oldest first.
func (d *DB) Deliveries(ctx context.Context, webhook string, most int) ([]Delivery, error) {
	var rows []deliveryRow
	if err := d.read.NewSelect().Model(&rows).Where("webhook = ?", webhook).Order("seq").Limit(int64(most)).Scan(ctx); err != nil {
		return nil, fmt.Errorf("list deliveries: %w", err)
	}
	return convert(rows, deliveryRow.resource), nil
}

// RetryDead makes the dead deliveries of a webhook due once more, and returns how
// many there were.
func (d *DB) RetryDead(ctx context.Context, webhook string, now time.Time) (int64, error) {
	result, err := d.write.NewUpdate().Model((*deliveryRow)(nil)).Where("webhook = ? AND dead = TRUE", webhook).
		Set("dead = FALSE").Set("attempts = 0").Set("next = ?", stampOf(now)).Set("created = ?", stampOf(now)).Exec(ctx)
	if err != nil {
		return 0, fmt.Errorf("retry deliveries: %w", err)
	}
	return result.RowsAffected()
}

// DropDead forgets dead deliveries made before a moment.
func (d *DB) DropDead(ctx context.Context, before time.Time) error {
	if _, err := d.write.NewDelete().Model((*deliveryRow)(nil)).Where("dead = TRUE AND created < ?", stampOf(before)).Exec(ctx); err != nil {
		return fmt.Errorf("forget dead deliveries: %w", err)
	}
	return nil
}

// DeliveryCounts tells how many deliveries wait and how many are dead.
func (d *DB) DeliveryCounts(ctx context.Context) (waiting, dead int, err error) {
	err = d.read.NewRaw("SELECT COALESCE(SUM(NOT dead), 0), COALESCE(SUM(dead), 0) FROM deliveries").Scan(ctx, &waiting, &dead)
	if err != nil {
		return 0, 0, fmt.Errorf("count deliveries: %w", err)
	}
	return waiting, dead, nil
}
