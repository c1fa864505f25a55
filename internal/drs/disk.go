package drs

import (
	"cmp"
	"slices"
)

// DiskBus is how a disk is attached; the empty one means not known.
type DiskBus string

const (
	BusVirtio DiskBus = "virtio"
	BusNVMe   DiskBus = "nvme"
	BusSATA   DiskBus = "sata"
	BusSCSI   DiskBus = "scsi"
)

// Disk is a disk of a source server.
type Disk struct {
	Device string  `json:"device"`
	Bytes  int64   `json:"bytes"`
	Bus    DiskBus `json:"bus,omitempty"`
	// Identity tells the disk from others, whatever it is called; empty: not known.
	Identity string `json:"identity,omitempty"`
}

// DiskName is what a disk is known by: what it is, and what it was called.
type DiskName struct{ Device, Identity string }

func (d Disk) name() DiskName           { return DiskName{d.Device, d.Identity} }
func (d ConfiguredDisk) name() DiskName { return DiskName{d.Device, d.Identity} }

// pairDisks returns for each of some disks which of others is the same one, -1 for
// none: that of its identity; else that of its name, if it is no other's.
func pairDisks(some, others []DiskName) []int {
	pairs, taken := make([]int, len(some)), make([]bool, len(others))
	for i := range pairs {
		pairs[i] = -1
	}
	match := func(same func(a, b DiskName) bool) {
		for i, a := range some {
			for k, b := range others {
				if pairs[i] < 0 && !taken[k] && same(a, b) {
					pairs[i], taken[k] = k, true
				}
			}
		}
	}
	match(func(a, b DiskName) bool { return a.Identity != "" && a.Identity == b.Identity })
	match(func(a, b DiskName) bool { return a.Device == b.Device })
	return pairs
}

func names[T interface{ name() DiskName }](disks []T) []DiskName {
	out := make([]DiskName, len(disks))
	for i, d := range disks {
		out[i] = d.name()
	}
	return out
}

// HasDisk tells whether the machine has a replicated disk of the name.
func (p SourceProperties) HasDisk(device string) bool {
	return slices.ContainsFunc(p.Disks, func(d Disk) bool { return d.Device == device })
}

// ConfiguredDisks says of each disk of the server what was set for it, whatever it was
// called then, or is so by default: the first one is booted from.
func (s SourceServer) ConfiguredDisks() []ConfiguredDisk {
	out, boot := make([]ConfiguredDisk, 0, len(s.Properties.Disks)), false
	set := s.ReplicationConfiguration.Disks
	pairs := pairDisks(names(s.Properties.Disks), names(set))
	for i, d := range s.Properties.Disks {
		configured := ConfiguredDisk{StagingType: "AUTO"}
		if pairs[i] >= 0 {
			configured = set[pairs[i]]
		}
		configured.Device, configured.Identity = d.Device, cmp.Or(d.Identity, configured.Identity)
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
func InDiskOrder[T any](disks []Disk, items []T, disk func(T) DiskName) []T {
	wanted := make([]DiskName, len(items))
	for i, item := range items {
		wanted[i] = disk(item)
	}
	pairs := pairDisks(wanted, names(disks))
	order := make([]int, len(items))
	for i := range order {
		order[i] = i
		if pairs[i] < 0 {
			pairs[i] = len(disks)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(pairs[a], pairs[b]) })
	sorted := make([]T, len(items))
	for i, from := range order {
		sorted[i] = items[from]
	}
	return sorted
}
