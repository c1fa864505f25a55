package qemu

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/machine"
)

// File descriptors that QEMU inherits, in order after its standard streams.
const (
	lockFD    = 3 // keeps the machine's lock for as long as QEMU lives
	controlFD = 4 // the listening QMP socket
	tapFD     = 5 // the first of the bridged interfaces; the others follow
)

// Places on the PCI bus. They are fixed, so that a guest finds its devices where
// it left them after every restart, whatever the version of QEMU.
const (
	slotVGA    = 0x01
	slotRNG    = 0x02
	slotSerial = 0x03
	slotPanic  = 0x04
	slotDisks  = 0x08 // eight functions each, up to 0x0f
	slotNICs   = 0x10 // one each, up to 0x1e
)

// commandLine returns QEMU's arguments: a pure function of the machine, what
// executes it and its firmware. Paths are relative to the machine's directory.
func commandLine(spec machine.Spec, accel accelerator, fw firmware) []string {
	a := &arguments{}
	a.add("-name", "guest="+escape(displayName(spec))+",debug-threads=on")
	a.add("-nodefaults")
	a.add("-no-user-config")
	a.add("-display", "none")
	// The guest is foreign code: should it break out into QEMU, it can start no
	// program and gain no rights.
	a.add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny")
	a.add("-S") // wait for the order to begin, so that the first instruction is a known moment
	a.add("-pidfile", pidFile)
	a.add("-chardev", fmt.Sprintf("socket,id=control,fd=%d,server=on,wait=off", controlFD))
	a.add("-mon", "chardev=control,mode=control")

	a.add("-accel", accel.option)
	a.add("-cpu", accel.cpu)
	a.add("-smp", fmt.Sprintf("cpus=%d,sockets=1,cores=%d,threads=1", spec.CPUs, spec.CPUs))
	a.add("-m", strconv.FormatInt(spec.Memory>>20, 10)+"M")
	a.add("-uuid", machine.UUID(spec.ID))
	a.add("-smbios", "type=1,manufacturer=Lifeboat,product=Recovery instance,serial="+escape(string(spec.ID)))
	a.add("-rtc", "base=utc,driftfix=slew")
	a.add("-boot", "menu=off,strict=on")
	// A guest whose kernel panics may restart by itself, as it would on metal.
	a.add("-action", "panic=none")
	a.firmware(fw)

	a.device("VGA", at(slotVGA))
	a.device("vmgenid", "guid="+machine.GenerationID(spec.ID))
	a.device("pvpanic-pci", at(slotPanic))
	a.add("-object", "rng-random,filename=/dev/urandom,id=rng")
	a.device("virtio-rng-pci", "rng=rng", at(slotRNG))
	a.add("-chardev", "socket,id=console,path="+consoleSocket+",server=on,wait=off,logfile="+consoleFile+",logappend=on")
	a.add("-serial", "chardev:console")
	a.add("-chardev", "socket,id=agent,path="+agentSocket+",server=on,wait=off")
	a.device("virtio-serial-pci", at(slotSerial))
	a.device("virtserialport", "chardev=agent", "name=org.qemu.guest_agent.0")

	a.disks(spec.Disks)
	a.nics(spec)
	return a.list
}

func displayName(spec machine.Spec) string {
	if spec.Name == "" {
		return string(spec.ID)
	}
	return spec.Name + " (" + string(spec.ID) + ")"
}

// arguments collects the command line.
type arguments struct {
	list      []string
	functions int // PCI functions given to disks and their controllers
	sata      int
	scsi      int
}

func (a *arguments) add(args ...string) { a.list = append(a.list, args...) }

func (a *arguments) device(parts ...string) { a.add("-device", strings.Join(parts, ",")) }

// blockdev adds a node of the block layer. JSON needs no escaping of foreign names.
func (a *arguments) blockdev(node map[string]any) {
	text, err := json.Marshal(node)
	if err != nil {
		panic(err) // strings, numbers and maps of them always encode
	}
	a.add("-blockdev", string(text))
}

func (a *arguments) firmware(fw firmware) {
	if fw.code.path == "" {
		a.add("-machine", "q35")
		return
	}
	a.blockdev(map[string]any{"node-name": "uefi-code", "driver": fw.code.format, "read-only": true,
		"file": map[string]any{"driver": "file", "filename": fw.code.path}})
	a.blockdev(map[string]any{"node-name": "uefi-vars", "driver": fw.vars.format,
		"file": map[string]any{"driver": "file", "filename": varsFile}})
	a.add("-machine", "q35,pflash0=uefi-code,pflash1=uefi-vars")
}

func (a *arguments) disks(disks []machine.Disk) {
	for i, d := range disks {
		node := "disk" + strconv.Itoa(i)
		a.blockdev(map[string]any{
			"node-name":       node,
			"driver":          "nbd",
			"server":          map[string]any{"type": "unix", "path": diskLink(i)},
			"export":          d.Export,
			"reconnect-delay": int(machine.ReconnectDelay.Seconds()),
			"read-only":       d.ReadOnly,
			"discard":         "unmap",
			"detect-zeroes":   "off",
			// The guest sees a disk with a write cache and flushes it; its flushes
			// reach the server as they are.
			"cache": map[string]any{"direct": false, "no-flush": false},
		})
		serial := d.Serial
		if serial == "" {
			serial = node
		}
		options := []string{"drive=" + node, "serial=" + escape(serial)}
		if i == 0 {
			options = append(options, "bootindex=0")
		}
		a.disk(d.Bus, options)
	}
}

// disk attaches a disk to its bus. SATA and SCSI controllers come when needed.
func (a *arguments) disk(bus drs.DiskBus, options []string) {
	const sataPorts, scsiTargets = 6, 64
	switch bus {
	case drs.BusNVMe:
		a.device(append([]string{"nvme", a.nextFunction()}, options...)...)
	case drs.BusSATA:
		controller, port := a.sata/sataPorts, a.sata%sataPorts
		a.sata++
		if controller == 0 { // q35 has the first six ports built in
			a.device(append([]string{"ide-hd", fmt.Sprintf("bus=ide.%d", port)}, options...)...)
			return
		}
		if port == 0 {
			a.device("ich9-ahci", fmt.Sprintf("id=sata%d", controller), a.nextFunction())
		}
		a.device(append([]string{"ide-hd", fmt.Sprintf("bus=sata%d.%d", controller, port)}, options...)...)
	case drs.BusSCSI:
		if a.scsi == 0 {
			a.device("virtio-scsi-pci", "id=scsi", a.nextFunction())
		}
		a.device(append([]string{"scsi-hd", fmt.Sprintf("bus=scsi.0,scsi-id=%d", a.scsi%scsiTargets)}, options...)...)
		a.scsi++
	default:
		a.device(append([]string{"virtio-blk-pci", a.nextFunction()}, options...)...)
	}
}

// nextFunction is the next free place among those for disks.
func (a *arguments) nextFunction() string {
	n := a.functions
	a.functions++
	return fmt.Sprintf("addr=0x%x.%d,multifunction=on", slotDisks+n/8, n%8)
}

func (a *arguments) nics(spec machine.Spec) {
	tap := tapFD
	for i, n := range spec.NICs {
		id := "net" + strconv.Itoa(i)
		_, bridged := n.Network.BridgeName()
		segment, shared := n.Network.SegmentName()
		switch {
		case bridged:
			a.add("-netdev", fmt.Sprintf("tap,id=%s,fd=%d", id, tap))
			tap++
		case shared:
			a.add("-netdev", "socket,id="+id+",mcast="+segmentAddress(segment)+",localaddr=127.0.0.1")
		case n.Network == machine.UserNAT:
			a.add("-netdev", "user,id="+id+addressed(n.Address))
		default:
			a.add("-netdev", "user,id="+id+",restrict=on"+addressed(n.Address))
		}
		mac := n.MAC
		if mac == "" {
			mac = machine.DerivedMAC(spec.ID, i)
		}
		// No option ROM: nothing is ever booted from the network.
		a.device("virtio-net-pci", "netdev="+id, "mac="+mac, at(slotNICs+i), "romfile=")
	}
}

// segmentAddress is the multicast group, on the host's loopback, that carries the
// frames of a segment. It takes no privilege, and nothing of it leaves the host.
// Two segments share a group once in 2^33; their machines would see each other.
func segmentAddress(name string) string {
	h := sha256.Sum256([]byte("lifeboat segment " + name))
	port := 1024 + (int(h[3])<<8|int(h[4]))%(1<<15)
	return fmt.Sprintf("239.%d.%d.%d:%d", 192+h[0]&3, h[1], h[2], port)
}

// addressed makes a network of QEMU's own that gives its only guest the address: one
// of 256 around it, in which the places of gateway and name server are free.
func addressed(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil || !ip.Is4() {
		return ""
	}
	guest := ip.As4()
	place := func(last byte) string { return netip.AddrFrom4([4]byte{guest[0], guest[1], guest[2], last}).String() }
	gateway, names := byte(2), byte(3)
	if guest[3] == gateway || guest[3] == names {
		gateway, names = 4, 5
	}
	return fmt.Sprintf(",net=%s/24,dhcpstart=%s,host=%s,dns=%s", place(0), ip, place(gateway), place(names))
}

func at(slot int) string { return fmt.Sprintf("addr=0x%x", slot) }

// escape makes a value safe inside a list of options.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
