package drs

import "time"

// RecoveryInstance is a machine launched from a recovery point.
type RecoveryInstance struct {
	ID           RecoveryInstanceID
	Account      Account
	SourceServer SourceServerID
	Job          JobID
	Drill        bool
	State        InstanceState
	Tags         Tags
	Launched     time.Time
	// Point is the recovery point its disks began from, PointTaken its moment.
	Point      RecoverySnapshotID
	PointTaken time.Time
	Properties InstanceProperties
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
