package recovery

import (
	"context"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/machine"
)

// MachineChanged keeps the state that a machine entered in its instance's record.
func (s *Service) MachineChanged(c machine.Change) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	instance, err := s.DB.InstanceByID(ctx, c.ID)
	if err != nil {
		s.Log.Debug("a machine without a record changed", "instance", c.ID, "state", c.State, "err", err)
		return
	}
	to := instanceState(c.State)
	if !follows(instance.State, to) {
		return
	}
	s.Log.Info("machine changed", "instance", c.ID, "state", c.State, "reason", c.Reason)
	if err := s.DB.SetInstanceState(ctx, c.ID, to); err != nil {
		s.Log.Error("state of a machine was not kept", "instance", c.ID, "state", c.State, "err", err)
	}
}

// followMachine brings the record in line with how the machine stands now.
func (s *Service) followMachine(ctx context.Context, id drs.RecoveryInstanceID) error {
	status, err := s.Machines.State(ctx, id)
	if err != nil {
		return err
	}
	s.MachineChanged(machine.Change{Status: status, At: time.Now()})
	return nil
}

// instanceState says in the words of the API how a machine stands.
func instanceState(s machine.State) drs.InstanceState {
	switch s {
	case machine.Running, machine.Paused:
		return drs.InstanceRunning
	case machine.Stopped, machine.Failed:
		return drs.InstanceStopped
	}
	return drs.InstanceNotFound
}

// follows tells whether a machine's own changes may move a record on. Being
// launched and being terminated are moved on by their jobs.
func follows(from, to drs.InstanceState) bool {
	if from == drs.InstanceStopping && to == drs.InstanceRunning {
		return false // not yet
	}
	switch from {
	case drs.InstancePending, drs.InstanceShuttingDown, drs.InstanceTerminated:
		return false
	}
	return from != to
}

// reviveMachines brings the records in line with the machines after a restart.
// One that should run and was ended by the host (not by its guest, and not by an
// order) is started again from its disks.
func (s *Service) reviveMachines(ctx context.Context) {
	instances, err := s.DB.AllInstances(ctx)
	if err != nil {
		s.Log.Error("machines were not looked at", "err", err)
		return
	}
	for _, i := range instances {
		if i.State == drs.InstancePending || i.State == drs.InstanceShuttingDown {
			continue // its job goes on with it
		}
		if i.State == drs.InstanceStopping {
			s.tasks.Go(func() { s.powerOff(i.ID) })
			continue
		}
		status, err := s.Machines.State(ctx, i.ID)
		if err != nil {
			s.Log.Error("state of a machine is not known", "instance", i.ID, "err", err)
			continue
		}
		if i.State == drs.InstanceRunning && (status.State == machine.Failed || status.State == machine.Absent) {
			s.Log.Warn("machine was ended by its host and is started again", "instance", i.ID, "reason", status.Reason)
			if err := s.startAgain(ctx, i); err != nil {
				s.Log.Error("machine was not started again", "instance", i.ID, "err", err)
			}
		}
		if err := s.followMachine(ctx, i.ID); err != nil {
			s.Log.Error("state of a machine is not known", "instance", i.ID, "err", err)
		}
	}
}

// startAgain starts the machine of an instance that was launched before.
func (s *Service) startAgain(ctx context.Context, i drs.RecoveryInstance) error {
	server, err := s.DB.SourceServer(ctx, i.Account, i.SourceServer)
	if err != nil {
		return err
	}
	disks, err := s.exports.open(ctx, i)
	if err != nil {
		return err
	}
	plan, err := s.plan(server, i, disks)
	if err != nil {
		return err
	}
	_, err = s.Machines.Start(ctx, plan.spec)
	return err
}
