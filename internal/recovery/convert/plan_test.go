package convert_test

import (
	"slices"
	"strings"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/convert"
)

const gib = 1 << 30

func TestFit(t *testing.T) {
	bios := convert.Layout{BootMode: drs.BootBIOS, Why: "MBR with boot code: BIOS"}
	uefi := convert.Layout{BootMode: drs.BootUEFI, Why: "GPT with EFI system partition: UEFI"}
	none := convert.Layout{Why: "not a boot disk"}
	source := func(cpus int, ram int64, mode drs.BootMode) drs.SourceProperties {
		return drs.SourceProperties{CPUs: []drs.CPU{{Cores: cpus}}, RAMBytes: ram, BootMode: mode, OS: "Debian GNU/Linux 12"}
	}
	for _, c := range []struct {
		name   string
		source drs.SourceProperties
		boot   convert.Layout
		host   convert.Host
		cpus   int
		memory int64
		mode   drs.BootMode
		notes  []string
	}{
		{"fits", source(2, 4*gib, drs.BootBIOS), bios, convert.Host{CPUs: 8, Memory: 32 * gib}, 2, 4 * gib, drs.BootBIOS, nil},
		{"odd memory is rounded up", source(1, 1*gib+1, drs.BootBIOS), bios, convert.Host{CPUs: 8, Memory: 32 * gib}, 1, 1*gib + mib, drs.BootBIOS, nil},
		{"too large", source(64, 256*gib, drs.BootUEFI), uefi, convert.Host{CPUs: 8, Memory: 32 * gib}, 8, 28 * gib, drs.BootUEFI, []string{"64 CPUs", "keeps 4.0 GiB"}},
		{"small host keeps half", source(1, 4*gib, drs.BootBIOS), bios, convert.Host{CPUs: 1, Memory: 1 * gib}, 1, gib / 2, drs.BootBIOS, []string{"keeps 512 MiB"}},
		{"nothing known", drs.SourceProperties{}, none, convert.Host{CPUs: 4, Memory: 16 * gib}, 1, 2 * gib, drs.BootBIOS, []string{"number of CPUs is not known", "2.0 GiB is assumed", "BIOS is tried"}},
		{"mode from the disk", source(1, gib, drs.BootUnknown), uefi, convert.Host{CPUs: 4, Memory: 16 * gib}, 1, gib, drs.BootUEFI, []string{"taken from its disk"}},
		{"source against disk", source(1, gib, drs.BootBIOS), uefi, convert.Host{CPUs: 4, Memory: 16 * gib}, 1, gib, drs.BootBIOS, []string{"looks otherwise"}},
		{"host unknown", source(4, gib, drs.BootBIOS), bios, convert.Host{}, 1, 64 * mib, drs.BootBIOS, []string{"can give 1", "the machine gets 64 MiB"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := convert.Fit(c.source, c.boot, c.host)
			if p.CPUs != c.cpus || p.Memory != c.memory || p.Firmware != c.mode {
				t.Errorf("got %d CPUs, %d bytes, %s; want %d, %d, %s", p.CPUs, p.Memory, p.Firmware, c.cpus, c.memory, c.mode)
			}
			if len(p.Notes) != len(c.notes) {
				t.Fatalf("notes %q, want %d", p.Notes, len(c.notes))
			}
			for i, want := range c.notes {
				if !strings.Contains(p.Notes[i], want) {
					t.Errorf("note %q, want one that says %q", p.Notes[i], want)
				}
			}
		})
	}
}

func TestFitBuses(t *testing.T) {
	disks := []drs.Disk{{Bus: ""}, {Bus: drs.BusNVMe}, {Bus: drs.BusSCSI}, {Bus: drs.BusVirtio}}
	for os, want := range map[string][]drs.DiskBus{
		"Debian GNU/Linux 12":           {drs.BusVirtio, drs.BusNVMe, drs.BusSCSI, drs.BusVirtio},
		"Microsoft Windows Server 2022": {drs.BusSATA, drs.BusNVMe, drs.BusSATA, drs.BusVirtio},
	} {
		p := convert.Fit(drs.SourceProperties{OS: os, Disks: disks}, convert.Layout{}, convert.Host{CPUs: 1, Memory: gib})
		if !slices.Equal(p.Buses, want) {
			t.Errorf("%s: buses %v, want %v", os, p.Buses, want)
		}
	}
}

func TestInstanceType(t *testing.T) {
	for _, c := range []struct {
		cpus   int
		memory int64
		want   string
	}{
		{0, 0, "c5.large"}, {2, 4 * gib, "c5.large"}, {2, 4*gib + 1, "c5.xlarge"}, {3, gib, "c5.xlarge"},
		{1, 100 * gib, "c5.18xlarge"}, {96, 192 * gib, "c5.24xlarge"}, {500, 4000 * gib, "c5.24xlarge"},
	} {
		if got := convert.InstanceType(c.cpus, c.memory); got != c.want {
			t.Errorf("%d CPUs, %d bytes: %s, want %s", c.cpus, c.memory, got, c.want)
		}
	}
}
