package drs

import (
	"cmp"
	"slices"
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
	Disks             []Disk             `json:"disks"`
	Tracker           string             `json:"tracker,omitempty"` // how the agent finds changed blocks: ebpf, qemu, scan
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

// DiskBus is how a disk is attached; the empty one means not known.
type DiskBus string

const (
	BusVirtio DiskBus = "virtio"
	BusNVMe   DiskBus = "nvme"
	BusSATA   DiskBus = "sata"
	BusSCSI   DiskBus = "scsi"
)

// Disk is one replicated disk, in the order in which the agent was given them.
type Disk struct {
	Device string  `json:"device"`
	Bytes  int64   `json:"bytes"`
	Bus    DiskBus `json:"bus,omitempty"`
}

// HasDisk tells whether the machine has a replicated disk of the name.
func (p SourceProperties) HasDisk(device string) bool {
	return slices.ContainsFunc(p.Disks, func(d Disk) bool { return d.Device == device })
}

// ConfiguredDisks says of each disk of the server what was set for it, or is so by
// default: the first one is booted from.
func (s SourceServer) ConfiguredDisks() []ConfiguredDisk {
	out, boot := make([]ConfiguredDisk, 0, len(s.Properties.Disks)), false
	for _, d := range s.Properties.Disks {
		configured := ConfiguredDisk{Device: d.Device, StagingType: "AUTO"}
		for _, set := range s.ReplicationConfiguration.Disks {
			if set.Device == d.Device {
				configured = set
			}
		}
		boot = boot || configured.Boot
		out = append(out, configured)
	}
	if !boot && len(out) > 0 {
		out[0].Boot = true
	}
	return out
}

// DisksBootFirst are the disks with the one that is booted from in front.
func (s SourceServer) DisksBootFirst() []Disk {
	configured := s.ConfiguredDisks()
	disks := make([]Disk, 0, len(configured))
	for i, d := range s.Properties.Disks {
		if configured[i].Boot {
			disks = append([]Disk{d}, disks...)
		} else {
			disks = append(disks, d)
		}
	}
	return disks
}

// InDiskOrder sorts what belongs to disks, such as volumes, by the order in which
// the disks are listed: the boot disk first, as the agent was told. What belongs
// to a disk that is not listed comes last, in its own order.
func InDiskOrder[T any](disks []Disk, items []T, device func(T) string) []T {
	place := func(item T) int {
		i := slices.IndexFunc(disks, func(d Disk) bool { return d.Device == device(item) })
		if i < 0 {
			return len(disks)
		}
		return i
	}
	sorted := slices.Clone(items)
	slices.SortStableFunc(sorted, func(a, b T) int { return cmp.Compare(place(a), place(b)) })
	return sorted
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
