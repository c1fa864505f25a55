package db

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/uptrace/bun"
)

// Identity is an account, or something of one that says who may do what. What its
// body holds is the business of package directory.
type Identity struct {
	bun.BaseModel `bun:"table:identities"`

	Kind    string          `bun:",pk"`
	Account string          `bun:",pk"` // 12 digits
	Name    string          `bun:",pk"`
	Body    json.RawMessage `bun:"type:text"`
}

// Identities returns all of them and the generation that they are of.
func (d *DB) Identities(ctx context.Context) (all []Identity, generation int64, err error) {
	// One transaction, so that the two belong together.
	err = d.read.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		all, generation, err = identities(ctx, tx)
		return err
	})
	return all, generation, err
}

// IdentityGeneration tells whether identities have changed since they were read.
func (d *DB) IdentityGeneration(ctx context.Context) (n int64, err error) {
	if err := d.read.NewRaw("SELECT n FROM identity_generation").Scan(ctx, &n); err != nil {
		return 0, fmt.Errorf("read generation of identities: %w", err)
	}
	return n, nil
}

// ChangeIdentities gives f all identities and carries out what it returns, in one
// transaction; an error of f changes nothing.
func (d *DB) ChangeIdentities(ctx context.Context, f func([]Identity) (put, remove []Identity, err error)) error {
	return d.InTx(ctx, func(ctx context.Context, tx Tx) error {
		all, _, err := identities(ctx, tx)
		if err != nil {
			return err
		}
		put, remove, err := f(all)
		if err != nil {
			return err
		}
		for _, i := range remove {
			if _, err := tx.NewDelete().Model(&i).WherePK().Exec(ctx); err != nil {
				return fmt.Errorf("remove %s %s: %w", i.Kind, i.Name, err)
			}
		}
		for _, i := range put {
			_, err := tx.NewRaw("INSERT INTO identities (kind, account, name, body) VALUES (?, ?, ?, ?) "+
				"ON CONFLICT (kind, account, name) DO UPDATE SET body = excluded.body", i.Kind, i.Account, i.Name, string(i.Body)).Exec(ctx)
			if err != nil {
				return fmt.Errorf("keep %s %s: %w", i.Kind, i.Name, err)
			}
		}
		_, err = tx.NewRaw("UPDATE identity_generation SET n = n + 1").Exec(ctx)
		return err
	})
}

func identities(ctx context.Context, db bun.IDB) (all []Identity, generation int64, err error) {
	if err := db.NewRaw("SELECT n FROM identity_generation").Scan(ctx, &generation); err != nil {
		return nil, 0, fmt.Errorf("read generation of identities: %w", err)
	}
	if err := db.NewSelect().Model(&all).Order("kind", "account", "name").Scan(ctx); err != nil {
		return nil, 0, fmt.Errorf("read identities: %w", err)
	}
	return all, generation, nil
}
