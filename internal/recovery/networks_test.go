package recovery_test

import (
	"strings"
	"testing"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/machine"
)

var origin = drs.Account{ID: "444455556666", Region: "eu-west-1"}

// connect makes a source network and puts servers into it.
func (s *site) connect(t *testing.T, vpc string, servers ...drs.SourceServerID) drs.SourceNetwork {
	t.Helper()
	n, err := s.CreateSourceNetwork(t.Context(), account, origin, vpc, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range servers {
		err := s.db.ChangeTags(t.Context(), drs.Resource{Account: account, Type: drs.TypeSourceServer, ID: string(id)}, func(tags drs.Tags) error {
			tags[drs.SourceNetworkTag] = string(n.ID)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func (s *site) recoverNetworks(t *testing.T, r drs.StartNetworkRecovery) (drs.Job, []drs.JobLogItem) {
	t.Helper()
	job, err := s.StartSourceNetworkRecovery(t.Context(), account, r)
	if err != nil {
		t.Fatal(err)
	}
	return s.finish(t, job.ID)
}

func (s *site) network(t *testing.T, id drs.SourceNetworkID) drs.SourceNetwork {
	t.Helper()
	all, _, err := s.db.SourceNetworks(t.Context(), account, db.SourceNetworkFilter{IDs: []drs.SourceNetworkID{id}}, db.Page{Limit: 1})
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	return all[0]
}

// launchInto launches a server and tells what its machine is plugged into.
func (s *site) launchInto(t *testing.T, server drs.SourceServerID, drill bool) machine.Network {
	t.Helper()
	r := ask(server)
	r.Drill = drill
	job, log := s.launch(t, r)
	if job.Servers[0].Status != drs.LaunchLaunched {
		t.Fatal(events(log))
	}
	for _, m := range s.machines.running() {
		if m.ID == job.Servers[0].Instance {
			return m.NICs[0].Network
		}
	}
	t.Fatal("no machine")
	return ""
}

func TestNetworkRecovery(t *testing.T) {
	s := newSite(t)
	ids := protectAll(t, s, "one", "two", "outside")
	n := s.connect(t, "vpc-0123456789abcdef0", ids[:2]...)
	one := []drs.ParticipatingNetwork{{SourceNetwork: n.ID}}

	_, err := s.StartSourceNetworkRecovery(t.Context(), account, drs.StartNetworkRecovery{Networks: one})
	refusedAs(t, err, drs.KindConflict, "STOPPED")
	refusedAs(t, s.ExportSourceNetwork(t.Context(), account, n.ID), drs.KindConflict, "STOPPED")
	if on, err := s.ReplicateSourceNetwork(t.Context(), account, n.ID, true); err != nil || on.Status != drs.NetworkProtected || len(on.Configuration.Servers) != 2 {
		t.Fatalf("%+v %v", on, err)
	}
	_, err = s.ReplicateSourceNetwork(t.Context(), account, n.ID, true)
	refusedAs(t, err, drs.KindConflict, "already")

	job, log := s.recoverNetworks(t, drs.StartNetworkRecovery{Networks: one})
	if want := "JOB_START DEPLOY_NETWORK_CONFIGURATION_START DEPLOY_NETWORK_CONFIGURATION_END UPDATE_LAUNCH_TEMPLATE_START UPDATE_LAUNCH_TEMPLATE_END JOB_END"; events(log) != want {
		t.Errorf("log %s", events(log))
	}
	if job.Initiated != drs.CreatedNetwork || len(job.Networks) != 1 || job.Networks[0].Status != drs.LaunchLaunched {
		t.Errorf("%+v", job)
	}
	if log[2].Network == nil || log[2].Network.SourceVPC != n.VPC || log[2].Network.Stack == "" {
		t.Errorf("%+v", log[2].Network)
	}
	got := s.network(t, n.ID)
	if got.Last.Result != drs.NetworkRecovered || got.Last.Job != job.ID || got.Stack == "" || !strings.HasPrefix(got.LaunchedVPC, "vpc-") {
		t.Errorf("%+v", got)
	}

	// Its servers share a network of their own, drill or not; others do not.
	mine := s.launchInto(t, ids[0], true)
	if _, segment := mine.SegmentName(); !segment || s.launchInto(t, ids[1], false) != mine {
		t.Errorf("machines go to %s", mine)
	}
	if other := s.launchInto(t, ids[2], false); other != machine.UserNAT {
		t.Errorf("a server outside goes to %s", other)
	}

	// Again: the same stack. As new: another one.
	job, log = s.recoverNetworks(t, drs.StartNetworkRecovery{Networks: one})
	if job.Initiated != drs.UpdatedNetwork || !strings.Contains(events(log), "UPDATE_NETWORK_CONFIGURATION_START UPDATE_NETWORK_CONFIGURATION_END") {
		t.Errorf("%s %s", job.Initiated, events(log))
	}
	if s.launchInto(t, ids[0], true) != mine {
		t.Error("an update moved the machines")
	}
	one[0].Stack = "another"
	_, err = s.StartSourceNetworkRecovery(t.Context(), account, drs.StartNetworkRecovery{Networks: one})
	refusedAs(t, err, drs.KindConflict, "deployAsNew")
	s.recoverNetworks(t, drs.StartNetworkRecovery{Networks: one, DeployAsNew: true})
	if next := s.launchInto(t, ids[0], true); next == mine || s.network(t, n.ID).Stack != "another" {
		t.Errorf("as new: %s", next)
	}
	_, err = s.StartSourceNetworkRecovery(t.Context(), account, drs.StartNetworkRecovery{Networks: one, DeployAsNew: true})
	refusedAs(t, err, drs.KindConflict, "already")

	if err := s.ExportSourceNetwork(t.Context(), account, n.ID); err != nil {
		t.Fatal(err)
	}
	if text, err := s.db.NetworkTemplate(t.Context(), account, n.ID); err != nil || !strings.Contains(string(text), "AWS::EC2::VPC") {
		t.Errorf("%s %v", text, err)
	}
	refusedAs(t, s.DeleteSourceNetwork(t.Context(), account, n.ID), drs.KindConflict, "PROTECTED")
	if _, err := s.ReplicateSourceNetwork(t.Context(), account, n.ID, false); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteSourceNetwork(t.Context(), account, n.ID); err != nil {
		t.Fatal(err)
	}
	refusedAs(t, s.DeleteSourceNetwork(t.Context(), account, n.ID), drs.KindNotFound, "")
}

// A network may be given one that is there. A drill goes to it only where nobody
// else can be reached.
func TestAssociateNetwork(t *testing.T) {
	s := newSite(t)
	ids := protectAll(t, s, "one", "two")
	n := s.connect(t, "vpc-0123456789abcdef0", ids[0])
	m := s.connect(t, "vpc-0123456789abcdef1", ids[1])
	_, err := s.AssociateSourceNetwork(t.Context(), account, n.ID, "no-such-stack")
	refusedAs(t, err, drs.KindValidation, "no-such-stack")
	_, err = s.AssociateSourceNetwork(t.Context(), account, n.ID, "lo")
	refusedAs(t, err, drs.KindValidation, "lo") // an interface, but no bridge

	associate := func(id drs.SourceNetworkID, stack string) {
		t.Helper()
		job, err := s.AssociateSourceNetwork(t.Context(), account, id, stack)
		if err != nil {
			t.Fatal(err)
		}
		done, log := s.finish(t, job.ID)
		if done.Initiated != drs.AssociatedNetwork || events(log) != "JOB_START UPDATE_LAUNCH_TEMPLATE_START UPDATE_LAUNCH_TEMPLATE_END JOB_END" {
			t.Errorf("%s %s", done.Initiated, events(log))
		}
		if got := s.network(t, id); got.Last.Result != drs.NetworkAssociated || got.Stack != stack {
			t.Errorf("%+v", got)
		}
	}
	associate(n.ID, "isolated")
	if got := s.launchInto(t, ids[0], false); got != machine.Isolated {
		t.Errorf("a recovery goes to %s", got)
	}
	s.config.DrillNetwork = machine.Isolated
	associate(n.ID, "user")
	if real, drill := s.launchInto(t, ids[0], false), s.launchInto(t, ids[0], true); real != machine.UserNAT || drill != machine.Isolated {
		t.Errorf("a recovery goes to %s, a drill to %s", real, drill)
	}

	// Two networks may meet in one stack.
	if _, err := s.ReplicateSourceNetwork(t.Context(), account, n.ID, true); err != nil {
		t.Fatal(err)
	}
	s.recoverNetworks(t, drs.StartNetworkRecovery{DeployAsNew: true, Networks: []drs.ParticipatingNetwork{{SourceNetwork: n.ID, Stack: "both"}}})
	associate(m.ID, "both")
	if a, b := s.launchInto(t, ids[0], true), s.launchInto(t, ids[1], true); a != b {
		t.Errorf("%s and %s", a, b)
	}
}

// No account sends its machines off the host but where all recoveries go, or where
// the operator lets it: that is asked again at each launch.
func TestNetworksThatLeadOffTheHost(t *testing.T) {
	s := newSite(t)
	s.stop()
	let := map[machine.Network]bool{}
	s.config.RecoveryNetwork = machine.Isolated
	s.config.MayLead = func(of drs.Account, n machine.Network) bool { return of == account && let[n] }
	s.run(t)
	ids := protectAll(t, s, "one")
	n := s.connect(t, "vpc-0123456789abcdef0", ids[0])
	_, err := s.AssociateSourceNetwork(t.Context(), account, n.ID, "user")
	refusedAs(t, err, drs.KindValidation, "operator")

	let[machine.UserNAT] = true
	job, err := s.AssociateSourceNetwork(t.Context(), account, n.ID, "user")
	if err != nil {
		t.Fatal(err)
	}
	s.finish(t, job.ID)
	if got := s.launchInto(t, ids[0], false); got != machine.UserNAT {
		t.Errorf("a recovery goes to %s", got)
	}
	delete(let, machine.UserNAT)
	done, log := s.launch(t, ask(ids[0]))
	if done.Servers[0].Status != drs.LaunchFailed || !strings.Contains(log[len(log)-2].RawError, "may not use the network user") {
		t.Errorf("%s: %+v", events(log), log[len(log)-2])
	}
}

// A fault of this program at a network ends its part, not the process.
func TestAFaultAtANetworkEndsItsPart(t *testing.T) {
	s := newSite(t)
	s.stop()
	fault := false
	s.config.RecoveryNetwork = machine.Isolated
	s.config.MayLead = func(drs.Account, machine.Network) bool {
		if fault {
			panic("a fault")
		}
		return true
	}
	s.run(t)
	n := s.connect(t, "vpc-0123456789abcdef0")
	s.stop()
	job, err := s.AssociateSourceNetwork(t.Context(), account, n.ID, "user")
	if err != nil {
		t.Fatal(err)
	}
	fault = true
	s.run(t)
	done, log := s.finish(t, job.ID)
	if done.Networks[0].Status != drs.LaunchFailed || events(log) != "JOB_START NETWORK_RECOVERY_FAIL JOB_END" || !strings.Contains(log[1].RawError, "a fault") {
		t.Errorf("%s: %+v", events(log), done.Networks)
	}
	if got := s.network(t, n.ID); got.Last.Result != drs.NetworkAssociateFailed {
		t.Errorf("%+v", got.Last)
	}
}

func TestNetworkRefusals(t *testing.T) {
	s := newSite(t)
	n := s.connect(t, "vpc-0123456789abcdef0")
	_, err := s.CreateSourceNetwork(t.Context(), account, origin, n.VPC, nil)
	refusedAs(t, err, drs.KindConflict, n.VPC)
	_, err = s.StartSourceNetworkRecovery(t.Context(), account, drs.StartNetworkRecovery{Networks: []drs.ParticipatingNetwork{{SourceNetwork: "sn-00000000000000000"}}})
	refusedAs(t, err, drs.KindConflict, "does not exist")
	if _, err := s.ReplicateSourceNetwork(t.Context(), account, n.ID, true); err != nil {
		t.Fatal(err)
	}
	twice := []drs.ParticipatingNetwork{{SourceNetwork: n.ID, Stack: "a"}, {SourceNetwork: n.ID, Stack: "b"}}
	_, err = s.StartSourceNetworkRecovery(t.Context(), account, drs.StartNetworkRecovery{Networks: twice})
	refusedAs(t, err, drs.KindConflict, "twice")

	// One job at a time.
	s.stop()
	job, err := s.AssociateSourceNetwork(t.Context(), account, n.ID, "user")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.AssociateSourceNetwork(t.Context(), account, n.ID, "user")
	refusedAs(t, err, drs.KindConflict, string(job.ID))
	s.run(t)
	s.finish(t, job.ID)
}
