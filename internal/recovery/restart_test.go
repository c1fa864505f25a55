package recovery_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/machine"
)

// stuckMachines cannot be removed before their process ends.
type stuckMachines struct {
	*idleMachines
	entered chan struct{}
}

func (m *stuckMachines) Destroy(ctx context.Context, _ drs.RecoveryInstanceID) error {
	m.entered <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

// A launch that has failed stays failed, also when the process ends before what
// there was of it is removed; the next one removes it.
func TestAFailedLaunchIsNotTriedAgain(t *testing.T) {
	s := newSite(t)
	server, _ := s.protect(t, "one")
	s.stop()
	stuck := &stuckMachines{s.machines, make(chan struct{}, 9)}
	s.machines.refuse = errors.New("no memory")
	s.config.Machines = stuck
	s.run(t)
	job, err := s.StartRecovery(t.Context(), account, ask(server))
	if err != nil {
		t.Fatal(err)
	}
	<-stuck.entered
	s.stop()
	s.machines.refuse, s.config.Machines = nil, s.machines
	s.run(t)
	done, log := s.finish(t, job.ID)
	if done.Servers[0].Status != drs.LaunchFailed || len(s.machines.running()) != 0 {
		t.Errorf("status %s, log %s", done.Servers[0].Status, events(log))
	}
	settle(t, "the leavings are removed", func() bool { return len(s.instances(t)) == 0 })
}

// What a machine wrote is never replaced by nothing in silence.
func TestALostLogIsNotMadeAnew(t *testing.T) {
	s := newSite(t)
	server, _ := s.protect(t, "one")
	s.launch(t, ask(server))
	id := s.instances(t)[0].ID
	s.stop()
	clear(s.machines.specs) // the host went down
	if err := os.RemoveAll(filepath.Join(s.config.Dir, string(id), "disk-0")); err != nil {
		t.Fatal(err)
	}
	s.run(t)
	settle(t, "the record says that the machine does not run", func() bool { return s.instances(t)[0].State == drs.InstanceNotFound })
	if len(s.machines.running()) != 0 {
		t.Error("the machine runs without what it wrote")
	}
	if _, err := s.StartInstance(t.Context(), account, id); err == nil || !strings.Contains(err.Error(), "has lost what the machine wrote") {
		t.Errorf("start: %v", err)
	}
}

// Machines that are wanted run again after their host went down, and those that
// were switched off do not.
func TestWantedMachinesRunAgain(t *testing.T) {
	s := newSite(t)
	var ids []drs.RecoveryInstanceID
	for _, name := range []string{"running", "stopped", "off", "killed"} {
		server, _ := s.protect(t, name)
		s.launch(t, ask(server))
		all := s.instances(t)
		ids = append(ids, all[len(all)-1].ID)
	}
	if _, err := s.StopInstance(t.Context(), account, ids[1]); err != nil {
		t.Fatal(err)
	}
	s.MachineChanged(machine.Change{Status: machine.Status{ID: ids[2], State: machine.Stopped, Reason: "the guest powered off"}})
	s.MachineChanged(machine.Change{Status: machine.Status{ID: ids[3], State: machine.Failed, Reason: "killed"}})
	s.stop()
	clear(s.machines.specs)
	s.run(t)
	settle(t, "two machines run", func() bool { return len(s.machines.running()) == 2 })
	s.stop()
	for _, m := range s.machines.running() {
		if m.ID != ids[0] && m.ID != ids[3] {
			t.Errorf("%s runs", m.ID)
		}
	}
}

// slowMachines hold the first Start until it is let go.
type slowMachines struct {
	*idleMachines
	entered, gate chan struct{}
}

func (m *slowMachines) Start(ctx context.Context, s machine.Spec) (machine.Started, error) {
	select {
	case m.entered <- struct{}{}:
		<-m.gate
	default:
	}
	return m.idleMachines.Start(ctx, s)
}

// An instance that is terminated while machines are started again is not.
func TestATerminatedMachineIsNotRevived(t *testing.T) {
	s := newSite(t)
	one, _ := s.protect(t, "one")
	two, _ := s.protect(t, "two")
	s.launch(t, ask(one, two))
	s.stop()
	clear(s.machines.specs)
	slow := &slowMachines{s.machines, make(chan struct{}, 1), make(chan struct{})}
	s.config.Machines, s.config.Launches = slow, 1
	s.run(t)
	settle(t, "the first is being started", func() bool { return len(slow.entered) == 1 })
	var job drs.Job
	for _, i := range s.instances(t) { // one of the two is held, the other one waits
		var err error
		if job, err = s.TerminateRecoveryInstances(t.Context(), account, []drs.RecoveryInstanceID{i.ID}); err != nil {
			t.Fatal(err)
		}
	}
	close(slow.gate)
	s.finish(t, job.ID)
	settle(t, "both are gone", func() bool { return len(s.instances(t)) == 0 })
	s.stop()
	if left := s.machines.running(); len(left) != 0 {
		t.Errorf("terminated machines run: %+v", left)
	}
	if dirs, _ := filepath.Glob(filepath.Join(s.config.Dir, "i-*")); len(dirs) != 0 {
		t.Errorf("files left: %v", dirs)
	}
}

// Whoever is connected to a disk does not keep its instance from being removed.
func TestTerminateHangsUpOnTheDisksGuests(t *testing.T) {
	s := newSite(t)
	server, _ := s.protect(t, "one")
	s.launch(t, ask(server))
	id := s.instances(t)[0].ID
	nc, err := net.Dial("unix", s.config.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.ReadFull(nc, make([]byte, 18)); err != nil { // the greeting
		t.Fatal(err)
	}
	name := string(id) + "/0"
	request := append(binary.BigEndian.AppendUint32(nil, 3), "IHAVEOPT\x00\x00\x00\x01"...)
	request = append(binary.BigEndian.AppendUint32(request, uint32(len(name))), name...)
	if _, err := nc.Write(request); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(nc, make([]byte, 10)); err != nil { // size and flags: we are in
		t.Fatal(err)
	}
	job, err := s.TerminateRecoveryInstances(t.Context(), account, []drs.RecoveryInstanceID{id})
	if err != nil {
		t.Fatal(err)
	}
	if done, log := s.finish(t, job.ID); done.Servers[0].Status != drs.LaunchTerminated {
		t.Errorf("%s: %s", done.Servers[0].Status, events(log))
	}
}

// A fault of ours while one server is launched is that server's failure.
func TestAFaultFailsOneServer(t *testing.T) {
	s := newSite(t)
	bad, _ := s.protect(t, "bad")
	good, _ := s.protect(t, "good")
	s.agents[bad] = func(context.Context) (drs.RecoveryPoint, error) { panic("a bug") }
	done, log := s.launch(t, ask(bad, good))
	if done.Servers[0].Status != drs.LaunchFailed || done.Servers[1].Status != drs.LaunchLaunched {
		t.Errorf("%+v: %s", done.Servers, events(log))
	}
}

// A removal once begun is not undone by what the machine does meanwhile.
func TestRemovalIsNotUndone(t *testing.T) {
	s := newSite(t)
	server, _ := s.protect(t, "one")
	s.launch(t, ask(server))
	id := s.instances(t)[0].ID
	if _, err := s.db.MoveInstance(t.Context(), id, drs.InstanceShuttingDown, nil); err != nil {
		t.Fatal(err)
	}
	for _, state := range []machine.State{machine.Stopped, machine.Running, machine.Failed, machine.Absent} {
		s.MachineChanged(machine.Change{Status: machine.Status{ID: id, State: state}})
		if now := s.instances(t)[0].State; now != drs.InstanceShuttingDown {
			t.Errorf("machine %s: instance %s", state, now)
		}
	}
	var e *drs.Error
	if _, err := s.StartInstance(t.Context(), account, id); !errors.As(err, &e) || e.Kind != drs.KindConflict {
		t.Errorf("start: %v", err)
	}
}
