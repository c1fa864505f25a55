package db

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

type tokenRow struct {
	bun.BaseModel `bun:"table:client_tokens"`

	Account   string `bun:",pk"`
	Region    string `bun:",pk"`
	Operation string `bun:",pk"`
	Token     string `bun:",pk"`
	Digest    string
	Resource  string
	Created   stamp
}

// ClientToken is the idempotency token of a request, and what it made.
type ClientToken struct {
	Account   drs.Account
	Operation string
	Token     string
	Digest    string // of the request's parameters
	Resource  string // ID of what was made
	Created   time.Time
}

// TokenLife is how long a client token is remembered.
const TokenLife = 24 * time.Hour

// ClientToken returns what is remembered of a token, or ErrAbsent.
func (tx Tx) ClientToken(ctx context.Context, account drs.Account, operation, token string) (ClientToken, error) {
	var r tokenRow
	err := tx.NewSelect().Model(&r).Where("account = ? AND region = ? AND operation = ? AND token = ?",
		account.ID, account.Region, operation, token).Scan(ctx)
	if err != nil {
		return ClientToken{}, fmt.Errorf("look up client token: %w", absent(err))
	}
	return ClientToken{account, r.Operation, r.Token, r.Digest, r.Resource, r.Created.Time()}, nil
}

// RememberToken keeps what a token's request made, in place of what was kept of
// it before, and forgets tokens that are older than TokenLife.
func (tx Tx) RememberToken(ctx context.Context, t ClientToken) error {
	_, err := tx.NewDelete().Model((*tokenRow)(nil)).Where("created < ?", stampOf(t.Created.Add(-TokenLife))).Exec(ctx)
	if err != nil {
		return fmt.Errorf("forget old client tokens: %w", err)
	}
	row := tokenRow{
		Account: t.Account.ID, Region: t.Account.Region, Operation: t.Operation, Token: t.Token,
		Digest: t.Digest, Resource: t.Resource, Created: stampOf(t.Created),
	}
	_, err = tx.NewInsert().Model(&row).On("CONFLICT DO UPDATE").
		Set("digest = EXCLUDED.digest").Set("resource = EXCLUDED.resource").Set("created = EXCLUDED.created").Exec(ctx)
	if err != nil {
		return fmt.Errorf("remember client token: %w", err)
	}
	return nil
}
