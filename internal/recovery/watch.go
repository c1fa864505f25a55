package recovery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/machine"
)

// MachineChanged keeps the state that a machine entered in its instance's record.
// A guest that powered itself off is not wanted any more; one that its host ended
// is.
func (s *Service) MachineChanged(c machine.Change) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	to := instanceState(c.State)
	before, err := s.DB.InstanceByID(ctx, c.ID)
	if err != nil || !follows(before.State, to) {
		return // a machine without a record, or a state that its job moves on
	}
	_, err = s.DB.MoveInstance(ctx, c.ID, to, func(i *drs.RecoveryInstance) {
		switch c.State {
		case machine.Running:
			i.Wanted = true
		case machine.Stopped:
			i.Wanted = false
		}
	})
	switch {
	case err == nil:
		s.Log.Info("machine changed", "instance", c.ID, "state", c.State, "reason", c.Reason)
	case !errors.Is(err, db.ErrForbidden) && !errors.Is(err, db.ErrAbsent):
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

// follows tells whether a machine's own changes may move a record on: one that
// is being launched is moved on by its job, and the transition table has the
// rest.
func follows(from, to drs.InstanceState) bool { return from != drs.InstancePending && from != to }

// reviveMachines brings machines and records in line after a restart. A machine
// that is wanted and does not run is started again on its disks: its host took it
// down. What a removal left behind is removed.
func (s *Service) reviveMachines(ctx context.Context) {
	instances, err := s.DB.AllInstances(ctx)
	if err != nil {
		s.Log.Error("machines were not looked at", "err", err)
		return
	}
	for _, i := range instances {
		s.tasks.Go(func() {
			if err := s.revive(ctx, i); err != nil && ctx.Err() == nil {
				s.Log.Error("machine was not brought in line with its record", "instance", i.ID, "state", i.State, "err", err)
			}
		})
	}
}

func (s *Service) revive(ctx context.Context, i drs.RecoveryInstance) error {
	switch i.State {
	case drs.InstancePending:
		return nil // its job goes on with it
	case drs.InstanceShuttingDown:
		return s.remove(ctx, i)
	case drs.InstanceStopping:
		s.powerOff(i.ID)
		return nil
	}
	status, err := s.Machines.State(ctx, i.ID)
	if err != nil {
		return err
	}
	if i.Wanted && status.State != machine.Running && status.State != machine.Paused {
		s.Log.Warn("machine was ended by its host and is started again", "instance", i.ID, "reason", status.Reason)
		if _, err := s.startAgain(ctx, i.ID); err != nil {
			return errors.Join(err, s.followMachine(ctx, i.ID))
		}
	}
	return s.followMachine(ctx, i.ID)
}

// startAgain starts the machine of an instance that was launched before, and is
// still there now that nobody else acts on it.
func (s *Service) startAgain(ctx context.Context, id drs.RecoveryInstanceID) (machine.Started, error) {
	release, err := s.holds.hold(ctx, id)
	if err != nil {
		return machine.Started{}, err
	}
	defer release()
	select {
	case s.launches <- struct{}{}:
		defer func() { <-s.launches }()
	case <-ctx.Done():
		return machine.Started{}, ctx.Err()
	}
	instance, err := s.DB.InstanceByID(ctx, id)
	if err != nil {
		return machine.Started{}, err
	}
	if _, err := instance.State.Next(drs.InstanceRunning); err != nil {
		return machine.Started{}, fmt.Errorf("start machine %s: %w", id, err)
	}
	server, err := s.DB.SourceServer(ctx, instance.Account, instance.SourceServer)
	if err != nil {
		return machine.Started{}, err
	}
	disks, err := s.exports.open(ctx, instance)
	if err != nil {
		return machine.Started{}, err
	}
	plan, err := s.plan(server, instance, disks, "")
	if err != nil {
		return machine.Started{}, err
	}
	return s.Machines.Start(ctx, plan.spec)
}
