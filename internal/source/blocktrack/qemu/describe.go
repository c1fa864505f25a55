package qemu

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"lifeboat/internal/drs"
	"lifeboat/internal/qmp"
)

// Description is what QEMU tells of its machine.
type Description struct {
	Name         string // by -name; empty: none was given
	UUID         string // empty: none was given
	Architecture string // x86_64 or arm64, or what QEMU calls another
	CPUs         []drs.CPU
	Memory       int64 // bytes
	BootMode     drs.BootMode
	Cards        []drs.NetworkInterface // by their MAC addresses only
	// Buses and Images have one entry for each of the Devices, in order. An image is
	// what QEMU calls it: the path of a file, often.
	Buses  []drs.DiskBus
	Images []string
}

const noUUID = "00000000-0000-0000-0000-000000000000"

// Describe asks QEMU about the machine. The guest is not asked.
func (t *Tracker) Describe(ctx context.Context) (Description, error) {
	if err := t.connect(ctx); err != nil {
		return Description{}, err
	}
	d, err := t.m.describe(ctx, t.disks)
	if err != nil {
		return d, fmt.Errorf("ask QEMU about its machine: %w", err)
	}
	return d, nil
}

func (m *machine) describe(ctx context.Context, disks []*disk) (d Description, err error) {
	var uuid struct{ UUID string }
	var name struct{ Name string }
	var target struct{ Arch string }
	var memory struct {
		Base    int64 `json:"base-memory"`
		Plugged int64 `json:"plugged-memory"`
	}
	for _, q := range []struct {
		command string
		result  any
	}{{"query-uuid", &uuid}, {"query-name", &name}, {"query-target", &target}, {"query-memory-size-summary", &memory}} {
		if err := m.do(ctx, q.command, nil, q.result); err != nil {
			return d, err
		}
	}
	d.Name, d.UUID, d.Architecture, d.Memory = name.Name, uuid.UUID, target.Arch, memory.Base+memory.Plugged
	if d.UUID == noUUID {
		d.UUID = ""
	}
	if d.Architecture == "aarch64" {
		d.Architecture = "arm64"
	}
	if d.CPUs, err = m.cpus(ctx); err != nil {
		return d, err
	}
	if d.Cards, err = m.cards(ctx); err != nil {
		return d, err
	}
	drives, err := m.drives(ctx)
	if err != nil {
		return d, err
	}
	d.BootMode, err = m.bootMode(ctx, d.Architecture, drives)
	if err != nil {
		return d, err
	}
	for _, disk := range disks {
		bus, image := drs.DiskBus(""), ""
		for _, drive := range drives {
			if drive.name() == disk.name && drive.Inserted != nil {
				image = drive.Inserted.File
				if bus, err = m.bus(ctx, drive); err != nil {
					return d, err
				}
			}
		}
		d.Buses, d.Images = append(d.Buses, bus), append(d.Images, image)
	}
	return d, nil
}

// property reads a property of an object of the machine; the zero value where it has
// none of that name.
func property[T any](ctx context.Context, m *machine, object, name string) (value T, err error) {
	var refused *qmp.Error
	err = m.do(ctx, "qom-get", args{"path": object, "property": name}, &value)
	if errors.As(err, &refused) {
		err = nil
	}
	return value, err
}

// cpus counts the processors that the guest has of each socket.
func (m *machine) cpus(ctx context.Context) ([]drs.CPU, error) {
	var all []struct {
		Path  string `json:"qom-path"`
		Props struct {
			Socket int `json:"socket-id"`
		} `json:"props"`
	}
	if err := m.do(ctx, "query-cpus-fast", nil, &all); err != nil {
		return nil, err
	}
	model := ""
	if len(all) > 0 {
		var err error
		if model, err = property[string](ctx, m, all[0].Path, "model-id"); err != nil {
			return nil, err
		}
	}
	if model == "" {
		model = "QEMU"
	}
	var cpus []drs.CPU
	at := map[int]int{}
	for _, c := range all {
		i, seen := at[c.Props.Socket]
		if !seen {
			i = len(cpus)
			at[c.Props.Socket] = i
			cpus = append(cpus, drs.CPU{ModelName: model})
		}
		cpus[i].Cores++
	}
	return cpus, nil
}

// cards lists the network cards: the devices with an address of that kind.
func (m *machine) cards(ctx context.Context) (cards []drs.NetworkInterface, err error) {
	type entry struct{ Name, Type string }
	for _, folder := range []string{"/machine/peripheral", "/machine/peripheral-anon", "/machine/unattached"} {
		var devices []entry
		if err := m.do(ctx, "qom-list", args{"path": folder}, &devices); err != nil {
			return nil, err
		}
		for _, dev := range devices {
			if !strings.HasPrefix(dev.Type, "child<") {
				continue
			}
			mac, err := property[string](ctx, m, folder+"/"+dev.Name, "mac")
			if err != nil {
				return nil, err
			}
			if mac != "" {
				cards = append(cards, drs.NetworkInterface{MAC: mac, Primary: len(cards) == 0})
			}
		}
	}
	return cards, nil
}

// bootMode tells the firmware by the flash memory that UEFI lies in; a machine with
// neither that nor a firmware of that name has the BIOS of its kind.
func (m *machine) bootMode(ctx context.Context, arch string, drives []drive) (drs.BootMode, error) {
	for _, d := range drives {
		if d.Inserted != nil && d.flash() {
			return drs.BootUEFI, nil
		}
	}
	firmware, err := property[string](ctx, m, "/machine", "firmware")
	if err != nil {
		return "", err
	}
	for _, name := range []string{"ovmf", "edk2", "aavmf", "uefi"} {
		if strings.Contains(strings.ToLower(firmware), name) {
			return drs.BootUEFI, nil
		}
	}
	if arch == "x86_64" {
		return drs.BootBIOS, nil
	}
	return drs.BootUnknown, nil
}

// bus tells how a disk is attached, by the kind of its device.
func (m *machine) bus(ctx context.Context, d drive) (drs.DiskBus, error) {
	kind, err := property[string](ctx, m, d.object(), "type")
	switch {
	case strings.HasPrefix(kind, "virtio-blk"):
		return drs.BusVirtio, err
	case strings.HasPrefix(kind, "nvme"):
		return drs.BusNVMe, err
	case strings.HasPrefix(kind, "ide"):
		return drs.BusSATA, err
	case strings.HasPrefix(kind, "scsi"):
		return drs.BusSCSI, err
	}
	return "", err
}
