package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/vault"

	"lifeboat/internal/vault/blob/blobtest"
)

// site is a vault with its catalogue, and a source server with a point each five minutes
// of two days.
type site struct {
	running
	server drs.SourceServer
	points []drs.RecoveryPoint
	last   time.Time
	at     time.Time // that the clocks show
}

// Wall and Uptime implement vault.Clocks.
func (s *site) Wall() time.Time { return s.at }

func (s *site) Uptime() (string, time.Duration) { return "only", s.at.Sub(time.Unix(0, 0)) }

func newSite(t *testing.T) *site {
	t.Helper()
	ctx := t.Context()
	s := &site{running: running{Config: Config{Log: slog.New(slog.DiscardHandler)}, journal: time.Hour}}
	var err error
	check := func() {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s.db, err = db.Create(ctx, filepath.Join(t.TempDir(), "lifeboat.db"))
	check()
	t.Cleanup(func() { s.db.Close() })
	keys, err := vault.CreateKeyFile(filepath.Join(t.TempDir(), "key"))
	check()
	s.last = time.Now().UTC().Truncate(time.Second)
	s.at = s.last.Add(-48 * time.Hour)
	store := blobtest.NewMem()
	v, err := vault.Create(ctx, store, keys, vault.Options{})
	check()
	check()
	v.Close()
	s.vault, err = vault.Open(ctx, store, keys, vault.Options{Clocks: s, Retire: func(ctx context.Context, _ drs.SourceServerID, ids []drs.RecoverySnapshotID) ([]drs.RecoverySnapshotID, error) {
		return s.db.RetirePoints(ctx, ids)
	}})
	check()
	t.Cleanup(func() { s.vault.Close() })
	s.server, _, err = s.db.RegisterServer(ctx, db.Registration{Account: drs.Account{ID: "123456789012", Region: "r"}, HardwareID: "one"})
	check()
	err = s.vault.CreateServer(ctx, s.server.ID)
	check()
	w, err := s.vault.Writer(ctx, s.server.ID, vault.MainBranch)
	check()
	defer w.Close()
	const n = 2 * 24 * 12
	for i := range n {
		e, err := w.Begin(ctx, []vault.Volume{{ID: 1, Device: "/dev/vda", Size: 1 << 30}})
		if err == nil {
			err = e.Append(vault.Frame{Volume: 1, Extents: []vault.Extent{{Block: uint64(i), Count: 1}}, Codec: vault.CodecRaw, RawLen: vault.BlockSize,
				Payload: make([]byte, vault.BlockSize)})
		}
		at := s.last.Add(time.Duration(i-n+1) * 5 * time.Minute)
		s.at = at
		p := drs.RecoveryPoint{ID: drs.NewRecoverySnapshotID(), SourceServer: s.server.ID, Expected: at, Taken: at, Consistency: drs.CrashConsistent, Method: drs.QuietPass}
		if err == nil {
			_, err = e.Commit(ctx, &p)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.points, err = s.vault.Points(ctx, s.server.ID)
	check()
	err = s.db.ReplacePoints(ctx, s.server.ID, s.points)
	check()
	return s
}

// catalogued and kept are the points that the API lists and the vault holds.
func (s *site) catalogued(t *testing.T) map[drs.RecoverySnapshotID]bool {
	t.Helper()
	out := map[drs.RecoverySnapshotID]bool{}
	all, _, err := s.db.Points(t.Context(), s.server.ID, db.PointFilter{}, db.Page{Limit: 10000})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		out[p.ID] = true
	}
	return out
}

func (s *site) kept(t *testing.T) map[drs.RecoverySnapshotID]bool {
	t.Helper()
	out := map[drs.RecoverySnapshotID]bool{}
	all, err := s.vault.Points(t.Context(), s.server.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		out[p.ID] = true
	}
	return out
}

// upkeepAt is upkeep that has the vault to itself.
func (s *site) upkeepAt() *upkeep {
	s.ownership.Store(&vault.Ownership{})
	return newUpkeep(&s.running)
}

// What the policy does not keep vanishes from the API and the vault alike; what a machine
// runs on, or a job was asked to launch, stays in both.
func TestUpkeepFollowsThePolicy(t *testing.T) {
	s := newSite(t)
	used := s.points[7].ID // of no slot's first
	named := s.points[9].ID
	job := drs.Job{ID: drs.NewJobID(), Account: s.server.Account, Type: drs.JobLaunch, Initiated: drs.StartedDrill, Status: drs.JobPending,
		Created: s.last, Tags: drs.Tags{}, Servers: []drs.ParticipatingServer{{SourceServer: s.server.ID, Snapshot: named, Status: drs.LaunchPending}}}
	if err := s.db.InTx(t.Context(), func(ctx context.Context, tx db.Tx) error {
		if err := tx.InsertJob(ctx, job); err != nil {
			return err
		}
		return tx.InsertInstance(ctx, drs.RecoveryInstance{ID: "i-0123456789abcdef0", Account: s.server.Account, SourceServer: s.server.ID,
			Job: job.ID, State: drs.InstanceRunning, Point: used, Tags: drs.Tags{}})
	}); err != nil {
		t.Fatal(err)
	}
	u := s.upkeepAt()
	for range 5 { // a call does a bounded amount of work
		u.plan(s.server.ID, 0)
		u.round(t.Context())
	}
	listed, kept := s.catalogued(t), s.kept(t)
	if fmt.Sprint(listed) != fmt.Sprint(kept) {
		t.Errorf("the API lists %d points, the vault keeps %d", len(listed), len(kept))
	}
	// An hour of 12 and its begin, 24 hours, 2 days; some are the same.
	if n := len(kept); n < 12+22+1 || n > 12+26+3+2 {
		t.Errorf("%d points are kept of %d", n, len(s.points))
	}
	for what, id := range map[string]drs.RecoverySnapshotID{"a machine's": used, "a job's": named, "the newest": s.points[len(s.points)-1].ID} {
		if !kept[id] || !listed[id] {
			t.Errorf("%s point is gone: kept %v, listed %v", what, kept[id], listed[id])
		}
	}
	if _, err := s.vault.OpenPoint(t.Context(), s.server.ID, used); err != nil {
		t.Error(err)
	}
}

// A crash between catalogue and vault leaves points in the vault that the API does not
// list, never the other way round; the next start lists them again.
func TestUpkeepCutShortListsNothingThatIsGone(t *testing.T) {
	s := newSite(t)
	var ids []drs.RecoverySnapshotID
	for _, p := range s.points[:100] {
		ids = append(ids, p.ID)
	}
	if gone, err := s.db.RetirePoints(t.Context(), ids); err != nil || len(gone) != 100 {
		t.Fatal(len(gone), err)
	}
	kept := s.kept(t)
	for id := range s.catalogued(t) {
		if !kept[id] {
			t.Errorf("%s is listed, and not in the vault", id)
		}
	}
	if err := s.catalogPoints(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(s.catalogued(t)); n != len(s.points) {
		t.Errorf("%d points after the next start, want %d", n, len(s.points))
	}
}

// By rule one point an hour is locked, and stays as long.
func TestUpkeepLocksByRule(t *testing.T) {
	s := newSite(t)
	if err := s.db.ChangeTags(t.Context(), drs.Resource{Account: s.server.Account, Type: drs.TypeSourceServer, ID: string(s.server.ID)},
		func(tags drs.Tags) error { tags[lockTag] = "3"; return nil }); err != nil {
		t.Fatal(err)
	}
	u := s.upkeepAt()
	for range 3 {
		u.plan(s.server.ID, 0)
		u.round(t.Context())
	}
	points, err := s.vault.ListPoints(t.Context(), s.server.ID)
	if err != nil {
		t.Fatal(err)
	}
	locked := 0
	for _, p := range points {
		if p.LockedUntil.IsZero() {
			continue
		}
		locked++
		if days := p.LockedUntil.Sub(s.last).Hours() / 24; p.ID != s.points[len(s.points)-1].ID || days < 2.9 || days > 3.1 {
			t.Errorf("%s is locked for %.1f days", p.ID, days)
		}
	}
	if locked != 1 {
		t.Errorf("%d points are locked, want the newest", locked)
	}
	if err := (protectedVault{s.vault, newRecorder(s.db, s.vault, t.TempDir(), slog.New(slog.DiscardHandler))}).DropServer(t.Context(), s.server.ID); !errors.Is(err, vault.ErrLocked) {
		t.Errorf("drop: %v", err)
	}
}

// A point an hour is locked by rule also where the points' own times stand still.
func TestUpkeepLocksWhileTimeStandsStill(t *testing.T) {
	s := newSite(t)
	s.server.Tags = drs.Tags{lockTag: "3"}
	u := s.upkeepAt()
	u.now = s.Wall
	w, err := s.vault.Writer(t.Context(), s.server.ID, vault.MainBranch)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for range 5 {
		if err := u.lockByRule(t.Context(), s.server); err != nil {
			t.Fatal(err)
		}
		e, err := w.Begin(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		p := drs.RecoveryPoint{ID: drs.NewRecoverySnapshotID(), Expected: s.last, Taken: s.last, Consistency: drs.CrashConsistent, Method: drs.QuietPass}
		if _, err := e.Commit(t.Context(), &p); err != nil {
			t.Fatal(err)
		}
		s.at = s.at.Add(40 * time.Minute)
	}
	points, err := s.vault.ListPoints(t.Context(), s.server.ID)
	if err != nil {
		t.Fatal(err)
	}
	locked := 0
	for _, p := range points {
		if !p.LockedUntil.IsZero() {
			locked++
		}
	}
	if locked != 3 { // at 0, 80 and 160 minutes
		t.Errorf("%d points are locked, want 3", locked)
	}
}
