package drs

import (
	"fmt"
	"slices"
	"time"
)

// RecoveryInstance is a machine launched from a recovery point.
type RecoveryInstance struct {
	ID           RecoveryInstanceID
	Account      Account
	SourceServer SourceServerID
	Job          JobID
	Drill        bool
	State        InstanceState
	// Wanted says that the machine is meant to run: it is started again when its
	// host took it down. Switching it off, from inside or by order, ends that.
	Wanted   bool
	Tags     Tags
	Launched time.Time
	// Point is the recovery point its disks began from, PointTaken its moment.
	Point      RecoverySnapshotID
	PointTaken time.Time
	Properties InstanceProperties
	// VaultServer is the server in whose part of the vault the disks lie: the
	// source server, or the one that it was extended from.
	VaultServer SourceServerID
	Connection  Connection
	Failback    FailbackConfiguration
}

// Connection is how far the service still has to do with an instance.
type Connection string

const (
	Connected    Connection = ""
	Disconnected Connection = "DISCONNECTED" // listed, and nothing more
	// Released instances are not listed any more. Their machines run on until they
	// are terminated or their server is launched again.
	Released Connection = "RELEASED"
)

// FailbackConfiguration says how an instance's changes are to travel home. Stored
// as JSON: a field may be added, none renamed.
type FailbackConfiguration struct {
	Name                    string `json:"name"`
	BandwidthThrottlingMbps int64  `json:"bandwidthThrottlingMbps"` // 0: unlimited
	UsePrivateIP            bool   `json:"usePrivateIp"`
	InternetProtocol        string `json:"internetProtocol"`
}

// DefaultFailbackConfiguration is what a new instance gets.
func DefaultFailbackConfiguration() FailbackConfiguration {
	return FailbackConfiguration{Name: "Failback Replication Configuration", InternetProtocol: "IPV4"}
}

// ARN names the instance.
func (i RecoveryInstance) ARN() string { return i.Account.ARN(TypeRecoveryInstance, string(i.ID)) }

// InstanceState follows the machine.
type InstanceState string

const (
	InstancePending      InstanceState = "PENDING"
	InstanceRunning      InstanceState = "RUNNING"
	InstanceStopping     InstanceState = "STOPPING"
	InstanceStopped      InstanceState = "STOPPED"
	InstanceShuttingDown InstanceState = "SHUTTING-DOWN"
	InstanceTerminated   InstanceState = "TERMINATED"
	InstanceNotFound     InstanceState = "NOT_FOUND"
)

var instanceTransitions = map[InstanceState][]InstanceState{
	InstancePending:  {InstanceRunning, InstanceStopped, InstanceShuttingDown},
	InstanceRunning:  {InstanceStopping, InstanceStopped, InstanceNotFound, InstanceShuttingDown},
	InstanceStopping: {InstanceStopped, InstanceNotFound, InstanceShuttingDown},
	InstanceStopped:  {InstanceRunning, InstanceNotFound, InstanceShuttingDown},
	InstanceNotFound: {InstanceRunning, InstanceStopped, InstanceShuttingDown},
	// An instance that is being removed is nothing else any more.
	InstanceShuttingDown: {},
}

// Next returns the state to go on with. Staying is always allowed.
func (s InstanceState) Next(to InstanceState) (InstanceState, error) {
	if s == to || slices.Contains(instanceTransitions[s], to) {
		return to, nil
	}
	return s, fmt.Errorf("instance state %s does not lead to %s", s, to)
}

// InstanceProperties describe the launched machine: the source's inventory, but
// for the size and network that it was really given. Stored as JSON.
type InstanceProperties struct {
	LastUpdated       time.Time          `json:"lastUpdated"`
	Hostname          string             `json:"hostname"`
	FQDN              string             `json:"fqdn,omitempty"`
	CPUs              []CPU              `json:"cpus"`
	RAMBytes          int64              `json:"ramBytes"`
	OS                string             `json:"os"`
	NetworkInterfaces []NetworkInterface `json:"networkInterfaces"`
	Disks             []Disk             `json:"disks"`
	BootMode          BootMode           `json:"bootMode"`
	Network           string             `json:"network"`
	Accelerator       string             `json:"accelerator"`
}
