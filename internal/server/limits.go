package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"lifeboat/internal/audit"
	"lifeboat/internal/drs"
	"lifeboat/internal/throttle"
)

// limits are what the file limits.json of the data directory may change; what it
// leaves out stays at the default. docs/access.md describes it.
type limits struct {
	Quotas drs.Quotas  `json:"quotas"`
	Rates  rates       `json:"rates"`
	Audit  auditLimits `json:"audit"`
}

// rates bound the requests of each account to each operation.
type rates struct {
	Read       throttle.Rate            `json:"read"`   // operations that change nothing
	Change     throttle.Rate            `json:"change"` // all others
	Operations map[string]throttle.Rate `json:"operations"`
}

type auditLimits struct {
	FileBytes  int64 `json:"fileBytes"`
	TotalBytes int64 `json:"totalBytes"`
	Days       int   `json:"days"`
}

const limitsFile = "limits.json"

func defaultLimits() limits {
	return limits{
		Quotas: drs.DefaultQuotas,
		Rates: rates{
			Read:   throttle.Rate{PerSecond: 500, Burst: 1000},
			Change: throttle.Rate{PerSecond: 50, Burst: 200},
		},
		Audit: auditLimits{FileBytes: 32 << 20, TotalBytes: 1 << 30, Days: 90},
	}
}

// readLimits reads the file, which need not be there.
func (d *DataDir) readLimits() (limits, error) {
	l := defaultLimits()
	path := d.file(limitsFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, fmt.Errorf("read limits: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	err = decoder.Decode(&l)
	if err == nil {
		if _, err = decoder.Token(); errors.Is(err, io.EOF) {
			err = nil
		} else {
			err = errors.New("something follows the JSON object")
		}
	}
	if err == nil {
		err = l.check()
	}
	if err != nil {
		return l, fmt.Errorf("%s: %w. Correct it, or remove it for the defaults", path, err)
	}
	return l, nil
}

func (l limits) check() error {
	for name, n := range map[string]int64{
		"quotas.replicatingServers": int64(l.Quotas.ReplicatingServers), "quotas.concurrentJobs": int64(l.Quotas.ConcurrentJobs),
		"quotas.serversPerJob": int64(l.Quotas.ServersPerJob), "quotas.serversInAllJobs": int64(l.Quotas.ServersInAllJobs),
		"audit.fileBytes": l.Audit.FileBytes, "audit.totalBytes": l.Audit.TotalBytes, "audit.days": int64(l.Audit.Days),
	} {
		if n < 1 {
			return fmt.Errorf("%s is %d, want 1 or more", name, n)
		}
	}
	all := map[string]throttle.Rate{"rates.read": l.Rates.Read, "rates.change": l.Rates.Change}
	for name, r := range l.Rates.Operations {
		all["rates.operations."+name] = r
	}
	for name, r := range all {
		if r.PerSecond < 0 || r.Burst < 0 {
			return fmt.Errorf("%s must not be negative; a perSecond of 0 means no limit", name)
		}
	}
	return nil
}

// of is the rate of one operation.
func (r rates) of(operation string) throttle.Rate {
	if rate, ok := r.Operations[operation]; ok {
		return rate
	}
	if readsOnly(operation) {
		return r.Read
	}
	return r.Change
}

// readsOnly tells from the name of an operation whether it changes nothing, as all
// services name them.
func readsOnly(operation string) bool {
	_, name, found := strings.Cut(operation, ":")
	if !found {
		name = operation
	}
	for _, verb := range []string{"Describe", "Get", "List", "Lookup"} {
		if strings.HasPrefix(name, verb) {
			return true
		}
	}
	return false
}

func (l auditLimits) limits() audit.Limits {
	return audit.Limits{File: l.FileBytes, Total: l.TotalBytes, Age: time.Duration(l.Days) * 24 * time.Hour}
}

// throttled refuses what comes too fast.
func throttled(t *throttle.Throttle) func(account drs.Account, operation string) error {
	return func(account drs.Account, operation string) error {
		wait := t.Take(account.ID, operation)
		if wait == 0 {
			return nil
		}
		return &drs.Error{
			Kind: drs.KindThrottled, Quota: drs.QuotaRequestRate, RetryAfter: wait,
			Message: fmt.Sprintf("Too many %s requests: try again in %s.", operation, wait.Round(time.Millisecond)),
		}
	}
}
