package machine_test

import (
	"errors"
	"strings"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/machine"
)

func TestCheck(t *testing.T) {
	good := func() machine.Spec {
		return machine.Spec{
			ID: "i-0123456789abcdef0", Name: "web", CPUs: 2, Memory: 1 << 30, Firmware: drs.BootBIOS,
			Disks: []machine.Disk{{Socket: "/run/nbd", Export: "vol"}},
			NICs:  []machine.NIC{{MAC: "52:54:00:12:34:56", Network: machine.Isolated}, {Network: machine.Bridge("br0")}},
		}
	}
	if err := good().Check(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil func(*machine.Spec)
		want  string
	}{
		"ID":                 {func(s *machine.Spec) { s.ID = "../i-0123456789abcdef0" }, "recovery instance ID"},
		"name":               {func(s *machine.Spec) { s.Name = "a\nb" }, "printable"},
		"no CPU":             {func(s *machine.Spec) { s.CPUs = 0 }, "0 CPUs"},
		"too many CPUs":      {func(s *machine.Spec) { s.CPUs = 256 }, "256 CPUs"},
		"memory":             {func(s *machine.Spec) { s.Memory = 1<<30 + 1 }, "whole MiB"},
		"firmware":           {func(s *machine.Spec) { s.Firmware = "" }, "set the server's boot mode"},
		"no disk":            {func(s *machine.Spec) { s.Disks = nil }, "0 disks"},
		"too many disks":     {func(s *machine.Spec) { s.Disks = make([]machine.Disk, 61) }, "61 disks"},
		"relative socket":    {func(s *machine.Spec) { s.Disks[0].Socket = "nbd" }, "absolute path"},
		"export":             {func(s *machine.Spec) { s.Disks[0].Export = strings.Repeat("x", 4097) }, "export name"},
		"bus":                {func(s *machine.Spec) { s.Disks[0].Bus = "floppy" }, "floppy"},
		"serial":             {func(s *machine.Spec) { s.Disks[0].Serial = strings.Repeat("x", 21) }, "serial"},
		"read-only SATA":     {func(s *machine.Spec) { s.Disks[0].Bus, s.Disks[0].ReadOnly = drs.BusSATA, true }, "read-only"},
		"MAC":                {func(s *machine.Spec) { s.NICs[0].MAC = "52:54:00" }, "MAC"},
		"MAC of a group":     {func(s *machine.Spec) { s.NICs[0].MAC = "01:54:00:12:34:56" }, "MAC"},
		"network":            {func(s *machine.Spec) { s.NICs[0].Network = "internet" }, "internet"},
		"bridge with a path": {func(s *machine.Spec) { s.NICs[0].Network = "bridge=../x" }, "interface name"},
		"too many NICs":      {func(s *machine.Spec) { s.NICs = make([]machine.NIC, 16) }, "16 network interfaces"},
	} {
		t.Run(name, func(t *testing.T) {
			s := good()
			c.spoil(&s)
			if err := s.Check(); !errors.Is(err, machine.ErrSpec) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one that says %q", err, c.want)
			}
		})
	}
}

// TestIdentityIsStable: guests remember these; a change would look like new
// hardware to each of them.
func TestIdentityIsStable(t *testing.T) {
	const id drs.RecoveryInstanceID = "i-0123456789abcdef0"
	for got, want := range map[string]string{
		machine.UUID(id):          "ddd841ff-528f-8011-932f-546e75645b63",
		machine.GenerationID(id):  "e4b3d360-c58f-8ce9-8eb6-88a70042fca4",
		machine.DerivedMAC(id, 0): "52:54:00:42:f8:8f",
		machine.DerivedMAC(id, 1): "52:54:00:ee:71:4b",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
