package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/drs"

	"lifeboat/internal/demo/guest"
)

// A busy machine is protected from within. What it becomes when it is recovered holds
// its agent, too, with its state: that one must not write over the history it came
// from, but say what it is.
func TestRecoveredMachineDoesNotReplicateOverItsSource(t *testing.T) {
	in := install(t)
	image := filepath.Join(t.TempDir(), "within.img")
	err := guest.Build(t.Context(), guest.Spec{
		Hostname: "within", SizeMiB: 256, Orders: &guest.Orders{PerSecond: 5},
		Agent: &guest.Agent{
			Binary: binary, Server: strings.Replace(in.env["AWS_ENDPOINT_URL"], "127.0.0.1", guest.HostAddress, 1),
			CAFile: in.env["AWS_CA_BUNDLE"], Token: in.env["LIFEBOAT_TOKEN"], Args: []string{"--tracker", "ebpf", "--epoch", "1s"},
		},
	}, image)
	if err != nil {
		t.Fatal(err)
	}
	source, err := guest.Start(t.Context(), guest.Config{Image: image, MemoryMiB: 512, CPUs: 2, Network: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(source.Kill)
	var server string
	eventually(t, "consistent recovery points of a machine that is never at rest", func() (string, bool) {
		if ended, yes := source.Console.Last(guest.AgentEnded); yes {
			t.Fatal(ended.Text)
		}
		out, err := in.drs.DescribeSourceServers(t.Context(), &drs.DescribeSourceServersInput{})
		if err != nil {
			t.Fatal(err)
		}
		if len(out.Items) == 0 {
			return source.Console.Tail(2), false
		}
		server = aws.ToString(out.Items[0].SourceServerID)
		n := len(in.points(t, server))
		return fmt.Sprintf("%d points", n), n >= 2
	})
	source.Kill()
	confirmed := source.Console.LastDurable()
	in.server.waitFor(t, `agent disconnected`)
	points := in.points(t, server)

	instance := in.launched(t, in.recover(t, server, false))
	console := in.console(t, instance)
	ledger, err := guest.ParseLedger(see(t, console, 0, guest.OrdersFound))
	if err != nil || !ledger.Whole() || ledger.Last == 0 || ledger.Last > confirmed+1 {
		t.Errorf("%+v of %d orders came back, %v", ledger, confirmed, err)
	}
	ended := see(t, console, 0, guest.AgentEnded)
	if !strings.Contains(ended.Text, "recovery instance "+instance) || !strings.Contains(ended.Text, "--state") {
		t.Errorf("its agent said: %s", ended.Text)
	}
	if after := in.points(t, server); len(after) != len(points) {
		t.Errorf("its source had %d points when it died and has %d now", len(points), len(after))
	}
}
