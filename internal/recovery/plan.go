package recovery

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/convert"
	"lifeboat/internal/recovery/machine"
)

// launchPlan is what was decided about a machine before it is started.
type launchPlan struct {
	spec       machine.Spec
	properties drs.InstanceProperties
	conversion drs.Conversion
	note       string // what differs from the source, for the job's log
}

// plan looks at the boot disk and decides the machine that is to run on it. Same
// disks, same plan: a launch that is repeated gets the machine of the first.
//
// promised is a sentence about memory, see crowded.
func (s *Service) plan(server drs.SourceServer, instance drs.RecoveryInstance, disks []exportedDisk, promised string) (launchPlan, error) {
	if len(disks) == 0 {
		return launchPlan{}, fmt.Errorf("recovery point %s holds no disks", instance.Point)
	}
	disks = drs.InDiskOrder(server.DisksBootFirst(), disks, func(d exportedDisk) drs.DiskName {
		return drs.DiskName{Device: d.volume.Device, Identity: d.volume.Identity}
	})
	boot := disks[0]
	layout, err := convert.Inspect(boot.log, boot.volume.Size)
	if err != nil {
		return launchPlan{}, fmt.Errorf("look at boot disk %s: %w", boot.volume.Device, err)
	}
	fit := convert.Fit(server.Properties, layout, s.Host)
	network, err := s.networkOf(server, instance.Drill)
	if err != nil {
		return launchPlan{}, err
	}
	p := launchPlan{
		spec: machine.Spec{
			ID: instance.ID, Name: printable(server.Properties.Hostname), CPUs: fit.CPUs, Memory: fit.Memory, Firmware: fit.Firmware,
		},
		properties: drs.InstanceProperties{
			LastUpdated: now(), Hostname: server.Properties.Hostname, FQDN: server.Properties.FQDN,
			CPUs: []drs.CPU{{Cores: fit.CPUs, ModelName: "virtual"}}, RAMBytes: fit.Memory, OS: server.Properties.OS,
			BootMode: fit.Firmware, Network: string(network),
		},
		conversion: drs.Conversion{
			RootVolume: boot.volume.Device, ForceUEFI: fit.Firmware == drs.BootUEFI,
			DataTimestamp: instance.PointTaken, VolumeSizes: map[string]int64{},
		},
		note: sentences(fit.Notes...),
	}
	p.note = sentences(p.note, promised)
	if !strings.Contains(p.note, layout.Why) {
		p.note = sentences("Boot disk: "+layout.Why+".", p.note)
	}
	buses := map[string]drs.DiskBus{} // by the source's name of the disk
	for n, d := range server.Properties.Disks {
		if n < len(fit.Buses) {
			buses[d.Device] = fit.Buses[n]
		}
	}
	for _, d := range disks {
		bus, known := buses[d.volume.Device]
		if !known {
			bus = drs.BusVirtio
		}
		p.spec.Disks = append(p.spec.Disks, machine.Disk{Socket: s.Socket, Export: diskName(instance.ID, d.volume.ID), Bus: bus})
		p.properties.Disks = append(p.properties.Disks, drs.Disk{Device: d.volume.Device, Bytes: d.volume.Size, Bus: bus})
		p.conversion.VolumeSizes[d.volume.Device] = d.volume.Size
	}
	p.plugIn(server.Properties.NetworkInterfaces, instance.ID, network)
	if server.LaunchConfiguration.CopyPrivateIP {
		p.note = sentences(p.note, p.address(server.Properties.NetworkInterfaces))
	}
	return p, nil
}

// crowded tells, when it is so, that the machines which run here were promised
// more memory than the host has. It is no reason not to recover: guests seldom use
// all of theirs, and the alternative is none at all.
func (s *Service) crowded(ctx context.Context, server drs.SourceServer) (string, error) {
	instances, err := s.DB.AllInstances(ctx)
	if err != nil {
		return "", err
	}
	total, machines := server.Properties.RAMBytes, 0
	for _, i := range instances {
		if i.State == drs.InstanceRunning && i.SourceServer != server.ID {
			total += i.Properties.RAMBytes
			machines++
		}
	}
	if machines == 0 || total <= s.Host.Memory {
		return "", nil
	}
	return fmt.Sprintf("With the %d machines that run here already, %s of memory are promised, and this host has %s: "+
		"if they use it, the host will end some of them.", machines, humanize.IBytes(uint64(total)), humanize.IBytes(uint64(s.Host.Memory))), nil
}

// plugIn gives the machine the source's network cards. Its addresses are given
// anew by the network it is plugged into.
func (p *launchPlan) plugIn(source []drs.NetworkInterface, id drs.RecoveryInstanceID, network machine.Network) {
	for _, nic := range source {
		if len(p.spec.NICs) == maxNICs {
			break
		}
		if mac, err := net.ParseMAC(nic.MAC); err == nil && len(mac) == 6 && mac[0]&1 == 0 { // an Ethernet card's
			p.spec.NICs = append(p.spec.NICs, machine.NIC{MAC: nic.MAC, Network: network})
		}
	}
	if len(p.spec.NICs) == 0 {
		p.spec.NICs = []machine.NIC{{MAC: machine.DerivedMAC(id, 0), Network: network}}
	}
	for n, nic := range p.spec.NICs {
		p.properties.NetworkInterfaces = append(p.properties.NetworkInterfaces, drs.NetworkInterface{MAC: nic.MAC, Primary: n == 0})
	}
}

// address gives the primary network card the private IP address that it has on the
// source, and says what became of that.
func (p *launchPlan) address(source []drs.NetworkInterface) (note string) {
	from := primary(source)
	at := max(0, slices.IndexFunc(p.spec.NICs, func(n machine.NIC) bool { return n.MAC == from.MAC }))
	nic := &p.spec.NICs[at]
	if nic.Network != machine.Isolated && nic.Network != machine.UserNAT {
		return fmt.Sprintf("The network %s gives out its own addresses: the source's private IP address is not copied.", nic.Network)
	}
	for _, text := range from.IPs {
		if ip, err := netip.ParseAddr(text); err == nil && ip.Is4() && ip.IsPrivate() {
			nic.Address = ip.String()
			p.properties.NetworkInterfaces[at].IPs = []string{nic.Address}
			return fmt.Sprintf("Its network gives the machine the source's private IP address %s by DHCP.", ip)
		}
	}
	return "The source has no private IPv4 address that could be copied."
}

// primary is the network card that leads to the rest of the world, or the first.
func primary(nics []drs.NetworkInterface) drs.NetworkInterface {
	if i := slices.IndexFunc(nics, func(n drs.NetworkInterface) bool { return n.Primary }); i >= 0 {
		return nics[i]
	}
	if len(nics) > 0 {
		return nics[0]
	}
	return drs.NetworkInterface{}
}

// maxNICs is what fits on a machine's bus beside its disks.
const maxNICs = 8

// printable drops what has no place in a process list.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s[:min(len(s), 255)])
}

// sentences joins what there is to one text.
func sentences(s ...string) string {
	var out []string
	for _, one := range s {
		if one != "" {
			out = append(out, one)
		}
	}
	return strings.Join(out, " ")
}
