package drs

import (
	"fmt"
	"slices"
	"time"
)

// QuotaSourceNetworks limits the source networks of an account.
const QuotaSourceNetworks QuotaCode = "L-4B0323BD"

// SourceNetworkTag on a source server names, by its ID or its VPC's, the source
// network that the server is in. There is no cloud here that would know.
const SourceNetworkTag = "lifeboat:source-network"

// SourceNetwork is a network that protected machines are in, and the machine
// network that their recovery instances go to.
type SourceNetwork struct {
	ID      SourceNetworkID
	Account Account
	Origin  Account // where the network is
	VPC     string
	Status  NetworkStatus
	// StatusDetails says why the status is ERROR.
	StatusDetails string
	Created       time.Time
	Tags          Tags
	// Configuration is what is known of the network, kept in line with its servers
	// while it is PROTECTED.
	Configuration NetworkConfiguration
	// Stack names the machine network that was made for it or that it was
	// associated with; empty before the first recovery.
	Stack       string
	LaunchedVPC string
	Last        NetworkRecovery
}

// ARN names the network.
func (n SourceNetwork) ARN() string { return n.Account.ARN(TypeSourceNetwork, string(n.ID)) }

// NetworkRecovery is the latest recovery of a network; zero: none yet.
type NetworkRecovery struct {
	Job    JobID                 `json:"job,omitempty"`
	At     time.Time             `json:"at,omitzero"`
	Result NetworkRecoveryResult `json:"result,omitempty"`
}

// NetworkRecoveryResult is how a network's recovery went.
type NetworkRecoveryResult string

const (
	NetworkNotRecovered    NetworkRecoveryResult = "NOT_STARTED"
	NetworkInProgress      NetworkRecoveryResult = "IN_PROGRESS"
	NetworkRecovered       NetworkRecoveryResult = "SUCCESS"
	NetworkFailed          NetworkRecoveryResult = "FAIL"
	NetworkAssociated      NetworkRecoveryResult = "ASSOCIATE_SUCCESS"
	NetworkAssociateFailed NetworkRecoveryResult = "ASSOCIATE_FAIL"
)

// NetworkConfiguration is what a network holds. Stored as JSON: a field may be
// added, none renamed.
type NetworkConfiguration struct {
	Servers []NetworkServer `json:"servers,omitempty"`
}

// NetworkServer is a source server's place in its network.
type NetworkServer struct {
	SourceServer SourceServerID     `json:"sourceServer"`
	Hostname     string             `json:"hostname,omitempty"`
	Interfaces   []NetworkInterface `json:"interfaces,omitempty"`
}

// NetworkStatus says whether the network's configuration is kept in line.
type NetworkStatus string

const (
	NetworkStopped    NetworkStatus = "STOPPED"
	NetworkReplicates NetworkStatus = "IN_PROGRESS"
	NetworkProtected  NetworkStatus = "PROTECTED"
	NetworkError      NetworkStatus = "ERROR"
)

var networkTransitions = map[NetworkStatus][]NetworkStatus{
	NetworkStopped:    {NetworkReplicates, NetworkProtected},
	NetworkReplicates: {NetworkProtected, NetworkError, NetworkStopped},
	NetworkProtected:  {NetworkError, NetworkStopped},
	NetworkError:      {NetworkProtected, NetworkStopped},
}

// Next returns the status to go on with. Staying is always allowed.
func (s NetworkStatus) Next(to NetworkStatus) (NetworkStatus, error) {
	if s == to || slices.Contains(networkTransitions[s], to) {
		return to, nil
	}
	return s, fmt.Errorf("network status %s does not lead to %s", s, to)
}

// NetworkStack is a machine network under the name that the API gives it.
type NetworkStack struct {
	Account Account
	Name    string
	VPC     string // what the API calls the network itself
	Network string // what machines are plugged into: see package machine
	Created time.Time
}

// ParticipatingNetwork is one source network's part in a job.
type ParticipatingNetwork struct {
	SourceNetwork SourceNetworkID
	Stack         string
	New           bool // the stack is made, not updated or associated
	Status        LaunchStatus
}

// StartNetworkRecovery is a request to recover networks.
type StartNetworkRecovery struct {
	Networks    []ParticipatingNetwork // their Stack may be empty
	DeployAsNew bool
	Tags        Tags
}

// NetworkEvent is what a job's log says of a network.
type NetworkEvent struct {
	SourceNetwork SourceNetworkID `json:"sourceNetwork"`
	SourceVPC     string          `json:"sourceVpc,omitempty"`
	TargetVPC     string          `json:"targetVpc,omitempty"`
	Stack         string          `json:"stack,omitempty"`
}
