package db

import (
	"context"
	"fmt"
	"time"

	"lifeboat/internal/drs"
)

// Initialize marks the account as initialized; again changes nothing.
func (d *DB) Initialize(ctx context.Context, account drs.Account) error {
	_, err := d.write.NewRaw(
		"INSERT INTO accounts (id, region, initialized) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
		account.ID, account.Region, stampOf(time.Now())).Exec(ctx)
	if err != nil {
		return fmt.Errorf("initialize account %s: %w", account.ID, err)
	}
	return nil
}

// Initialized tells whether InitializeService was called.
func (d *DB) Initialized(ctx context.Context, account drs.Account) (bool, error) {
	var n int
	err := d.read.NewRaw("SELECT COUNT(*) FROM accounts WHERE id = ? AND region = ?", account.ID, account.Region).Scan(ctx, &n)
	if err != nil {
		return false, fmt.Errorf("look up account %s: %w", account.ID, err)
	}
	return n > 0, nil
}
