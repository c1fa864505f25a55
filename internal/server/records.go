package server

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/durable"
	"lifeboat/internal/vault"
)

// recordEvery is how long what the tables know of a server may be known to them alone.
const recordEvery = 10 * time.Second

// recorder keeps in the vault what the tables know of each source server, so that a
// lost database can be made again from the vault. Safe for concurrent use.
type recorder struct {
	db        *db.DB
	vault     *vault.Vault
	instances string                      // directory with one for each recovery instance
	mayPut    func(context.Context) error // asked before each put; nil: any may be
	log       *slog.Logger

	machines map[drs.RecoveryInstanceID][32]byte // of what is known to be kept beside their disks; run's own
	shipped  map[drs.RecoveryInstanceID]shipped  // what the vault knows of them; run's own

	mu   sync.Mutex                      // held while anything is put, so that no old record follows a new one
	kept map[drs.SourceServerID][32]byte // of what is known to be in the vault; guarded by mu
	as   map[drs.SourceServerID]int64    // the version of its row that kept is of at least; guarded by mu
	told map[drs.SourceServerID]bool     // that it cannot be kept; guarded by mu
	gone map[drs.SourceServerID]bool     // its place in the vault is being deleted; guarded by mu
}

// shipped is a recovery instance as it is known to be in the record of a server.
type shipped struct {
	server drs.SourceServerID
	sum    [32]byte
}

func newRecorder(d *db.DB, v *vault.Vault, instances string, log *slog.Logger) *recorder {
	return &recorder{
		db: d, vault: v, instances: instances, log: log, machines: map[drs.RecoveryInstanceID][32]byte{}, shipped: map[drs.RecoveryInstanceID]shipped{},
		kept: map[drs.SourceServerID][32]byte{}, as: map[drs.SourceServerID]int64{}, told: map[drs.SourceServerID]bool{}, gone: map[drs.SourceServerID]bool{},
	}
}

// run keeps the records until ctx ends, and once more then.
func (r *recorder) run(ctx context.Context) error {
	tick := time.NewTicker(recordEvery)
	defer tick.Stop()
	for {
		r.keepAll(ctx)
		r.keepInstances(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			r.keepAll(last)
			r.keepInstances(last)
			return nil
		}
	}
}

// keepAll puts what has changed. What fails is tried again the next time.
func (r *recorder) keepAll(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	servers, err := r.db.ServerMarks(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.log.Warn("records of servers", "err", err)
		}
		return
	}
	for _, server := range servers {
		if as, known := r.as[server.ID]; known && as == server.Version {
			continue
		}
		record, err := r.db.ServerRecord(ctx, server.ID)
		if err == nil {
			err = r.keepLocked(ctx, record)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			r.as[server.ID] = server.Version
			delete(r.told, server.ID)
		case errors.Is(err, vault.ErrAbsent), errors.Is(err, db.ErrAbsent): // its place in the vault is being made, or it is gone
		case !r.told[server.ID]:
			r.told[server.ID] = true
			r.log.Warn("the record of a server cannot be kept in the vault; trying again", "server", server.ID, "err", err)
		}
	}
}

// without puts no record of the server while f deletes its place in the vault, which
// is empty after that.
func (r *recorder) without(id drs.SourceServerID, f func() error) error {
	set := func(gone bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.kept, id)
		delete(r.as, id)
		if delete(r.gone, id); gone {
			r.gone[id] = true
		}
	}
	set(true)
	defer set(false)
	return f()
}

// keep puts the record of one server now.
func (r *recorder) keep(ctx context.Context, id drs.SourceServerID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	record, err := r.db.ServerRecord(ctx, id)
	if err != nil {
		return err
	}
	return r.keepLocked(ctx, record)
}

func (r *recorder) keepLocked(ctx context.Context, record db.ServerRecord) error {
	text, err := json.Marshal(record)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	if r.kept[record.ID] == sum || r.gone[record.ID] {
		return nil
	}
	if r.mayPut != nil {
		if err := r.mayPut(ctx); err != nil {
			return err
		}
	}
	if err := r.vault.PutRecord(ctx, record.ID, text, r.db); err != nil {
		return err
	}
	r.kept[record.ID] = sum
	return nil
}

// instanceFile is kept in the directory of each instance.
const instanceFile = "instance.json"

// keepInstances keeps what the tables know of each recovery instance beside its disks, and of
// those whose writes are shipped, in the vault.
func (r *recorder) keepInstances(ctx context.Context) {
	records, err := r.db.InstanceRecords(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.log.Warn("records of recovery instances", "err", err)
		}
		return
	}
	r.keepShipped(ctx, records)
	for _, record := range records {
		text, err := json.MarshalIndent(record, "", "  ")
		if err == nil && r.machines[record.ID] == sha256.Sum256(text) {
			continue
		}
		dir := filepath.Join(r.instances, string(record.ID))
		if _, absent := os.Stat(dir); absent != nil {
			continue // it has no disks yet, or none any more
		}
		if err == nil {
			err = durable.Files{}.WriteFile("instance record", filepath.Join(dir, instanceFile), text, 0o600)
		}
		if err != nil {
			r.log.Warn("the record of a recovery instance cannot be kept; trying again", "instance", record.ID, "err", err)
			continue
		}
		r.machines[record.ID] = sha256.Sum256(text)
	}
}

// keepShipped puts the record of each server of which a recovery has come, changed or gone.
func (r *recorder) keepShipped(ctx context.Context, records []db.InstanceRecord) {
	now := map[drs.RecoveryInstanceID]shipped{}
	for _, record := range records {
		if record.Drill || record.State == drs.InstancePending {
			continue
		}
		text, err := json.Marshal(record)
		if err != nil {
			r.log.Warn("the record of a recovery instance cannot be kept in the vault", "instance", record.ID, "err", err)
			continue
		}
		now[record.ID] = shipped{record.VaultServer, sha256.Sum256(text)}
	}
	changed := map[drs.SourceServerID]error{}
	for id, is := range now {
		if r.shipped[id] != is {
			changed[is.server] = nil
		}
	}
	for id, was := range r.shipped {
		if _, there := now[id]; !there {
			changed[was.server] = nil
		}
	}
	for server := range changed {
		if changed[server] = r.keep(ctx, server); errors.Is(changed[server], db.ErrAbsent) || errors.Is(changed[server], vault.ErrAbsent) {
			changed[server] = nil // it is gone, with all it had
		} else if changed[server] != nil && ctx.Err() == nil {
			r.log.Warn("the record of a server's recovery instances cannot be kept in the vault; trying again", "server", server, "err", changed[server])
		}
	}
	for id, is := range now { // what was not put is tried again
		if changed[is.server] != nil {
			delete(now, id)
			if was, there := r.shipped[id]; there {
				now[id] = was
			}
		}
	}
	for id, was := range r.shipped {
		if _, there := now[id]; !there && changed[was.server] != nil {
			now[id] = was
		}
	}
	r.shipped = now
}
