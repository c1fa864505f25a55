package drs

import "fmt"

// QuotaCode is the service-quotas code of a limit, as AWS numbers them.
type QuotaCode string

const (
	QuotaReplicatingServers QuotaCode = "L-C1D14A2B"
	QuotaSourceServers      QuotaCode = "L-E28BE5E0"
	QuotaConcurrentJobs     QuotaCode = "L-D88FAC3A"
	QuotaServersPerJob      QuotaCode = "L-B827C881"
	QuotaServersInAllJobs   QuotaCode = "L-05AFA8C6"
	QuotaLaunchActions      QuotaCode = "L-0588D03B"
	QuotaLaunchTemplates    QuotaCode = "L-1F3FAE4D"
)

// QuotaRequestRate stands in refusals of requests that come too fast. AWS gives
// these rates no code; the word says what it is.
const QuotaRequestRate QuotaCode = "RequestRate"

// Quotas are the limits of one account in one region. AWS caps a job at 100
// servers although the API takes 200; Lifeboat allows what the API takes.
type Quotas struct {
	ReplicatingServers int
	SourceServers      int // in all, those extended from other accounts included
	ConcurrentJobs     int
	ServersPerJob      int
	ServersInAllJobs   int
	SourceNetworks     int
}

// QuotasOf tells the quotas of an account; nil tells DefaultQuotas of all.
type QuotasOf func(Account) Quotas

// Of tells the quotas of the account.
func (q QuotasOf) Of(account Account) Quotas {
	if q == nil {
		return DefaultQuotas
	}
	return q(account)
}

// DefaultQuotas are the documented values, but for ServersPerJob.
var DefaultQuotas = Quotas{
	ReplicatingServers: 300, SourceServers: 4000, ConcurrentJobs: 20, ServersPerJob: 200, ServersInAllJobs: 500, SourceNetworks: 100,
}

// QuotaExceeded refuses a request that would pass a limit.
func QuotaExceeded(code QuotaCode, t ResourceType, id, format string, args ...any) *Error {
	return &Error{
		Kind: KindQuotaExceeded, Quota: code, ResourceType: t, ResourceID: id,
		Message: fmt.Sprintf(format, args...),
	}
}
