package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"lifeboat/internal/audit"
	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/machine"
	"lifeboat/internal/throttle"
)

// limits are what the file limits.json of the data directory may change; what it
// leaves out stays at the default. docs/access.md describes it.
type limits struct {
	Quotas drs.Quotas  `json:"quotas"`
	Rates  rates       `json:"rates"`
	Audit  auditLimits `json:"audit"`
	// Networks are those that lead off the host, beside that of all recoveries, which
	// AssociateSourceNetworkStack may choose.
	Networks []string `json:"networks"`
	// Accounts are the limits of single accounts, by number, where they are others.
	Accounts map[string]accountLimits `json:"accounts"`
}

// accountLimits are those of one account; what they leave out is as for all.
type accountLimits struct {
	Quotas   json.RawMessage `json:"quotas"`
	Networks []string        `json:"networks"`

	quotas drs.Quotas // as Quotas says
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
		err = l.completeAccounts()
	}
	if err == nil {
		err = l.check()
	}
	if err != nil {
		return l, fmt.Errorf("%s: %w. Correct it, or remove it for the defaults", path, err)
	}
	return l, nil
}

// completeAccounts reads the quotas of single accounts over those of all.
func (l *limits) completeAccounts() error {
	for number, a := range l.Accounts {
		if !accountNumber.MatchString(number) {
			return fmt.Errorf("accounts.%s: an account has a number of 12 digits", number)
		}
		a.quotas = l.Quotas
		if a.Quotas != nil {
			decoder := json.NewDecoder(bytes.NewReader(a.Quotas))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&a.quotas); err != nil {
				return fmt.Errorf("accounts.%s.quotas: %w", number, err)
			}
		}
		if a.Networks == nil {
			a.Networks = l.Networks
		}
		l.Accounts[number] = a
	}
	return nil
}

var accountNumber = regexp.MustCompile(`^[0-9]{12}$`)

func (l limits) check() error {
	counts := map[string]int64{
		"audit.fileBytes": l.Audit.FileBytes, "audit.totalBytes": l.Audit.TotalBytes, "audit.days": int64(l.Audit.Days),
	}
	networks := map[string][]string{"networks": l.Networks}
	addQuotas(counts, "quotas", l.Quotas)
	for number, a := range l.Accounts {
		addQuotas(counts, "accounts."+number+".quotas", a.quotas)
		networks["accounts."+number+".networks"] = a.Networks
	}
	for name, n := range counts {
		if n < 1 {
			return fmt.Errorf("%s is %d, want 1 or more", name, n)
		}
	}
	for name, all := range networks {
		for _, n := range all {
			if _, err := machine.ParseNetwork(n); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
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

func addQuotas(counts map[string]int64, prefix string, q drs.Quotas) {
	for name, n := range map[string]int{
		"replicatingServers": q.ReplicatingServers, "sourceServers": q.SourceServers, "concurrentJobs": q.ConcurrentJobs,
		"serversPerJob": q.ServersPerJob, "serversInAllJobs": q.ServersInAllJobs, "sourceNetworks": q.SourceNetworks,
	} {
		counts[prefix+"."+name] = int64(n)
	}
}

// quotasOf is drs.QuotasOf.
func (l limits) quotasOf(account drs.Account) drs.Quotas {
	if a, ok := l.Accounts[account.ID]; ok {
		return a.quotas
	}
	return l.Quotas
}

// mayLead tells whether recoveries of an account may go to a network.
func (l limits) mayLead(account drs.Account, n machine.Network) bool {
	networks := l.Networks
	if a, ok := l.Accounts[account.ID]; ok {
		networks = a.Networks
	}
	return slices.Contains(networks, string(n))
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
