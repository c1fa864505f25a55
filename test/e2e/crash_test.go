package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/drs"
	"github.com/aws/aws-sdk-go-v2/service/drs/types"

	"lifeboat/internal/demo/guest"
)

// A server that is killed at any moment of a recovery goes on with it after its
// restart: the job completes, one machine runs, and no step is told twice.
func TestServerKilledDuringRecovery(t *testing.T) {
	in := install(t)
	image, _ := knownImage(t)
	agent, server := in.startAgent(t, image, "--hostname", "harbour")
	agent.kill()

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for round := range 6 {
		out, err := in.drs.StartRecovery(t.Context(), &drs.StartRecoveryInput{
			SourceServers: []types.StartRecoveryRequestSourceServer{{SourceServerID: aws.String(server)}},
		})
		if err != nil {
			t.Fatal(err)
		}
		// Not synchronisation: the moment of the kill is what is varied.
		time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
		in.server.kill()
		in.startServer(t)

		job := in.waitJob(t, aws.ToString(out.Job.JobID))
		instance := in.launched(t, job)
		log := in.jobEvents(t, aws.ToString(job.JobID))
		seen := map[types.JobLogEvent]bool{}
		for _, l := range log {
			if seen[l.Event] {
				t.Errorf("round %d: %s is told twice: %s", round, l.Event, eventNames(log))
			}
			seen[l.Event] = true
		}
		if last := log[len(log)-1].Event; last != types.JobLogEventJobEnd {
			t.Errorf("round %d: the log ends with %s", round, last)
		}
		if machines := in.machines(t); len(machines) != 1 || machines[instance] == 0 {
			t.Errorf("round %d: machines that run: %v, want %s", round, machines, instance)
		}
	}
}

// A machine keeps its disk while its server is killed and comes back; and when
// the machine itself is killed too, it has every order that it had confirmed.
func TestARunningMachineKeepsItsDisk(t *testing.T) {
	in := install(t)
	image := filepath.Join(t.TempDir(), "shop.img")
	err := guest.Build(t.Context(), guest.Spec{Hostname: "shop", Orders: &guest.Orders{PerSecond: 10}}, image)
	if err != nil {
		t.Fatal(err)
	}
	agent, server := in.startAgent(t, image, "--hostname", "shop")
	agent.kill()
	instance := in.launched(t, in.recover(t, server, false))
	console := in.console(t, instance)
	from := see(t, console, 0, guest.WorkloadRunning).Next

	for range 3 {
		in.server.kill()
		in.startServer(t)
		// Orders that are confirmed after the restart were flushed to the new server.
		for range 5 {
			from = see(t, console, from, guest.OrderDurable).Next
		}
	}

	// The host dies: server and machine at once.
	in.server.kill()
	if err := in.rig.QuitMachines(); err != nil {
		t.Fatal(err)
	}
	confirmed := console.LastDurable()
	from = len(console.Lines(0))
	in.startServer(t)
	found := see(t, console, from, guest.OrdersFound)
	ledger, err := guest.ParseLedger(found)
	if err != nil {
		t.Fatal(err)
	}
	if !ledger.Whole() || ledger.Last < confirmed {
		t.Errorf("the machine had confirmed order %d; found after its restart: %+v", confirmed, ledger)
	}
	see(t, console, found.Next, guest.OrderDurable)
}

// The agent may be killed at any moment of a sync: what is in the vault then is
// the image or an earlier whole state of it.
func TestAgentKilledWhileItSyncs(t *testing.T) {
	in := install(t)
	image := filepath.Join(t.TempDir(), "disk.img")
	state := filepath.Join(t.TempDir(), "state")
	random := rand.New(rand.NewPCG(1, 2))
	content := make([]byte, 48<<20)
	for i := 0; i < len(content); i += 8 << 20 {
		block := content[i : i+4<<20]
		for j := range block {
			block[j] = byte(random.Uint32())
		}
	}
	if err := os.WriteFile(image, content, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"agent", "--server", in.env["AWS_ENDPOINT_URL"], "--ca-cert", in.env["AWS_CA_BUNDLE"], "--token", in.env["LIFEBOAT_TOKEN"],
		"--state", state, "--disk", image, "--hostname", "killed",
	}
	for range 5 {
		agent := start(t, args...)
		time.Sleep(time.Duration(random.IntN(250)) * time.Millisecond) // the moment of the kill is what is varied
		agent.kill()
	}
	agent := start(t, args...)
	server := in.waitContinuous(t, agent)
	file := filepath.Join(t.TempDir(), "export.img")
	if _, errs, code := lifeboat(t, in.env, "export", server, "--disk", "0", "--output", file); code != 0 {
		t.Fatalf("export: exit %d: %s", code, errs)
	}
	if got, want := fileDigest(t, file), fileDigest(t, image); got != want {
		t.Errorf("exported %s, want %s", got, want)
	}
	servers, err := in.drs.DescribeSourceServers(t.Context(), &drs.DescribeSourceServersInput{})
	if err != nil || len(servers.Items) != 1 {
		t.Errorf("a killed agent registered again as another server: %s, %v", fmt.Sprint(len(servers.Items)), err)
	}
}
