package server

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/machine"
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
	l, err = write(`{"quotas": {"serversPerJob": 7, "sourceNetworks": 1}, "networks": ["user"],
		"accounts": {"111122223333": {"quotas": {"serversPerJob": 9}}, "444455556666": {"networks": ["bridge=br0"]}}}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		account      string
		servers      int
		user, bridge bool
	}{{"111122223333", 9, true, false}, {"444455556666", 7, false, true}, {"777788889999", 7, true, false}} {
		account := drs.Account{ID: c.account}
		if q := l.quotasOf(account); q.ServersPerJob != c.servers || q.SourceNetworks != 1 || q.ConcurrentJobs != drs.DefaultQuotas.ConcurrentJobs ||
			l.mayLead(account, machine.UserNAT) != c.user || l.mayLead(account, machine.Bridge("br0")) != c.bridge {
			t.Errorf("account %s: %+v", c.account, q)
		}
	}
	for text, want := range map[string]string{
		`{"networks": ["br0"]}`:                                              `networks: network "br0"`,
		`{"accounts": {"me": {}}}`:                                           "accounts.me",
		`{"accounts": {"111122223333": {"quota": {}}}}`:                      `unknown field "quota"`,
		`{"accounts": {"111122223333": {"quotas": {"jobs": 1}}}}`:            `unknown field "jobs"`,
		`{"accounts": {"111122223333": {"quotas": {"concurrentJobs": -1}}}}`: "accounts.111122223333.quotas.concurrentJobs is -1",
		`{"quotas": {"serversPerJob": 0}}`:                                   "quotas.serversPerJob is 0",
		`{"quota": {}}`:                                                      `unknown field "quota"`,
		`{"rates": {"read": {"burst": -1}}}`:                                 "rates.read must not be negative",
		`{"audit": {"days": "90"}}`:                                          "audit.days",
		`{} {}`:                                                              "something follows",
		`{"quotas": {"serversPerJob": 1`:                                     "unexpected EOF",
		`{"rates": {"operations": {"X": null}}`:                              "unexpected EOF",
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
