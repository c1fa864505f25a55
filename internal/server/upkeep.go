package server

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/retention"
)

const (
	// upkeepEvery is how often a server that commits is tended, and upkeepAll how often
	// each is looked at, whether it commits or not.
	upkeepEvery, upkeepAll = time.Minute, 10 * time.Minute
	// upkeepTick is how often it is looked who is due.
	upkeepTick = 5 * time.Second
	// upkeepShare is how long to rest after work, in terms of how long that took: with
	// 1, upkeep takes at most half of what the store can do.
	upkeepShare = 1
	// upkeepRetry is how long a server that could not be tended is left alone.
	upkeepRetry = 10 * time.Minute
	// clockEvery is how often the vault's time is noted, for the case that the machine is
	// restarted, and clockSkew how far the machine's may be from it without a word.
	clockEvery, clockSkew = 10 * time.Minute, 10 * time.Minute
	// lockSpacing is how far apart the points lie that are locked by rule.
	lockSpacing = time.Hour
)

// lockTag on a source server says for how many days its points are locked; it
// overrides what the server was started with.
const lockTag = "lifeboat:lock-days"

// upkeep keeps the histories of all servers small, one at a time: it drops, folds and
// frees what each one's rules do not keep.
type upkeep struct {
	db       *db.DB
	vault    *vault.Vault
	log      *slog.Logger
	journal  time.Duration
	lockDays int
	owned    func() bool
	now      func() time.Time

	mu    sync.Mutex
	due   map[drs.SourceServerID]time.Time // guarded by mu
	swept time.Time                        // when all were last made due; guarded by mu
	skew  time.Duration                    // that was told last; of run alone
	sums  upkeepSums                       // guarded by mu
}

// upkeepSums are what was done since the start.
type upkeepSums struct {
	dropped, failed int
	freedBytes      int64
}

func newUpkeep(s *running) *upkeep {
	return &upkeep{
		db: s.db, vault: s.vault, log: s.Log.With("wing", "vault"), journal: s.journal, lockDays: s.LockDays,
		owned: func() bool { return s.ownership.Load() != nil }, now: time.Now,
		due: map[drs.SourceServerID]time.Time{},
	}
}

// committed tells that a server has a new point.
func (u *upkeep) committed(id drs.SourceServerID) { u.plan(id, upkeepEvery) }

// plan makes a server due after a while, unless it is sooner.
func (u *upkeep) plan(id drs.SourceServerID, after time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	at := u.now().Add(after)
	if before, ok := u.due[id]; !ok || at.Before(before) {
		u.due[id] = at
	}
}

// run tends servers until ctx ends. What a call has begun is cut short then, and
// the next process goes on.
func (u *upkeep) run(ctx context.Context) error {
	tick := time.NewTicker(upkeepTick)
	defer tick.Stop()
	clock := time.NewTicker(clockEvery)
	defer clock.Stop()
	u.keepClock(ctx)
	for {
		select {
		case <-ctx.Done():
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			u.keepClock(stop)
			return nil
		case <-clock.C:
			u.keepClock(ctx)
		case <-tick.C:
			if u.owned() {
				u.round(ctx)
			}
		}
	}
}

// keepClock notes the vault's time, and tells of a machine that has another one. Of a note
// that could not be written the next one makes up.
func (u *upkeep) keepClock(ctx context.Context) {
	if !u.owned() {
		return
	}
	if err := u.vault.KeepClock(ctx); err != nil && ctx.Err() == nil {
		u.log.Warn("the vault's time was not noted; trying again later", "err", err)
	}
	skew := u.vault.Skew()
	if (skew - u.skew).Abs() <= clockSkew {
		return
	}
	if u.skew = skew; skew.Abs() <= clockSkew {
		u.log.Info("the machine's clock agrees with the vault's again")
		return
	}
	u.log.Warn("the machine's clock does not agree with the vault's: it was set, or the machine was off. Points grow old and locks end by the vault's, "+
		"so that nothing is dropped too early; see that the machine's is right, for new points are dated by it", "machine", u.now().UTC().Format(time.RFC3339),
		"vault", u.vault.Now().Format(time.RFC3339))
}

// round tends all servers that are due.
func (u *upkeep) round(ctx context.Context) {
	servers, err := u.db.ServerMarks(ctx)
	if err != nil {
		if ctx.Err() == nil {
			u.log.Warn("upkeep of the vault", "err", err)
		}
		return
	}
	for _, due := range u.dueOf(servers) {
		began := u.now()
		server, err := u.db.SourceServer(ctx, due.Account, due.ID)
		if errors.Is(err, db.ErrAbsent) {
			continue // deleted meanwhile
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			u.log.Warn("upkeep of a server's history; trying again later", "server", due.ID, "err", err)
			u.plan(due.ID, upkeepRetry)
			continue
		}
		u.tend(ctx, server)
		timer := time.NewTimer(upkeepShare * u.now().Sub(began))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// dueOf picks the servers that are due, and forgets those that are gone.
func (u *upkeep) dueOf(servers []db.ServerMark) (due []db.ServerMark) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.now()
	all := now.Sub(u.swept) >= upkeepAll || now.Before(u.swept)
	if all {
		u.swept = now
	}
	there := make(map[drs.SourceServerID]bool, len(servers))
	for _, s := range servers {
		there[s.ID] = true
		at, planned := u.due[s.ID]
		if planned && !now.Before(at) || !planned && all {
			due = append(due, s)
			delete(u.due, s.ID)
		}
	}
	for id := range u.due {
		if !there[id] {
			delete(u.due, id)
		}
	}
	return due
}

// tend does what is to do for one server.
func (u *upkeep) tend(ctx context.Context, server drs.SourceServer) {
	policy := retention.FromPIT(u.journal, server.ReplicationConfiguration.PITPolicy)
	report, err := u.vault.Maintain(ctx, server.ID, policy, u.vault.Now())
	if ctx.Err() != nil || errors.Is(err, vault.ErrAbsent) { // it has no place in the vault, such as an extended server
		return
	}
	if err == nil {
		err = u.lockByRule(ctx, server)
	}
	u.mu.Lock()
	u.sums.dropped += len(report.Dropped)
	u.sums.freedBytes += report.Freed.Bytes()
	if err != nil {
		u.sums.failed++
	}
	u.mu.Unlock()
	switch {
	case err != nil:
		u.log.Warn("upkeep of a server's history; trying again later", "server", server.ID, "err", err)
		u.plan(server.ID, upkeepRetry)
		return
	case report.More:
		u.plan(server.ID, 0)
	}
	if len(report.Dropped) > 0 || report.Freed.Bytes() > 0 {
		u.log.Debug("upkeep of a server's history", "server", server.ID, "dropped", len(report.Dropped), "freed", report.Freed.Bytes(), "more", report.More)
	}
}

// lockDaysOf returns for how many days the points of a server are to be locked; a tag
// that is no number says as much as none.
func lockDaysOf(server drs.SourceServer, usual int) int {
	days, err := strconv.Atoi(server.Tags[lockTag])
	if err != nil || days < 0 || days > maxLockDays {
		return usual
	}
	return days
}

// lockByRule locks the newest point for as many days as are asked for, once an hour, and at
// once when it is for more days, or fewer, than before.
func (u *upkeep) lockByRule(ctx context.Context, server drs.SourceServer) error {
	days := lockDaysOf(server, u.lockDays)
	if days == 0 {
		return nil
	}
	points, err := u.vault.ListPoints(ctx, server.ID)
	if err != nil {
		return err
	}
	var newest *vault.PointInfo
	var until time.Time // when the lock of the newest locked one ends
	for i := range points {
		p := &points[i]
		if p.Branch != vault.MainBranch || !p.Bootable() {
			continue
		}
		newest = p
		if !p.LockedUntil.IsZero() {
			until = p.LockedUntil
		}
	}
	if newest == nil || !newest.LockedUntil.IsZero() {
		return nil
	}
	next := u.now().AddDate(0, 0, days)
	if next.Sub(until).Abs() < lockSpacing {
		return nil
	}
	return u.vault.LockPoint(ctx, server.ID, newest.ID, next)
}

var (
	upkeepDropped = prometheus.NewDesc("lifeboat_vault_points_dropped_total", "Recovery points that retention has dropped since the start.", nil, nil)
	upkeepFreed   = prometheus.NewDesc("lifeboat_vault_freed_bytes_total", "Bytes freed in the vault since the start.", nil, nil)
	upkeepFailed  = prometheus.NewDesc("lifeboat_vault_upkeep_failures_total", "Times that upkeep of a server's history failed.", nil, nil)
	upkeepOwned   = prometheus.NewDesc("lifeboat_vault_owned", "Whether this server has signed the vault as its own: 1 or 0.", nil, nil)
)

// Describe implements prometheus.Collector.
func (u *upkeep) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(u, out) }

// Collect implements prometheus.Collector.
func (u *upkeep) Collect(out chan<- prometheus.Metric) {
	u.mu.Lock()
	sums := u.sums
	u.mu.Unlock()
	owned := 0.0
	if u.owned() {
		owned = 1
	}
	out <- prometheus.MustNewConstMetric(upkeepDropped, prometheus.CounterValue, float64(sums.dropped))
	out <- prometheus.MustNewConstMetric(upkeepFreed, prometheus.CounterValue, float64(sums.freedBytes))
	out <- prometheus.MustNewConstMetric(upkeepFailed, prometheus.CounterValue, float64(sums.failed))
	out <- prometheus.MustNewConstMetric(upkeepOwned, prometheus.GaugeValue, owned)
}
