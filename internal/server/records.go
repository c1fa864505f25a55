package server

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
)

// recordEvery is how long what the tables know of a server may be known to them alone.
const recordEvery = 10 * time.Second

// recorder keeps in the vault what the tables know of each source server, so that a
// lost database can be made again from the vault.
type recorder struct {
	db    *db.DB
	vault *vault.Vault
	log   *slog.Logger
	kept  map[drs.SourceServerID][32]byte // of what is known to be in the vault
	told  map[drs.SourceServerID]bool     // that it cannot be kept
}

func newRecorder(d *db.DB, v *vault.Vault, log *slog.Logger) *recorder {
	return &recorder{d, v, log, map[drs.SourceServerID][32]byte{}, map[drs.SourceServerID]bool{}}
}

// run keeps the records until ctx ends, and once more then.
func (r *recorder) run(ctx context.Context) error {
	tick := time.NewTicker(recordEvery)
	defer tick.Stop()
	for {
		r.keep(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			r.keep(last)
			return nil
		}
	}
}

// keep puts what has changed. What fails is tried again the next time.
func (r *recorder) keep(ctx context.Context) {
	err := r.db.ServerRecords(ctx, func(record db.ServerRecord) error {
		text, err := json.Marshal(record)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(text)
		if r.kept[record.ID] == sum {
			return nil
		}
		err = r.vault.PutRecord(ctx, record.ID, text)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, vault.ErrAbsent): // its place in the vault is being made, or is gone
		case err != nil:
			if !r.told[record.ID] {
				r.log.Warn("the record of a server cannot be kept in the vault; trying again", "server", record.ID, "err", err)
			}
			r.told[record.ID] = true
		default:
			r.kept[record.ID] = sum
			delete(r.told, record.ID)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		r.log.Warn("records of servers", "err", err)
	}
}
