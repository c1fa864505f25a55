package inventory

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"lifeboat/internal/drs"
)

// machine lays out a root directory with the given files.
func machine(t *testing.T, files map[string]string) Collector {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Collector{Root: root}
}

const twoSockets = `processor	: 0
model name	: Xeon
physical id	: 0
core id		: 0

processor	: 1
model name	: Xeon
physical id	: 0
core id		: 0

processor	: 2
model name	: Xeon
physical id	: 0
core id		: 1

processor	: 3
model name	: Xeon
physical id	: 1
core id		: 0
`

func TestCollect(t *testing.T) {
	c := machine(t, map[string]string{
		"proc/cpuinfo":                   twoSockets,
		"proc/meminfo":                   "MemTotal:        2048 kB\nMemFree: 1 kB\n",
		"proc/sys/kernel/osrelease":      "5.10.0-28-cloud-amd64\n",
		"etc/os-release":                 "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 11 (bullseye)\"\n",
		"etc/machine-id":                 "0123456789abcdef0123456789abcdef\n",
		"sys/class/dmi/id/product_uuid":  "ABCD\n",
		"sys/class/dmi/id/sys_vendor":    "VMware, Inc.\n",
		"sys/firmware/efi/fw_platform":   "64",
		"sys/devices/pci/virtio1/vda/x":  "",
		"sys/devices/pci/nvme0/nvme0n/x": "",
		"sys/devices/pci/ata1/sda/x":     "",
	})
	os.MkdirAll(c.path("sys/class/block"), 0o755)
	for name, to := range map[string]string{"vda": "pci/virtio1/vda", "nvme0n1": "pci/nvme0/nvme0n", "sda": "pci/ata1/sda"} {
		if err := os.Symlink("../../devices/"+to, c.path("sys/class/block/"+name)); err != nil {
			t.Fatal(err)
		}
	}
	p, err := c.Collect([]Disk{{"/dev/vda", 10, true}, {"/dev/nvme0n1", 20, true}, {"/dev/sda", 30, true}, {"/x.img", 40, false}}, Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.CPUs, []drs.CPU{{Cores: 2, ModelName: "Xeon"}, {Cores: 1, ModelName: "Xeon"}}) {
		t.Errorf("CPUs %+v", p.CPUs)
	}
	if p.RAMBytes != 2<<20 || p.OS != "linux 5.10.0-28-cloud-amd64 (Debian GNU/Linux 11 (bullseye))" || p.BootMode != drs.BootUEFI ||
		p.MachineID != "0123456789abcdef0123456789abcdef" || p.VMwareUUID != "abcd" {
		t.Errorf("%+v", p)
	}
	want := []drs.Disk{{Device: "/dev/vda", Bytes: 10, Bus: drs.BusVirtio}, {Device: "/dev/nvme0n1", Bytes: 20, Bus: drs.BusNVMe},
		{Device: "/dev/sda", Bytes: 30, Bus: drs.BusSATA}, {Device: "/x.img", Bytes: 40}}
	if !slices.Equal(p.Disks, want) {
		t.Errorf("disks %+v", p.Disks)
	}
	if host, _ := os.Hostname(); p.Hostname != host || p.FQDN == "" {
		t.Errorf("names %q, %q", p.Hostname, p.FQDN)
	}
}

// Firmware without a UUID of its own says so in these ways on any number of machines.
func TestNoFirmwareUUID(t *testing.T) {
	for _, none := range []string{"", "00000000-0000-0000-0000-000000000000\n", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\n"} {
		if got := machine(t, map[string]string{"sys/class/dmi/id/product_uuid": none}).DMIUUID(); got != "" {
			t.Errorf("%q gives %q", none, got)
		}
	}
}

func TestOverridesAndImages(t *testing.T) {
	c := machine(t, map[string]string{"proc/cpuinfo": twoSockets, "etc/machine-id": "host"})
	image := []Disk{{"/images/db.img", 1 << 30, false}}
	p, err := c.Collect(image, Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	// The host's processors and cards are not those of the machine in the image.
	if p.Cores() != 1 || p.RAMBytes != 1<<30 || p.MachineID != "" || len(p.NetworkInterfaces) > 0 || p.BootMode != drs.BootUnknown {
		t.Errorf("an image's machine: %+v", p)
	}
	p, err = c.Collect(image, Overrides{Hostname: "db1", CPUs: 4, Memory: 8 << 30, BootMode: drs.BootUEFI})
	if err != nil {
		t.Fatal(err)
	}
	if p.Hostname != "db1" || p.Cores() != 4 || p.RAMBytes != 8<<30 || p.BootMode != drs.BootUEFI {
		t.Errorf("overridden: %+v", p)
	}
}

// An empty machine is not an error: an inventory tells what it can.
func TestNothingKnown(t *testing.T) {
	p, err := machine(t, nil).Collect([]Disk{{"/dev/sda", 1, true}}, Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	if p.Cores() != runtime.NumCPU() || p.RAMBytes <= 0 || p.OS != "linux" || p.BootMode != drs.BootBIOS {
		t.Errorf("%+v", p)
	}
}

func TestThisMachine(t *testing.T) {
	p, err := Collector{}.Collect([]Disk{{"/dev/none", 1, true}}, Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	if p.Cores() < 1 || p.RAMBytes < 1<<26 || !strings.HasPrefix(p.OS, "linux ") || p.Architecture == "" {
		t.Errorf("%+v", p)
	}
	if _, err := (Collector{}).WholeDisks(); err != nil {
		t.Error(err)
	}
}

func TestWholeDisks(t *testing.T) {
	c := machine(t, map[string]string{
		"sys/block/vda/size": "100", "sys/block/vda/ro": "0",
		"sys/block/sr0/size": "100", "sys/block/loop0/size": "100", "sys/block/dm-0/size": "100",
		"sys/block/sdb/size": "0", "sys/block/sdc/size": "5", "sys/block/sdc/ro": "1",
		"sys/block/cciss!c0d0/size": "7", "sys/block/sdd/size": "9", "sys/block/sdd/removable": "1",
	})
	disks, err := c.WholeDisks()
	if err != nil || !slices.Equal(disks, []string{"/dev/cciss/c0d0", "/dev/vda"}) {
		t.Errorf("%v, %v", disks, err)
	}
}

func TestIdentity(t *testing.T) {
	a := Identity{Hostname: "web", MachineID: "m1", DMIUUID: "u1", MACs: []string{"aa", "bb"}, Disks: []string{"/dev/sda"}}
	change := func(f func(*Identity)) Identity { b := a; f(&b); return b }
	same := map[string]Identity{
		"renamed":     change(func(i *Identity) { i.Hostname = "www" }),
		"new card":    change(func(i *Identity) { i.MACs = []string{"cc"} }),
		"added disk":  change(func(i *Identity) { i.Disks = []string{"/dev/sda", "/dev/sdb"} }),
		"nothing new": a,
	}
	for name, b := range same {
		if b.HardwareID() != a.HardwareID() {
			t.Errorf("%s: became another server", name)
		}
	}
	img := change(func(i *Identity) { i.Image, i.Disks = true, []string{"/a.img", "/b.img"} })
	bare := change(func(i *Identity) { i.MachineID, i.DMIUUID = "", "" })
	others := map[string]Identity{
		"machine":        a,
		"other id":       change(func(i *Identity) { i.MachineID = "m2" }),
		"other firmware": change(func(i *Identity) { i.DMIUUID = "u2" }),
		"named":          change(func(i *Identity) { i.Named = true }),
		"named else":     change(func(i *Identity) { i.Named, i.Hostname = true, "www" }),
		"shifted":        change(func(i *Identity) { i.MachineID, i.DMIUUID = "m1u", "1" }),
		"image":          img,
		"other image":    {Image: true, Hostname: "web", MachineID: "m1", Disks: []string{"/a.img"}},
		"other name":     {Image: true, Hostname: "www", MachineID: "m1", Disks: []string{"/a.img"}},
		"other host":     {Image: true, Hostname: "web", MachineID: "m2", Disks: []string{"/a.img"}},
		"cards":          bare,
		"other cards":    {Hostname: "web", MACs: []string{"aa"}},
	}
	seen := map[string]string{}
	for name, b := range others {
		id := b.HardwareID()
		if other, twice := seen[id]; twice {
			t.Errorf("%s and %s are one server", name, other)
		}
		seen[id] = name
	}
	swapped := img
	swapped.Disks = []string{"/b.img", "/a.img"}
	if swapped.HardwareID() != img.HardwareID() {
		t.Error("the order of disks made another server")
	}
}
