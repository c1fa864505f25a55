package server

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/throttle"
)

func TestLimits(t *testing.T) {
	d := &DataDir{Path: t.TempDir()}
	write := func(text string) (limits, error) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(d.Path, limitsFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return d.readLimits()
	}
	if l, err := d.readLimits(); err != nil || l.Quotas != drs.DefaultQuotas || l.Rates.of("DescribeJobs") == l.Rates.of("StartRecovery") {
		t.Errorf("without a file: %+v, %v", l, err)
	}
	l, err := write(`{"quotas": {"serversPerJob": 7}, "rates": {"operations": {"StartRecovery": {"perSecond": 1, "burst": 2}}}}`)
	if err != nil || l.Quotas.ServersPerJob != 7 || l.Quotas.ConcurrentJobs != drs.DefaultQuotas.ConcurrentJobs || l.Rates.of("StartRecovery") != (throttle.Rate{PerSecond: 1, Burst: 2}) {
		t.Errorf("%+v, %v", l, err)
	}
	for text, want := range map[string]string{
		`{"quotas": {"serversPerJob": 0}}`:      "quotas.serversPerJob is 0",
		`{"quota": {}}`:                         `unknown field "quota"`,
		`{"rates": {"read": {"burst": -1}}}`:    "rates.read must not be negative",
		`{"audit": {"days": "90"}}`:             "audit.days",
		`{} {}`:                                 "something follows",
		`{"quotas": {"serversPerJob": 1`:        "unexpected EOF",
		`{"rates": {"operations": {"X": null}}`: "unexpected EOF",
	} {
		if _, err := write(text); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), limitsFile+": ") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestThrottled(t *testing.T) {
	now := time.Now()
	hold := throttled(throttle.New(func(string) throttle.Rate { return throttle.Rate{PerSecond: 2, Burst: 1} }, func() time.Time { return now }))
	account := drs.Account{ID: "111122223333"}
	if err := hold(account, "StartRecovery"); err != nil {
		t.Fatal(err)
	}
	var refused *drs.Error
	if err := hold(account, "StartRecovery"); !errors.As(err, &refused) || refused.Kind != drs.KindThrottled || refused.RetryAfter != 500*time.Millisecond || refused.Quota == "" {
		t.Errorf("%v, %+v", err, refused)
	}
}
