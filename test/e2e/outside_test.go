package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/drs"

	"lifeboat/internal/demo/guest"
	"lifeboat/internal/qmp"
)

// busyMachine runs a machine that takes orders without a pause, and gives it two QMP
// sockets: one for the agent, one for the test.
func busyMachine(t *testing.T) (m *guest.Machine, image, socket string, control *qmp.Conn) {
	t.Helper()
	image = filepath.Join(t.TempDir(), "source.img")
	if err := guest.Build(t.Context(), guest.Spec{Hostname: "harbour", Orders: &guest.Orders{PerSecond: 10}}, image); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "lbo") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, "agent")
	m, err = guest.Start(context.WithoutCancel(t.Context()), guest.Config{Image: image, QMPSocket: socket, Args: []string{
		"-name", "harbour", "-uuid", "7d3e1c52-0b1f-4c8e-9a44-1df0c2a9e0aa", "-qmp", "unix:" + dir + "/control,server=on,wait=off",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Kill)
	see(t, m.Console, 0, guest.WorkloadRunning)
	nc, err := new(net.Dialer).DialContext(t.Context(), "unix", filepath.Join(dir, "control"))
	if err == nil {
		control, err = qmp.New(t.Context(), nc)
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range control.Events() { // somebody must take them
		}
	}()
	t.Cleanup(func() { _ = control.Close() })
	return m, image, socket, control
}

// A busy machine with nothing of Lifeboat inside is protected through its QEMU. Its
// agent is killed and stopped again and again, and the one after it goes on without
// reading all; then all dies but the server, and the machine that
// comes back has every order up to its last point.
func TestAMachineProtectedFromOutside(t *testing.T) {
	in := install(t)
	m, image, socket, control := busyMachine(t)
	state := filepath.Join(t.TempDir(), "agent")
	protect := func() *process {
		return start(t, "agent", "--server", in.env["AWS_ENDPOINT_URL"], "--ca-cert", in.env["AWS_CA_BUNDLE"], "--token", in.env["LIFEBOAT_TOKEN"],
			"--state", state, "--tracker", "qemu", "--qmp", socket, "--epoch", "1s", "--log-level", "debug")
	}
	agent := protect()
	server := in.waitContinuous(t, agent)
	more := func(n int) {
		t.Helper()
		want := len(in.points(t, server)) + n
		eventually(t, fmt.Sprintf("%d points", want), func() (string, bool) {
			have := len(in.points(t, server))
			return fmt.Sprint(have), have >= want
		})
	}
	for i := range 4 {
		more(1)
		if i%2 == 0 {
			agent.kill() // in a cut, or between two
		} else if err := agent.stop(t); err != nil {
			t.Fatal(err)
		}
		agent = protect()
		agent.waitFor(t, "only what changed is read")
	}
	more(2)

	out, err := in.drs.DescribeSourceServers(t.Context(), &drs.DescribeSourceServersInput{})
	if err != nil || len(out.Items) != 1 {
		t.Fatalf("source servers: %v, %v", out, err)
	}
	p := out.Items[0].SourceProperties
	if p.RamBytes != 256<<20 || len(p.Cpus) != 1 || p.Cpus[0].Cores != 1 || aws.ToString(p.IdentificationHints.Hostname) != "harbour" ||
		len(p.NetworkInterfaces) != 1 || len(p.Disks) != 1 {
		t.Errorf("the machine is told as %+v", p)
	}

	// Paused, it can be read a second time: the newest point is that.
	if err := control.Run(t.Context(), "stop", nil, nil); err != nil {
		t.Fatal(err)
	}
	want := fileDigest(t, image)
	file := filepath.Join(t.TempDir(), "export.img")
	eventually(t, "the newest point is the paused disk", func() (string, bool) {
		points := in.points(t, server)
		newest := aws.ToString(points[len(points)-1].SnapshotID)
		_ = os.Remove(file) // of another round
		if _, errs, code := lifeboat(t, in.env, "export", server, "--point", newest, "--disk", "0", "--output", file); code != 0 {
			t.Fatalf("export: exit %d: %s", code, errs)
		}
		return newest, fileDigest(t, file) == want
	})
	if err := control.Run(t.Context(), "cont", nil, nil); err != nil {
		t.Fatal(err)
	}

	before := m.Console.LastDurable()
	more(2) // the second was begun after that
	m.Kill()
	agent.kill()
	instance := in.launched(t, in.recover(t, server, false))
	found := see(t, in.console(t, instance), 0, guest.OrdersFound)
	ledger, err := guest.ParseLedger(found)
	if err != nil || !ledger.Whole() || ledger.Last < before {
		t.Errorf("found %q (%v), want a whole ledger with at least %d orders", found.Text, err, before)
	}
	t.Logf("%d of %d orders, %d at the time of the last point but one", ledger.Last, m.Console.LastDurable(), before)
}
