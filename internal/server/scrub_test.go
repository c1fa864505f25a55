package server

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
)

// fakeVault is verified share by share; damaged lists objects by share.
type fakeVault struct {
	asked   []vault.VerifyOptions
	damaged map[int]string
	stop    string // an object at which the next verification is cut short
}

func (f *fakeVault) verify(_ context.Context, opt vault.VerifyOptions) (vault.VerifyReport, error) {
	f.asked = append(f.asked, opt)
	report := vault.VerifyReport{Share: opt.Share, Objects: 10, Bytes: 1 << 30}
	if object := f.damaged[opt.Share.Part]; object != "" && object > opt.After {
		report.Damages = append(report.Damages, vault.Damage{Object: object, Reason: "checksum differs", Points: []drs.RecoverySnapshotID{"pit-1", "pit-2"}})
	}
	if f.stop != "" {
		report.Next, f.stop = f.stop, ""
		return report, errors.New("store is away")
	}
	return report, nil
}

func TestEachShareHasItsDay(t *testing.T) {
	d, f := &DataDir{Path: t.TempDir()}, &fakeVault{damaged: map[int]string{2: "servers/b"}}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	start := func() *scrubber {
		s := newScrubber(d, 3, f.verify, slog.New(slog.DiscardHandler))
		s.now = func() time.Time { return now }
		return s
	}
	asked := func() string {
		var parts []string
		for _, a := range f.asked {
			parts = append(parts, a.Share.String()+a.After)
		}
		f.asked = nil
		return strings.Join(parts, " ")
	}
	s := start()
	for day, want := range []string{"1/3", "2/3", "3/3 2/3", "1/3 2/3", "2/3", "3/3 2/3"} {
		s.step(t.Context())
		if got := asked(); got != want {
			t.Errorf("day %d: %s, want %s", day, got, want)
		}
		if wait := s.step(t.Context()); len(f.asked) > 0 || wait > scrubDay {
			t.Errorf("day %d: verified twice, or waits %s", day, wait)
		}
		now = now.Add(scrubDay)
		s = start() // a restart in between changes nothing
	}
	if hints := s.hints(); len(hints) != 1 || !strings.Contains(hints[0], "hurt 2 recovery points") {
		t.Errorf("hints: %q", hints)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(s)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		values[family.GetName()] = family.GetMetric()[0].GetGauge().GetValue()
	}
	if values["lifeboat_vault_damaged_objects"] != 1 || values["lifeboat_vault_hurt_points"] != 2 || values["lifeboat_vault_verified_shares"] != 3 {
		t.Errorf("metrics: %v", values)
	}
	// Mended damage is seen to be mended the next day, not the next month.
	f.damaged = nil
	s.step(t.Context())
	if hints := s.hints(); len(hints) != 0 {
		t.Errorf("mended, and still: %q", hints)
	}
}

// A share that was cut short goes on where it was, also in the next process, and
// what was found before counts.
func TestAShareGoesOn(t *testing.T) {
	d, f := &DataDir{Path: t.TempDir()}, &fakeVault{damaged: map[int]string{1: "servers/a"}, stop: "servers/m"}
	s := newScrubber(d, 2, f.verify, slog.New(slog.DiscardHandler))
	if wait := s.step(t.Context()); wait > time.Hour {
		t.Errorf("waits %s after a failure", wait)
	}
	s = newScrubber(d, 2, f.verify, slog.New(slog.DiscardHandler))
	s.step(t.Context())
	if n := len(f.asked); n != 2 || f.asked[1].After != "servers/m" || f.asked[1].Share != f.asked[0].Share {
		t.Errorf("asked %+v", f.asked)
	}
	if damages, _ := s.found(); len(damages) != 1 {
		t.Errorf("found %+v", damages)
	}
	if state, err := ReadScrubbed(d.Path); err != nil || state.After != "" || len(state.Shares) != 1 || state.Shares[0].Objects != 20 {
		t.Errorf("%+v, %v", state, err)
	}
}
