package convert

import (
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"

	"lifeboat/internal/drs"
)

// Host is what the place that runs machines can give.
type Host struct {
	CPUs   int
	Memory int64 // bytes
}

// Plan is a machine that fits both the source and the host.
type Plan struct {
	CPUs     int
	Memory   int64 // bytes, whole MiB
	Firmware drs.BootMode
	// Buses has one entry for each disk of the source, in order.
	Buses []drs.DiskBus
	// Notes are sentences for the job's log about everything that differs from the
	// source or had to be guessed.
	Notes []string
}

const (
	mebibyte = 1 << 20
	// defaultMemory is for sources that did not tell theirs.
	defaultMemory = 2 << 30
	minMemory     = 64 << 20
	maxCPUs       = 255
)

// Fit plans the machine for a source server whose first disk looks like boot.
func Fit(source drs.SourceProperties, boot Layout, host Host) Plan {
	var p Plan
	p.fitCPUs(source.Cores(), host.CPUs)
	p.fitMemory(source.RAMBytes, host.Memory)
	p.chooseFirmware(source.BootMode, boot)
	for i, d := range source.Disks {
		p.Buses = append(p.Buses, p.chooseBus(i, d.Bus, source.OS))
	}
	return p
}

func (p *Plan) note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

func (p *Plan) fitCPUs(source, host int) {
	most := max(1, min(host, maxCPUs))
	p.CPUs = min(max(source, 1), most)
	switch {
	case source < 1:
		p.note("The source's number of CPUs is not known: the machine gets 1.")
	case source > most:
		p.note("The source has %d CPUs, this host can give %d: the machine gets %d.", source, most, p.CPUs)
	}
}

// fitMemory leaves the host an eighth of its memory, at least 1 GiB, at most half.
func (p *Plan) fitMemory(source, host int64) {
	kept := min(max(host/8, 1<<30), host/2)
	most := max((host-kept)/mebibyte*mebibyte, minMemory)
	want := source
	if want < 1 {
		want = defaultMemory
		p.note("The source's memory is not known: %s is assumed.", humanize.IBytes(defaultMemory))
	}
	want = max((want+mebibyte-1)/mebibyte*mebibyte, minMemory)
	p.Memory = min(want, most)
	if want > most {
		p.note("The source has %s of memory, this host has %s and keeps %s: the machine gets %s.",
			humanize.IBytes(uint64(want)), humanize.IBytes(uint64(max(host, 0))), humanize.IBytes(uint64(max(kept, 0))), humanize.IBytes(uint64(p.Memory)))
	}
}

// chooseFirmware believes the source before its disk: it is known to boot.
func (p *Plan) chooseFirmware(source drs.BootMode, boot Layout) {
	switch {
	case source != drs.BootUnknown:
		p.Firmware = source
		if boot.BootMode != drs.BootUnknown && boot.BootMode != source {
			p.note("The source boots with %s, but its disk looks otherwise (%s): %s is used.", source, boot.Why, source)
		}
	case boot.BootMode != drs.BootUnknown:
		p.Firmware = boot.BootMode
		p.note("The source's boot mode is taken from its disk: %s.", boot.Why)
	default:
		p.Firmware = drs.BootBIOS
		p.note("The boot mode is not known (%s): BIOS is tried.", boot.Why)
	}
	for _, d := range boot.Damage {
		p.note("Boot disk: %s.", d)
	}
}

// chooseBus keeps the source's bus, for which its system surely has the driver.
// Windows has none for virtio unless it ran on it.
func (p *Plan) chooseBus(disk int, source drs.DiskBus, os string) drs.DiskBus {
	windows := strings.Contains(strings.ToLower(os), "windows")
	switch {
	case windows && (source == drs.BusSCSI || source == ""):
		p.note("Disk %d is attached to SATA, for which every Windows has a driver.", disk)
		return drs.BusSATA
	case source == "":
		return drs.BusVirtio
	}
	return source
}
