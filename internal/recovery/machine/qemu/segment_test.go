package qemu

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/recovery/machine"
)

// What a machine on a segment sends is heard by whoever is on the same segment,
// and by nobody on another.
func TestSegment(t *testing.T) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Fatal("QEMU is missing: make test installs it")
	}
	one, two := segmentAddress("one"), segmentAddress("two")
	if one == two {
		t.Fatal("two segments have one address")
	}
	loopback, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	listen := func(address string) *net.UDPConn {
		at, err := net.ResolveUDPAddr("udp4", address)
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.ListenMulticastUDP("udp4", loopback, at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	same, other := listen(one), listen(two)

	// The machine's arguments, of which only the network's matter: it has no disk to
	// boot from, but its card announces itself when it is told to.
	a := &arguments{}
	const mac = "52:54:00:ab:cd:ef"
	a.nics(machine.Spec{NICs: []machine.NIC{{MAC: mac, Network: machine.Segment("one")}}})
	cmd := exec.CommandContext(t.Context(), qemu, append([]string{
		"-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-accel", "tcg", "-qmp", "stdio",
	}, a.list...)...)
	var problems strings.Builder
	cmd.Stderr = &problems
	orders, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // it has nothing to lose
		_ = cmd.Wait()
	}()
	lines := bufio.NewScanner(answers)
	for _, order := range []string{`{"execute":"qmp_capabilities"}`,
		`{"execute":"announce-self","arguments":{"initial":10,"max":50,"rounds":50,"step":10}}`} {
		if !lines.Scan() { // the greeting, then what the order before it was answered
			t.Fatalf("QEMU says nothing: %s", problems.String())
		}
		if _, err := fmt.Fprintln(orders, order); err != nil {
			t.Fatal(err)
		}
	}
	hardware, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, 2048)
	if err := same.SetReadDeadline(time.Now().Add(3 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	n, err := same.Read(frame)
	if err != nil || n < 14 || !bytes.Equal(frame[6:12], hardware) {
		t.Errorf("heard %x, %v, want a frame of %s; QEMU: %s", frame[:n], err, mac, problems.String())
	}
	if err := other.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if n, err := other.Read(frame); err == nil {
		t.Errorf("another segment hears %x", frame[:n])
	}
}
