package agent

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"lifeboat/internal/source/blocktrack"
	"lifeboat/internal/vault"
)

// tableSuffix ends the names of the files of tables in the state directory.
const tableSuffix = ".digests"

// origin says what a disk's table is about.
func (s *session) origin(d *disk) blocktrack.Origin {
	return blocktrack.Origin{
		Server: string(s.server), Disk: cmp.Or(d.identity, d.name), Size: d.size, Seed: s.welcome.DigestSeed,
	}
}

func (s *session) tablePath(o blocktrack.Origin) string {
	sum := sha256.Sum256([]byte(o.Disk))
	return filepath.Join(s.a.cfg.State, hex.EncodeToString(sum[:8])+tableSuffix)
}

// reopenTables takes up the tables that the run of the agent before this one sealed,
// if it sealed all of them at this head. It tells whether it did.
func (s *session) reopenTables(now head) bool {
	if s.a.tablesSeen {
		return false // what this run left behind is no better than what it knows
	}
	s.a.tablesSeen = true
	var tables []*blocktrack.Table
	for _, d := range s.a.disks.all {
		o := s.origin(d)
		table, at, err := blocktrack.ReopenTable(s.tablePath(o), o, s.digest())
		if err == nil {
			tables = append(tables, table)
			if at == (blocktrack.Head{Number: now.number, Hash: now.hash}) {
				continue
			}
			err = errors.New("the vault has changed since")
		}
		if !errors.Is(err, fs.ErrNotExist) {
			s.a.log.Info("asking the vault what it holds: the table of an earlier run is of no use", "disk", d.name, "why", err)
		}
		for _, t := range tables {
			_ = t.Close() // it is made anew
		}
		return false
	}
	for i, d := range s.a.disks.all {
		d.setTable(tables[i])
	}
	return true
}

// createTables makes new tables, of zeros, and removes all others.
func (s *session) createTables() error {
	if old, err := filepath.Glob(filepath.Join(s.a.cfg.State, "*"+tableSuffix)); err == nil {
		for _, path := range old {
			_ = os.Remove(path) // one that stays costs room and nothing else
		}
	}
	for _, d := range s.a.disks.all {
		if err := s.createTable(d); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) createTable(d *disk) error {
	o := s.origin(d)
	table, err := blocktrack.CreateTable(s.tablePath(o), o, s.digest())
	if err != nil {
		return err
	}
	d.setTable(table)
	return nil
}

func (s *session) digest() blocktrack.DigestFunc {
	seed := s.welcome.DigestSeed
	return func(chunk []byte) blocktrack.Digest { return vault.ChunkDigest(seed, chunk) }
}

// setTable puts a table in place of the one there was.
func (d *disk) setTable(t *blocktrack.Table) {
	if d.table != nil {
		_ = d.table.Close() // its file is the new one's, or gone
	}
	d.table = t
}

// sealTables makes the tables last, for the next run of the agent; after a session.
func (a *agent) sealTables() {
	for _, d := range a.disks.all {
		if d.table == nil {
			continue
		}
		if a.loaded {
			h := a.ledger.at()
			if err := d.table.Seal(blocktrack.Head{Number: h.number, Hash: h.hash}); err != nil {
				a.log.Warn("the next start compares the disks with the vault", "disk", d.name, "err", err)
			}
		}
		_ = d.table.Close() // sealed or given up
	}
}

// holdTables keeps the tables off the disks while filesystems are frozen.
func (a *agent) holdTables(hold bool) {
	for _, d := range a.disks.all {
		d.table.Hold(hold)
	}
}
