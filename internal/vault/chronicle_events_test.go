package vault_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	host "lifeboat/internal/server"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob/blobtest"
)

// open starts the process that has the vault.
func (c *chronicle) open() {
	c.t.Helper()
	c.store = blobtest.NewFaults(c.bare, 0, blobtest.Refused)
	c.v = must(vault.Open(ctxOf, c.store, c.keys, c.opt))(c.t)
	for _, s := range c.sources {
		for _, line := range s.lines {
			line.w = nil
		}
	}
}

// shut ends it: in order, or in the midst of whatever it does.
func (c *chronicle) shut(killed bool) {
	if killed {
		c.store.Kill()
	} else if c.rnd.IntN(2) == 0 {
		c.v.WaitTasks()
	}
	c.v.Close()
}

func (c *chronicle) restart(killed bool) {
	c.t.Helper()
	c.shut(killed)
	c.open()
	c.done["restarts"]++
}

// retire is what the vault asks before it drops points by policy.
func (c *chronicle) retire(id drs.SourceServerID, points []drs.RecoverySnapshotID) error {
	i := slices.IndexFunc(c.sources, func(s *source) bool { return s.id == id })
	s := c.sources[i]
	for _, id := range points {
		m := s.points[id]
		if m == nil {
			return fmt.Errorf("retention drops %s, which is not there", id)
		}
		if err := c.held(s, id); err != nil {
			return fmt.Errorf("retention drops %s: %w", id, err)
		}
		if age := s.lines[m.line].newer.Sub(m.taken); age < s.policy.Journal || age == 0 {
			return fmt.Errorf("retention drops %s, which is %s older than the newest point", id, age)
		}
		s.leaving[id] = true
	}
	return nil
}

// held tells why a point cannot be dropped; nil: it can.
func (c *chronicle) held(s *source, id drs.RecoverySnapshotID) error {
	for _, line := range s.lines {
		if line.base == id {
			return errHeld
		}
	}
	if s.points[id].locked.After(c.at) {
		return vault.ErrLocked
	}
	return nil
}

// maintain has retention, folding and collection at work, and finds out what is left.
func (c *chronicle) maintain(s *source) {
	c.t.Helper()
	s.leaving = map[drs.RecoverySnapshotID]bool{}
	for range 1 + c.rnd.IntN(5) {
		c.attempt("maintain", nil, func() error {
			_, err := c.v.Maintain(ctxOf, s.id, s.policy, c.at)
			return err
		})
	}
	c.settle(s)
}

// settle forgets the points that are gone. None is unless it was allowed to.
func (c *chronicle) settle(s *source) {
	c.t.Helper()
	listed := map[drs.RecoverySnapshotID]bool{}
	for _, p := range must(c.v.Points(ctxOf, s.id))(c.t) {
		if listed[p.ID] = true; s.points[p.ID] == nil {
			c.t.Fatalf("event %d: %s is listed, and should not be there", c.event, p.ID)
		}
	}
	for id := range s.points {
		switch {
		case listed[id]:
		case s.leaving[id]:
			delete(s.points, id)
			c.done["points dropped"]++
		default:
			c.t.Fatalf("event %d: %s is lost", c.event, id)
		}
	}
	s.leaving = nil
}

func (c *chronicle) collect(s *source) {
	c.attempt("collect", nil, func() error {
		_, err := c.v.Collect(ctxOf, s.id)
		return err
	})
}

func (c *chronicle) fork(s *source) {
	id := c.anyPoint(s)
	if id == "" || len(s.lines) > 5 {
		return
	}
	name := fmt.Sprintf("i-%017x", c.next())
	c.attempt("fork", vault.ErrExists, func() error { return c.v.Fork(ctxOf, s.id, id, name) })
	s.lines[name] = &timeline{disks: s.points[id].disks.clone(), base: id}
}

func (c *chronicle) dropBranch(s *source) {
	name := c.anyLine(s)
	if name == vault.MainBranch {
		return
	}
	own := map[drs.RecoverySnapshotID]bool{}
	var held error
	for id, m := range s.points {
		if m.line == name {
			own[id] = true
			held = errors.Join(held, c.held(s, id))
		}
	}
	if held != nil {
		if c.v.DropBranch(ctxOf, s.id, name) == nil {
			c.t.Fatalf("event %d: %s was dropped: %v", c.event, name, held)
		}
		return
	}
	c.attempt("drop branch", vault.ErrAbsent, func() error { return c.v.DropBranch(ctxOf, s.id, name) })
	delete(s.lines, name)
	for id := range own {
		delete(s.points, id)
	}
}

func (c *chronicle) dropPoint(s *source) {
	id := c.anyPoint(s)
	if id == "" {
		return
	}
	if held := c.held(s, id); held != nil {
		if err := c.v.DropPoints(ctxOf, s.id, id); err == nil || errors.Is(held, vault.ErrLocked) && !errors.Is(err, vault.ErrLocked) {
			c.t.Fatalf("event %d: drop of %s: got %v, want %v", c.event, id, err, held)
		}
		return
	}
	c.attempt("drop point", vault.ErrAbsent, func() error { return c.v.DropPoints(ctxOf, s.id, id) })
	delete(s.points, id)
}

func (c *chronicle) lock(s *source) {
	id := c.anyPoint(s)
	if id == "" {
		return
	}
	m := s.points[id]
	until := c.at.Add(time.Duration(1+c.rnd.IntN(48)) * time.Hour)
	if until.Before(m.locked) {
		if err := c.v.LockPoint(ctxOf, s.id, id, until); !errors.Is(err, vault.ErrLocked) {
			c.t.Fatalf("event %d: a lock is shortened: %v", c.event, err)
		}
		return
	}
	c.attempt("lock", nil, func() error { return c.v.LockPoint(ctxOf, s.id, id, until) })
	m.locked = until
}

// retireServer deletes a server with all it has, and takes up a new one.
func (c *chronicle) retireServer() {
	i := c.rnd.IntN(len(c.sources))
	s := c.sources[i]
	for _, m := range s.points {
		if m.locked.After(c.at) {
			if err := c.v.DropServer(ctxOf, s.id); !errors.Is(err, vault.ErrLocked) {
				c.t.Fatalf("event %d: a server with a locked point is dropped: %v", c.event, err)
			}
			return
		}
	}
	c.attempt("drop server", vault.ErrAbsent, func() error { return c.v.DropServer(ctxOf, s.id) })
	c.sources = slices.Delete(c.sources, i, i+1)
	c.addServer()
}

// lose takes away derived data, which may vanish at any time.
func (c *chronicle) lose() {
	for _, name := range c.bare.Names() {
		if derived(name) && c.rnd.IntN(3) == 0 {
			c.bare.Replace(name, nil)
		}
	}
	c.done["derived data lost"]++
}

// changeKey gives the vault another master key.
func (c *chronicle) changeKey() {
	c.shut(false)
	file := filepath.Join(c.t.TempDir(), "master.key")
	next := must(vault.CreateKeyFile(file))(c.t)
	must(vault.Rewrap(ctxOf, c.bare, c.keys, next))(c.t)
	must(vault.Retire(ctxOf, c.bare, next))(c.t)
	c.keys, c.keyFile, c.dataDir = next, file, ""
	c.open()
	c.done["master keys"]++
}

// verify wants every object sound, and nothing there that nobody knows.
func (c *chronicle) verify() {
	c.t.Helper()
	report := must(vault.Verify(ctxOf, c.bare, c.keys, c.opt, vault.VerifyOptions{}))(c.t)
	if !report.Sound() || report.UnknownCount > 0 {
		c.t.Fatalf("event %d: verify: %+v", c.event, report)
	}
	c.done["verify"]++
}

// rebuild makes a data directory from the objects alone, whose database must list
// exactly the points that are kept.
func (c *chronicle) rebuild() {
	c.t.Helper()
	c.shut(c.rnd.IntN(2) == 0)
	dir := filepath.Join(c.t.TempDir(), "data")
	work := host.Rebuild{Data: dir, MasterKey: c.keyFile, Vault: c.location, Account: "123456789012", Region: "us-east-1"}
	rebuilt := must(work.Run(ctxOf))(c.t)
	if len(rebuilt.Servers) != len(c.sources) {
		c.t.Fatalf("event %d: %d servers were rebuilt of %d: %+v", c.event, len(rebuilt.Servers), len(c.sources), rebuilt)
	}
	database := must(db.OpenReader(filepath.Join(dir, "lifeboat.db")))(c.t)
	defer database.Close()
	for _, s := range c.sources {
		points, _, err := database.Points(ctxOf, s.id, db.PointFilter{IncludeFuzzy: true}, db.Page{Limit: 1 << 20})
		if err != nil || len(points) != len(s.points) {
			c.t.Fatalf("event %d: of %s %d points were rebuilt of %d: %v", c.event, s.id, len(points), len(s.points), err)
		}
		for _, p := range points {
			if m := s.points[p.ID]; m == nil || !p.Taken.Equal(m.taken) {
				c.t.Fatalf("event %d: %+v was rebuilt, want %+v", c.event, p, m)
			}
		}
	}
	c.dataDir = dir
	c.open()
	c.done["rebuild"]++
}
