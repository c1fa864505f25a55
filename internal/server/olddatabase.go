package server

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
)

// lookAtOnce bounds how many records are looked at side by side: a bucket may be far.
const lookAtOnce = 16

// refuseOldDatabase refuses to work with tables that were put back from an old copy:
// they would drop points by rules that were changed since, turn away agents whose
// certificates were renewed since, and replace what the vault keeps. A vault that does not
// answer must not keep machines from being recovered; then each record is looked at again
// before it is replaced.
func (s *running) refuseOldDatabase(ctx context.Context) error {
	newer, err := newerRecords(ctx, s.vault, s.db)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.Log.Warn("cannot look whether the vault's records are newer than the database", "err", err)
	}
	if len(newer) == 0 {
		return nil
	}
	return fmt.Errorf("the database %s is older than the vault, as if it was put back from a copy: %s changed since. "+
		"To go on with what the vault keeps (without the jobs of the copy): `lifeboat vault rebuild --replace-database --data %s`. "+
		"To go back to the state of the copy on purpose: `lifeboat vault keep-database --data %[3]s`, then start again",
		s.dir.databasePath(), described(newer), s.dir.Path)
}

func described(newer []drs.SourceServerID) string {
	what, servers := "", len(newer)
	if newer[0] == "" {
		what, servers = "the configuration (templates, plans, users, certificates)", servers-1
	}
	switch {
	case servers == 0:
		return what
	case what != "":
		what += " and "
	}
	if servers == 1 {
		return what + "source server " + string(newer[len(newer)-1])
	}
	return what + fmt.Sprintf("%d source servers", servers)
}

// newerRecords returns of which servers the vault holds later records than the tables
// know of; "" first, when the installation's is.
func newerRecords(ctx context.Context, v *vault.Vault, d *db.DB) (newer []drs.SourceServerID, err error) {
	servers, err := d.ServerMarks(ctx)
	if err != nil {
		return nil, err
	}
	all := []drs.SourceServerID{""}
	for _, s := range servers {
		all = append(all, s.ID)
	}
	var mu sync.Mutex
	var group errgroup.Group // a server that cannot be looked at hides no other
	group.SetLimit(lookAtOnce)
	passed := map[drs.SourceServerID]bool{}
	for _, id := range all {
		group.Go(func() error {
			looked := v.CheckRecord(ctx, id, d)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(looked, vault.ErrNewerRecord):
				passed[id] = true
			case errors.Is(looked, vault.ErrAbsent): // its place in the vault is being made, or it is gone
			default:
				err = errors.Join(err, looked)
			}
			return nil
		})
	}
	_ = group.Wait() // what failed is joined in err
	for _, id := range all {
		if passed[id] {
			newer = append(newer, id)
		}
	}
	return newer, err
}

// KeepDatabase makes the database of a data directory the truth although the vault keeps
// later records: the next start of the server replaces those. The server must be
// stopped. It returns of which source servers, "" for the installation.
func KeepDatabase(ctx context.Context, data string) (replaced []drs.SourceServerID, err error) {
	d, err := lockDataDir(data)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	database, err := db.Open(ctx, d.databasePath())
	if err != nil {
		return nil, fmt.Errorf("%w. Make it again from the vault with `lifeboat vault rebuild --data %s`", err, d.Path)
	}
	defer func() { err = errors.Join(err, database.Close()) }()
	store, err := d.openStore(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := d.checkOwner(ctx, store); err != nil {
		return nil, err
	}
	v, err := vault.Open(ctx, store, d.keys, vault.Options{ReadOnly: true})
	if err != nil {
		return nil, d.explainKey(ctx, store, err)
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if replaced, err = newerRecords(ctx, v, database); err != nil {
		return nil, err
	}
	for _, id := range replaced {
		if err := v.MarkRecord(ctx, id, database); err != nil {
			return nil, err
		}
	}
	return replaced, nil
}
