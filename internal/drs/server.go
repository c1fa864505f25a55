package drs

import (
	"time"
)

// SourceServer is a protected machine.
type SourceServer struct {
	ID      SourceServerID
	Account Account
	Tags    Tags
	// HardwareID is what makes a machine that registers again the same server.
	// How an agent derives it is written in docs/formats/replication.md.
	HardwareID   string
	AgentVersion string
	// Staging is where the server is replicated, when that is another account.
	Staging Staging

	Properties  SourceProperties
	Replication DataReplicationInfo
	LifeCycle   LifeCycle

	// LastLaunchResult and RecoveryInstance speak of the latest drill or recovery.
	LastLaunchResult LastLaunchResult
	RecoveryInstance RecoveryInstanceID // empty: never launched, or terminated

	ReplicationConfiguration ReplicationConfiguration
	LaunchConfiguration      LaunchConfiguration
}

// ARN names the server.
func (s SourceServer) ARN() string { return s.Account.ARN(TypeSourceServer, string(s.ID)) }

// BootMode is the firmware that a machine boots with.
type BootMode string

const (
	BootBIOS    BootMode = "BIOS"
	BootUEFI    BootMode = "UEFI"
	BootUnknown BootMode = ""
)

// SourceProperties are what the agent found on its machine. Stored as JSON: a
// field may be added, none renamed.
type SourceProperties struct {
	LastUpdated       time.Time          `json:"lastUpdated"`
	Hostname          string             `json:"hostname"`
	FQDN              string             `json:"fqdn,omitempty"`
	MachineID         string             `json:"machineId,omitempty"`
	VMwareUUID        string             `json:"vmwareUuid,omitempty"`
	CPUs              []CPU              `json:"cpus"`
	RAMBytes          int64              `json:"ramBytes"`
	OS                string             `json:"os"`
	Architecture      string             `json:"architecture"` // x86_64 or arm64
	BootMode          BootMode           `json:"bootMode,omitempty"`
	NetworkInterfaces []NetworkInterface `json:"networkInterfaces"`
	Disks             []Disk             `json:"disks"` // that are replicated, the boot disk first
	// Unreplicated are disks that the agent sees and does not replicate.
	Unreplicated []Disk `json:"unreplicated,omitempty"`
	Tracker      string `json:"tracker,omitempty"` // how the agent finds changed blocks: ebpf, qemu, scan
}

// CPU is one socket.
type CPU struct {
	Cores     int    `json:"cores"`
	ModelName string `json:"modelName"`
}

// Cores counts the cores of all sockets.
func (p SourceProperties) Cores() int {
	n := 0
	for _, c := range p.CPUs {
		n += c.Cores
	}
	return n
}

// NetworkInterface is one network card of a machine.
type NetworkInterface struct {
	MAC     string   `json:"mac"`
	IPs     []string `json:"ips,omitempty"`
	Primary bool     `json:"primary,omitempty"`
}

// LifeCycle holds the milestones of a source server; zero times have not come.
type LifeCycle struct {
	AddedToService time.Time   `json:"addedToService"`
	FirstByte      time.Time   `json:"firstByte"`
	LastSeen       time.Time   `json:"lastSeen"`
	LastLaunch     *LastLaunch `json:"lastLaunch,omitempty"`
}

// LastLaunch is the latest drill or recovery that took in the server.
type LastLaunch struct {
	Job       JobID        `json:"job"`
	Initiated time.Time    `json:"initiated"`
	Drill     bool         `json:"drill"`
	Status    LaunchStatus `json:"status"`
}

// LastLaunchResult is what the console shows of the latest launch.
type LastLaunchResult string

const (
	LastLaunchNotStarted LastLaunchResult = "NOT_STARTED"
	LastLaunchPending    LastLaunchResult = "PENDING"
	LastLaunchSucceeded  LastLaunchResult = "SUCCEEDED"
	LastLaunchFailed     LastLaunchResult = "FAILED"
)
