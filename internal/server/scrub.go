package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/durable"
	"lifeboat/internal/vault"
)

const (
	scrubFile = "scrub.json"
	// scrubDay is how far apart the shares begin.
	scrubDay = 24 * time.Hour
	// scrubSettle is how long after a start the first one may begin.
	scrubSettle = time.Minute
	// Rates of reading, in bytes per second: what it is when nothing is known of the
	// share, and its bounds when it is spread over half a day.
	scrubRate, scrubSlow, scrubFast = 16 << 20, 1 << 20, 64 << 20
)

// scrubber reads a share of the vault each day, so that damage is found while there are
// copies to mend it from. What it found is kept in the data directory.
type scrubber struct {
	path   string
	verify func(context.Context, vault.VerifyOptions) (vault.VerifyReport, error)
	log    *slog.Logger
	now    func() time.Time

	mu    sync.Mutex
	state Scrubbed // guarded by mu
}

// Scrubbed is what scheduled verification has found so far.
type Scrubbed struct {
	Of     int          `json:"of"`     // shares
	Begun  time.Time    `json:"begun"`  // the latest share
	Part   int          `json:"part"`   // of the latest share
	After  string       `json:"after"`  // where to go on with it; empty: it is complete
	Shares []ShareState `json:"shares"` // those verified at least once
}

// ShareState is the outcome of one share's latest verification.
type ShareState struct {
	Part    int            `json:"part"`
	At      time.Time      `json:"at"`
	Objects int64          `json:"objects"`
	Bytes   int64          `json:"bytes"`
	Damages []vault.Damage `json:"damages"`
}

// ReadScrubbed returns what a server's scheduled verification has found; the zero value
// when it never ran.
func ReadScrubbed(data string) (s Scrubbed, err error) {
	text, err := os.ReadFile((&DataDir{Path: data}).file(scrubFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return Scrubbed{}, fmt.Errorf("read what was verified: %w; delete the file to begin anew", err)
	}
	return s, nil
}

// newScrubber takes up where the last process was. Days is in how many days everything
// is read once.
func newScrubber(d *DataDir, days int, verify func(context.Context, vault.VerifyOptions) (vault.VerifyReport, error), log *slog.Logger) *scrubber {
	s := &scrubber{path: d.file(scrubFile), verify: verify, log: log, now: time.Now}
	state, err := ReadScrubbed(d.Path)
	if err != nil {
		log.Warn("scheduled verification begins anew", "err", err)
	}
	if err != nil || state.Of != days {
		state = Scrubbed{Of: days}
	}
	s.state = state
	return s
}

// run verifies share after share until ctx ends.
func (s *scrubber) run(ctx context.Context) error {
	if s.state.Of == 0 {
		return nil
	}
	wait := scrubSettle
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		wait = s.step(ctx)
	}
}

// step does what is due and returns when to look again.
func (s *scrubber) step(ctx context.Context) time.Duration {
	s.mu.Lock()
	state := s.state
	s.mu.Unlock()
	if rest := scrubDay - s.now().Sub(state.Begun); state.After == "" && rest > 0 {
		return min(rest, scrubDay) // a clock that was set back does not put it off for long
	}
	resumed := state.After != ""
	if !resumed {
		s.mu.Lock()
		s.state.Part = s.state.Part%s.state.Of + 1
		s.state.Begun = s.now().UTC()
		state = s.state
		s.mu.Unlock()
	}
	parts := []int{state.Part}
	for _, share := range state.Shares { // damage may have been mended
		if len(share.Damages) > 0 && share.Part != state.Part && !resumed {
			parts = append(parts, share.Part)
		}
	}
	for i, part := range parts {
		after := ""
		if i == 0 {
			after = state.After
		}
		if err := s.share(ctx, part, after, i == 0); err != nil {
			if ctx.Err() == nil {
				s.log.Warn("scheduled verification of the vault was cut short; it goes on", "share", vault.Share{Part: part, Of: state.Of}, "err", err)
			}
			return 10 * time.Minute
		}
	}
	return time.Minute
}

// share verifies one share from an object on.
func (s *scrubber) share(ctx context.Context, part int, after string, main bool) error {
	share := vault.Share{Part: part, Of: s.state.Of}
	report, err := s.verify(ctx, vault.VerifyOptions{Share: share, After: after, Rate: s.rate(part)})
	s.mu.Lock()
	defer s.mu.Unlock()
	result := ShareState{Part: part, At: s.now().UTC(), Objects: report.Objects, Bytes: report.Bytes, Damages: report.Damages}
	i := slices.IndexFunc(s.state.Shares, func(r ShareState) bool { return r.Part == part })
	if after != "" && i >= 0 { // what an earlier process found in the share's first part
		result.Objects += s.state.Shares[i].Objects
		result.Bytes += s.state.Shares[i].Bytes
		for _, d := range s.state.Shares[i].Damages {
			if d.Object <= after {
				result.Damages = append(result.Damages, d)
			}
		}
	}
	if i < 0 {
		s.state.Shares = append(s.state.Shares, result)
	} else {
		s.state.Shares[i] = result
	}
	if main {
		s.state.After = report.Next // empty when it is complete
	}
	for _, d := range report.Damages {
		s.log.Error("the vault is damaged", "object", d.Object, "reason", d.Reason, "server", d.Server, "derived", d.Derived, "points_hurt", len(d.Points), "points", d.Points)
	}
	if err == nil {
		s.log.Info("verified a share of the vault", "share", share, "objects", report.Objects, "bytes", report.Bytes, "damaged", len(report.Damages))
	}
	return errors.Join(err, s.saveLocked())
}

func (s *scrubber) saveLocked() error {
	text, err := json.MarshalIndent(s.state, "", "  ")
	if err != nil {
		return err
	}
	return durable.Files{}.WriteFile("scrub state", s.path, append(text, '\n'), 0o600)
}

// rate spreads a share over half a day, by what it held the last time.
func (s *scrubber) rate(part int) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.state.Shares {
		if r.Part == part {
			return min(max(r.Bytes/int64((scrubDay/2)/time.Second), scrubSlow), scrubFast)
		}
	}
	return scrubRate
}

// found returns the damage that was found and not seen mended since, and when the
// share that was verified longest ago was; zero when one never was.
func (s *scrubber) found() (damages []vault.Damage, oldest time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range s.state.Shares {
		damages = append(damages, r.Damages...)
		if i == 0 || r.At.Before(oldest) {
			oldest = r.At
		}
	}
	if len(s.state.Shares) < s.state.Of {
		oldest = time.Time{}
	}
	return damages, oldest
}

// hints are what an operator should know though the server serves.
func (s *scrubber) hints() []string {
	damages, _ := s.found()
	if len(damages) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%d objects of the vault are damaged and hurt %d recovery points: `lifeboat vault verify` names them; put the objects back from a copy",
		len(damages), len(hurtPoints(damages)))}
}

func hurtPoints(damages []vault.Damage) map[drs.RecoverySnapshotID]bool {
	hurt := map[drs.RecoverySnapshotID]bool{}
	for _, d := range damages {
		for _, id := range d.Points {
			hurt[id] = true
		}
	}
	return hurt
}

var (
	damagedMetric = prometheus.NewDesc("lifeboat_vault_damaged_objects", "Objects of the vault that scheduled verification found to be damaged.", nil, nil)
	hurtMetric    = prometheus.NewDesc("lifeboat_vault_hurt_points", "Recovery points that they hurt.", nil, nil)
	sharesMetric  = prometheus.NewDesc("lifeboat_vault_verified_shares", "Shares of the vault that were verified at least once.", []string{"of"}, nil)
	oldestMetric  = prometheus.NewDesc("lifeboat_vault_verified_oldest_seconds", "Time since the share that was verified longest ago was; absent before all were.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *scrubber) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(s, out) }

// Collect implements prometheus.Collector.
func (s *scrubber) Collect(out chan<- prometheus.Metric) {
	damages, oldest := s.found()
	s.mu.Lock()
	shares, of := len(s.state.Shares), s.state.Of
	s.mu.Unlock()
	out <- prometheus.MustNewConstMetric(damagedMetric, prometheus.GaugeValue, float64(len(damages)))
	out <- prometheus.MustNewConstMetric(hurtMetric, prometheus.GaugeValue, float64(len(hurtPoints(damages))))
	out <- prometheus.MustNewConstMetric(sharesMetric, prometheus.GaugeValue, float64(shares), fmt.Sprint(of))
	if !oldest.IsZero() {
		out <- prometheus.MustNewConstMetric(oldestMetric, prometheus.GaugeValue, max(0, s.now().Sub(oldest).Seconds()))
	}
}

// pointOf names the point that a damaged manifest made.
func (s *running) pointOf(ctx context.Context, id drs.SourceServerID, epoch uint64) (drs.RecoverySnapshotID, error) {
	point, err := s.db.PointOfEpoch(ctx, id, epoch)
	if errors.Is(err, db.ErrAbsent) {
		return "", nil
	}
	return point, err
}
