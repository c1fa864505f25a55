package recovery

import (
	"context"
	"errors"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// stopGrace is how long a guest may take to power itself off before the power is
// taken away.
const stopGrace = 90 * time.Second

// StartInstance starts the machine of an instance that was stopped, or was
// launched with the disposition STOPPED. One that runs is left as it is.
func (s *Service) StartInstance(ctx context.Context, account drs.Account, id drs.RecoveryInstanceID) (drs.RecoveryInstance, error) {
	if _, err := s.startable(ctx, account, id); err != nil {
		return drs.RecoveryInstance{}, err
	}
	if _, err := s.startAgain(ctx, id); err != nil {
		var lost *lostError
		if errors.As(err, &lost) {
			err = drs.Conflict(drs.TypeRecoveryInstance, string(id), "%v.", lost)
		}
		return drs.RecoveryInstance{}, err
	}
	if err := s.followMachine(ctx, id); err != nil {
		return drs.RecoveryInstance{}, err
	}
	return s.DB.InstanceByID(ctx, id)
}

// StopInstance begins to stop the machine: its guest is asked to power off, and
// when it does not the power is taken away. The instance is STOPPING when this
// returns and STOPPED when it is off; its disks stay as they are.
func (s *Service) StopInstance(ctx context.Context, account drs.Account, id drs.RecoveryInstanceID) (drs.RecoveryInstance, error) {
	instance, err := s.powered(ctx, account, id)
	if err != nil {
		return drs.RecoveryInstance{}, err
	}
	if instance.State != drs.InstanceRunning && instance.State != drs.InstanceStopping {
		return instance, nil
	}
	_, err = s.DB.MoveInstance(ctx, id, drs.InstanceStopping, func(i *drs.RecoveryInstance) { i.Wanted = false })
	if err != nil {
		return drs.RecoveryInstance{}, err
	}
	s.tasks.Go(func() { s.powerOff(id) })
	instance.State = drs.InstanceStopping
	return instance, nil
}

// powerOff ends a machine whose record says that it is stopping; one that this
// process cannot end is ended by the next.
func (s *Service) powerOff(id drs.RecoveryInstanceID) {
	if err := s.Machines.Stop(s.life, id, stopGrace); err != nil {
		s.Log.Error("machine was not stopped", "instance", id, "err", err)
	}
	if s.life.Err() != nil {
		return
	}
	if err := s.followMachine(s.life, id); err != nil {
		s.Log.Error("state of a machine is not known", "instance", id, "err", err)
	}
}

// Console names the file of an instance's serial console. It exists once the
// machine was started, and grows.
func (s *Service) Console(ctx context.Context, account drs.Account, id drs.RecoveryInstanceID) (string, error) {
	if _, err := s.instanceOf(ctx, account, id); err != nil {
		return "", err
	}
	return s.Machines.ConsolePath(id), nil
}

func (s *Service) instanceOf(ctx context.Context, account drs.Account, id drs.RecoveryInstanceID) (drs.RecoveryInstance, error) {
	instance, err := s.DB.InstanceByID(ctx, id)
	if errors.Is(err, db.ErrAbsent) || err == nil && instance.Account != account {
		return drs.RecoveryInstance{}, drs.NotFound(drs.TypeRecoveryInstance, string(id))
	}
	return instance, err
}

// powered returns an instance whose power may be switched.
func (s *Service) powered(ctx context.Context, account drs.Account, id drs.RecoveryInstanceID) (drs.RecoveryInstance, error) {
	instance, err := s.instanceOf(ctx, account, id)
	if err != nil {
		return drs.RecoveryInstance{}, err
	}
	switch instance.State {
	case drs.InstancePending, drs.InstanceShuttingDown, drs.InstanceTerminated:
		return drs.RecoveryInstance{}, drs.Conflict(drs.TypeRecoveryInstance, string(id),
			"Recovery instance %s is %s. Wait until its job has completed.", id, instance.State)
	}
	return instance, nil
}

// startable is powered, and not on its way to be off.
func (s *Service) startable(ctx context.Context, account drs.Account, id drs.RecoveryInstanceID) (drs.RecoveryInstance, error) {
	instance, err := s.powered(ctx, account, id)
	if err == nil && instance.State == drs.InstanceStopping {
		err = drs.Conflict(drs.TypeRecoveryInstance, string(id),
			"The machine of %s is being stopped, for which its guest has %d seconds. Start it when it is STOPPED.", id, stopGrace/time.Second)
	}
	return instance, err
}
