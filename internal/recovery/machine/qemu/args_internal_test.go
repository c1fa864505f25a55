package qemu

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/machine"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestCommandLine compares whole command lines, as an operator sees them.
func TestCommandLine(t *testing.T) {
	disks := func(n int, bus drs.DiskBus) (list []machine.Disk) {
		for i := range n {
			list = append(list, machine.Disk{Socket: "/run/lifeboat/nbd", Export: fmt.Sprintf("i-1/%d", i), Bus: bus})
		}
		return list
	}
	uefi := firmware{code: flash{"/usr/share/OVMF/OVMF_CODE_4M.fd", "raw"}, vars: flash{"/usr/share/OVMF/OVMF_VARS_4M.fd", "raw"}}
	base := machine.Spec{ID: "i-0123456789abcdef0", CPUs: 2, Memory: 2 << 30, Firmware: drs.BootBIOS}
	for _, c := range []struct {
		name  string
		spec  func(*machine.Spec)
		accel accelerator
		fw    firmware
	}{
		{"bios", func(s *machine.Spec) {
			s.Name, s.Disks = "web, one", disks(1, "")
			s.NICs = []machine.NIC{{Network: machine.Isolated}, {Network: machine.UserNAT, MAC: "52:54:00:00:00:01"}, {Network: machine.Bridge("br0")}}
		}, emulation("test"), firmware{}},
		{"uefi", func(s *machine.Spec) { s.Disks = disks(2, drs.BusNVMe) }, kvm, uefi},
		{"sata", func(s *machine.Spec) { s.Disks = disks(8, drs.BusSATA) }, kvm, firmware{}},
		{"scsi", func(s *machine.Spec) { s.Disks = disks(3, drs.BusSCSI) }, kvm, firmware{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := base
			c.spec(&spec)
			got := oneOptionALine(commandLine(spec, c.accel, c.fw))
			path := filepath.Join("testdata", c.name+".args")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func oneOptionALine(args []string) string {
	var b strings.Builder
	for i, a := range args {
		if i > 0 {
			b.WriteString(map[bool]string{true: "\n", false: " "}[strings.HasPrefix(a, "-")])
		}
		b.WriteString(a)
	}
	return b.String() + "\n"
}

// A network of QEMU's own that gives out a given address has its own places
// elsewhere.
func TestAddressed(t *testing.T) {
	for address, want := range map[string]string{
		"":              "",
		"no address":    "",
		"fe80::1":       "",
		"10.1.2.200":    ",net=10.1.2.0/24,dhcpstart=10.1.2.200,host=10.1.2.2,dns=10.1.2.3",
		"192.168.122.2": ",net=192.168.122.0/24,dhcpstart=192.168.122.2,host=192.168.122.4,dns=192.168.122.5",
		"172.16.0.3":    ",net=172.16.0.0/24,dhcpstart=172.16.0.3,host=172.16.0.4,dns=172.16.0.5",
	} {
		if got := addressed(address); got != want {
			t.Errorf("%q: %q, want %q", address, got, want)
		}
	}
}
