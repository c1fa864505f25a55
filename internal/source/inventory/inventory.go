package inventory

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/internal/drs"
)

// Overrides are what the user knows better. Zero values leave what was found.
type Overrides struct {
	Hostname string
	CPUs     int   // cores, in one socket
	Memory   int64 // bytes
	BootMode drs.BootMode
}

// Disk is one replicated disk, already opened by the caller.
type Disk struct {
	Device string // absolute path
	Bytes  int64
	Block  bool // a block device of this machine, not an image file
}

// ImageMachine is what is assumed of a machine that is known by its disk images
// only, where the user says nothing: the least that a Linux server gets.
const (
	imageCPUs   = 1
	imageMemory = 1 << 30
)

// Collector reads the machine. The zero value reads the one it runs on; Root
// redirects /proc, /sys and /etc, for tests.
type Collector struct {
	Root string
}

// Collect describes the source server that the disks belong to. Where all are
// image files, the host that the agent runs on lends only its name.
func (c Collector) Collect(disks []Disk, o Overrides) (drs.SourceProperties, error) {
	host, err := os.Hostname()
	if err != nil {
		return drs.SourceProperties{}, fmt.Errorf("take inventory: %w", err)
	}
	p := drs.SourceProperties{
		LastUpdated:  time.Now().UTC(),
		Hostname:     host,
		Architecture: architecture(),
	}
	if OnlyImages(disks) {
		p.CPUs = []drs.CPU{{Cores: imageCPUs, ModelName: "not known"}}
		p.RAMBytes = imageMemory
		p.OS = "linux"
	} else {
		p.FQDN = c.fqdn(host)
		p.MachineID = c.machineID()
		p.VMwareUUID = c.vmwareUUID()
		p.CPUs = c.cpus()
		p.RAMBytes = c.memory()
		p.OS = c.os()
		p.BootMode = c.bootMode()
		if p.NetworkInterfaces, err = c.interfaces(); err != nil {
			return drs.SourceProperties{}, fmt.Errorf("take inventory: %w", err)
		}
	}
	p.Disks = c.Disks(disks)
	o.Apply(&p)
	return p, nil
}

// Apply puts what the user knows better in the place of what was found.
func (o Overrides) Apply(p *drs.SourceProperties) {
	if o.Hostname != "" && o.Hostname != p.Hostname {
		p.Hostname, p.FQDN = o.Hostname, ""
	}
	if o.CPUs > 0 {
		model := "not known"
		if len(p.CPUs) > 0 {
			model = p.CPUs[0].ModelName
		}
		p.CPUs = []drs.CPU{{Cores: o.CPUs, ModelName: model}}
	}
	if o.Memory > 0 {
		p.RAMBytes = o.Memory
	}
	if o.BootMode != drs.BootUnknown {
		p.BootMode = o.BootMode
	}
}

// Disks describes the disks.
func (c Collector) Disks(disks []Disk) (out []drs.Disk) {
	for _, d := range disks {
		out = append(out, drs.Disk{Device: d.Device, Bytes: d.Bytes, Bus: c.bus(d)})
	}
	return out
}

// OnlyImages tells whether no disk is a block device of this machine.
func OnlyImages(disks []Disk) bool {
	return !slices.ContainsFunc(disks, func(d Disk) bool { return d.Block })
}

// path is where a file of the machine lies for this collector.
func (c Collector) path(name string) string { return filepath.Join(c.Root, "/", name) }

// line is the trimmed content of a small file, empty when there is none.
func (c Collector) line(name string) string {
	raw, err := os.ReadFile(c.path(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

func architecture() string {
	if runtime.GOARCH == "arm64" {
		return "arm64"
	}
	return "x86_64"
}

func (c Collector) machineID() string {
	if id := c.line("etc/machine-id"); id != "" && id != "uninitialized" {
		return id
	}
	return c.line("var/lib/dbus/machine-id")
}

// DMIUUID is the firmware's name of the machine; only root may read it.
func (c Collector) DMIUUID() string {
	uuid := strings.ToLower(c.line("sys/class/dmi/id/product_uuid"))
	if strings.Trim(uuid, "0-") == "" || strings.Trim(uuid, "f-") == "" {
		return "" // what firmware says that has none, on any number of machines
	}
	return uuid
}

// RecoveryInstance is the ID, i-…, of the recovery instance that this machine is;
// empty when it is none. Its firmware says so.
func (c Collector) RecoveryInstance() string {
	if c.line("sys/class/dmi/id/sys_vendor") != "Lifeboat" {
		return ""
	}
	return c.line("sys/class/dmi/id/product_serial")
}

func (c Collector) vmwareUUID() string {
	if strings.Contains(c.line("sys/class/dmi/id/sys_vendor"), "VMware") {
		return c.DMIUUID()
	}
	return ""
}

func (c Collector) bootMode() drs.BootMode {
	if _, err := os.Stat(c.path("sys/firmware/efi")); err == nil {
		return drs.BootUEFI
	}
	return drs.BootBIOS
}

// os is the DRS form "linux <kernel>" and the distribution's own name.
func (c Collector) os() string {
	text := "linux"
	if release := c.line("proc/sys/kernel/osrelease"); release != "" {
		text += " " + release
	}
	for line := range strings.Lines(c.line("etc/os-release")) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return text + " (" + strings.Trim(name, `"'`) + ")"
		}
	}
	return text
}

func (c Collector) memory() int64 {
	f, err := os.Open(c.path("proc/meminfo"))
	if err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			var kib int64
			if n, _ := fmt.Sscanf(lines.Text(), "MemTotal: %d kB", &kib); n == 1 {
				return kib << 10
			}
		}
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(uint64(info.Totalram) * uint64(info.Unit))
}

// fqdn asks /etc/hosts, not the network: an inventory must not hang on DNS.
func (c Collector) fqdn(host string) string {
	if strings.Contains(host, ".") {
		return host
	}
	for line := range strings.Lines(c.line("etc/hosts")) {
		line, _, _ = strings.Cut(line, "#")
		names := strings.Fields(line)
		if len(names) < 2 || !slices.Contains(names[1:], host) {
			continue
		}
		for _, name := range names[1:] {
			if strings.HasPrefix(name, host+".") {
				return name
			}
		}
	}
	return host
}

// cpus counts the distinct cores of each socket; where /proc/cpuinfo does not
// tell sockets, all processors are one.
func (c Collector) cpus() []drs.CPU {
	sockets := map[string]map[string]bool{}
	var order []string
	var socket, core, model, processor string
	flush := func() {
		if processor == "" {
			return
		}
		if sockets[socket] == nil {
			sockets[socket] = map[string]bool{}
			order = append(order, socket)
		}
		if core == "" {
			core = "processor " + processor
		}
		sockets[socket][core] = true
		socket, core, processor = "", "", ""
	}
	for line := range strings.Lines(c.line("proc/cpuinfo") + "\n\n") {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "":
			flush()
		case "processor":
			flush()
			processor = value
		case "physical id":
			socket = value
		case "core id":
			core = value
		case "model name":
			model = value
		}
	}
	flush()
	var cpus []drs.CPU
	for _, s := range order {
		cpus = append(cpus, drs.CPU{Cores: len(sockets[s]), ModelName: model})
	}
	if len(cpus) == 0 {
		cpus = []drs.CPU{{Cores: runtime.NumCPU(), ModelName: model}}
	}
	return cpus
}

func (c Collector) interfaces() ([]drs.NetworkInterface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	primary := c.primaryInterface()
	var found []drs.NetworkInterface
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 || len(i.HardwareAddr) == 0 {
			continue
		}
		card := drs.NetworkInterface{MAC: i.HardwareAddr.String(), Primary: i.Name == primary}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", i.Name, err)
		}
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLinkLocalUnicast() {
				card.IPs = append(card.IPs, ip.IP.String())
			}
		}
		found = append(found, card)
	}
	if len(found) > 0 && !slices.ContainsFunc(found, func(n drs.NetworkInterface) bool { return n.Primary }) {
		found[0].Primary = true
	}
	return found, nil
}

// primaryInterface is the one with the default route of the lowest metric.
func (c Collector) primaryInterface() string {
	best, name := int64(-1), ""
	for line := range strings.Lines(c.line("proc/net/route")) {
		f := strings.Fields(line)
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" {
			continue
		}
		metric, err := strconv.ParseInt(f[6], 10, 64)
		if err == nil && (best < 0 || metric < best) {
			best, name = metric, f[0]
		}
	}
	return name
}

// bus tells how a block device is attached, from where it hangs in sysfs.
func (c Collector) bus(d Disk) drs.DiskBus {
	if !d.Block {
		return ""
	}
	name := filepath.Base(d.Device)
	if real, err := filepath.EvalSymlinks(d.Device); err == nil {
		name = filepath.Base(real)
	}
	where, err := filepath.EvalSymlinks(c.path("sys/class/block/" + name))
	if err != nil {
		return ""
	}
	switch {
	case strings.Contains(where, "/nvme"):
		return drs.BusNVMe
	case strings.Contains(where, "/virtio"):
		return drs.BusVirtio
	case strings.Contains(where, "/ata"):
		return drs.BusSATA
	case strings.Contains(where, "/host"):
		return drs.BusSCSI
	}
	return ""
}

// WholeDisks lists the paths of the machine's disks that could be replicated:
// no partitions, no memory disks, nothing empty, read-only or removable.
func (c Collector) WholeDisks() ([]string, error) {
	entries, err := os.ReadDir(c.path("sys/block"))
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	var disks []string
	for _, e := range entries {
		name := e.Name()
		switch {
		case strings.HasPrefix(name, "loop"), strings.HasPrefix(name, "ram"), strings.HasPrefix(name, "zram"),
			strings.HasPrefix(name, "dm-"), strings.HasPrefix(name, "md"), strings.HasPrefix(name, "sr"),
			strings.HasPrefix(name, "fd"), strings.HasPrefix(name, "nbd"):
			continue
		case c.line("sys/block/"+name+"/size") == "0", c.line("sys/block/"+name+"/ro") == "1",
			c.line("sys/block/"+name+"/removable") == "1":
			continue
		}
		disks = append(disks, "/dev/"+strings.ReplaceAll(name, "!", "/"))
	}
	return disks, nil
}
