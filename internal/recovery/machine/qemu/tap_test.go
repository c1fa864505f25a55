package qemu_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/recovery/machine"
)

// TestBridge plugs a machine into a real bridge; its interface must be a member
// while it runs, and be gone with it.
func TestBridge(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may make a bridge")
	}
	ip := need(t, "ip")
	const bridge = "lifeboattest"
	if out, err := exec.Command(ip, "link", "add", bridge, "type", "bridge").CombinedOutput(); err != nil {
		t.Skipf("no bridge can be made here: %s", out)
	}
	t.Cleanup(func() { exec.Command(ip, "link", "delete", bridge).Run() })
	members := func() int {
		m, err := filepath.Glob("/sys/class/net/" + bridge + "/brif/*")
		if err != nil {
			t.Fatal(err)
		}
		return len(m)
	}
	s := newSite(t, t.TempDir())
	spec := specFor(serveGuest(t, halt, "plugged"))
	spec.NICs = []machine.NIC{{Network: machine.Bridge(bridge)}, {Network: machine.Bridge(bridge)}}
	s.start(t, spec)
	waitConsole(t, s.ConsolePath(spec.ID), "plugged", 1)
	if n := members(); n != 2 {
		t.Errorf("%d members while the machine runs, want 2", n)
	}
	if err := s.Destroy(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	if n := members(); n != 0 {
		t.Errorf("%d members after destroy", n)
	}
}

func TestMissingBridge(t *testing.T) {
	s := newSite(t, t.TempDir())
	if _, err := net.InterfaceByName("nosuchbridge"); err == nil {
		t.Skip("somebody has a bridge of that name")
	}
	spec := specFor(serveGuest(t, halt, "never"))
	spec.NICs = []machine.NIC{{Network: machine.Bridge("nosuchbridge")}}
	_, err := s.Start(t.Context(), spec)
	if err == nil || !strings.Contains(err.Error(), "create it, or change") {
		t.Errorf("error %v, want one that tells the next step", err)
	}
	if err := s.Destroy(t.Context(), spec.ID); err != nil {
		t.Error(err)
	}
}
