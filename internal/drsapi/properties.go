package drsapi

import (
	"slices"

	"lifeboat/internal/drs"
)

type sourceProperties struct {
	LastUpdatedDateTime     timestamp           `json:"lastUpdatedDateTime,omitempty"`
	RecommendedInstanceType string              `json:"recommendedInstanceType,omitempty"`
	IdentificationHints     identificationHints `json:"identificationHints"`
	NetworkInterfaces       []networkInterface  `json:"networkInterfaces"`
	Disks                   []disk              `json:"disks"`
	CPUs                    []cpu               `json:"cpus"`
	RAMBytes                int64               `json:"ramBytes"`
	OS                      operatingSystem     `json:"os"`
	SupportsNitroInstances  bool                `json:"supportsNitroInstances"`
	Architecture            string              `json:"architecture,omitempty" enum:"x86_64,arm64"`
	// Tracker is our own: how the agent finds changed blocks, ebpf or scan.
	Tracker string `json:"tracker,omitempty"`
}

type identificationHints struct {
	FQDN       string `json:"fqdn,omitempty"`
	Hostname   string `json:"hostname,omitempty"`
	VMwareUUID string `json:"vmWareUuid,omitempty"`
}

type networkInterface struct {
	MACAddress string   `json:"macAddress"`
	IPs        []string `json:"ips"`
	IsPrimary  bool     `json:"isPrimary"`
}

type disk struct {
	DeviceName string `json:"deviceName"`
	Bytes      int64  `json:"bytes"`
}

type cpu struct {
	Cores     int    `json:"cores"`
	ModelName string `json:"modelName"`
}

type operatingSystem struct {
	FullString string `json:"fullString"`
}

func sourcePropertiesOf(p drs.SourceProperties) sourceProperties {
	return sourceProperties{
		LastUpdatedDateTime: timestampOf(p.LastUpdated),
		IdentificationHints: identificationHints{
			FQDN: clip(p.FQDN, boundedLength), Hostname: clip(p.Hostname, boundedLength), VMwareUUID: clip(p.VMwareUUID, boundedLength),
		},
		NetworkInterfaces: mapped(p.NetworkInterfaces, networkInterfaceOf),
		// All that the machine has; replicatedDisks tells which of them are.
		Disks: mapped(slices.Concat(p.Disks, p.Unreplicated), func(d drs.Disk) disk {
			return disk{DeviceName: clip(d.Device, boundedLength), Bytes: d.Bytes}
		}),
		CPUs:     mapped(p.CPUs, cpuOf),
		RAMBytes: p.RAMBytes,
		OS:       operatingSystem{FullString: clip(p.OS, boundedLength)},
		// Any machine boots on virtio here, which is what the question is about.
		SupportsNitroInstances: true,
		Architecture:           p.Architecture,
		Tracker:                p.Tracker,
	}
}

func networkInterfaceOf(n drs.NetworkInterface) networkInterface {
	return networkInterface{
		MACAddress: clip(n.MAC, boundedLength),
		IPs:        mapped(n.IPs, func(ip string) string { return clip(ip, boundedLength) }),
		IsPrimary:  n.Primary,
	}
}

func cpuOf(c drs.CPU) cpu {
	return cpu{Cores: c.Cores, ModelName: clip(c.ModelName, boundedLength)}
}
