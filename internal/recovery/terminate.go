package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
)

// TerminateRecoveryInstances creates a job that removes the instances with all
// they hold, or refuses the whole request with a *drs.Error.
func (s *Service) TerminateRecoveryInstances(ctx context.Context, account drs.Account, ids []drs.RecoveryInstanceID) (drs.Job, error) {
	job := drs.Job{
		ID: drs.NewJobID(), Account: account, Type: drs.JobTerminate, Initiated: drs.TerminatedInstances,
		Status: drs.JobPending, Created: now(), Tags: drs.Tags{},
	}
	err := s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		found, err := tx.InstancesByID(ctx, account, ids)
		if err != nil {
			return err
		}
		known := map[drs.RecoveryInstanceID]drs.RecoveryInstance{}
		for _, i := range found {
			known[i.ID] = i
		}
		for n, id := range ids {
			instance, ok := known[id]
			if !ok {
				return drs.Conflict(drs.TypeRecoveryInstance, string(id),
					"Recovery instance %s does not exist in this account and region, or is named twice. DescribeRecoveryInstances lists those that do.", id)
			}
			delete(known, ids[n])
			job.Servers = append(job.Servers, drs.ParticipatingServer{
				SourceServer: instance.SourceServer, Instance: id, Status: drs.LaunchPending,
			})
		}
		if err := s.mayRun(ctx, tx, job); err != nil {
			return err
		}
		if err := tx.InsertJob(ctx, job); err != nil {
			return err
		}
		return s.enqueue(ctx, tx, job.ID)
	})
	if err != nil {
		return drs.Job{}, err
	}
	return job, nil
}

// terminateServer is the part of a terminate job that removes one instance.
func (s *Service) terminateServer(ctx context.Context, job drs.Job, p drs.ParticipatingServer) error {
	run := s.serverRun(job, p)
	if err := run.advance(ctx, drs.LaunchInProgress, ""); err != nil {
		return err
	}
	if err := run.log(ctx, drs.JobLogItem{Event: drs.EventCleanupStart, Instance: p.Instance}); err != nil {
		return err
	}
	instance, err := s.DB.InstanceByID(ctx, p.Instance)
	switch {
	case errors.Is(err, db.ErrAbsent): // a run before this one got that far
	case err != nil:
		return err
	default:
		if err := s.remove(ctx, instance); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.Log.Error("instance was not removed", "instance", p.Instance, "err", err)
			if err := run.log(ctx, drs.JobLogItem{Event: drs.EventCleanupFail, Instance: p.Instance, RawError: explain(err) + removedLater}); err != nil {
				return err
			}
			return run.advance(ctx, drs.LaunchFailed, "")
		}
	}
	if err := run.log(ctx, drs.JobLogItem{Event: drs.EventCleanupEnd, Instance: p.Instance}); err != nil {
		return err
	}
	return run.advance(ctx, drs.LaunchTerminated, "")
}

// remove frees everything of an instance: its machine, its branch, its disks'
// logs, its directory, and last its record. It may be repeated.
func (s *Service) remove(ctx context.Context, instance drs.RecoveryInstance) error {
	release, err := s.holds.hold(ctx, instance.ID)
	if err != nil {
		return err
	}
	defer release()
	if _, err := s.DB.MoveInstance(ctx, instance.ID, drs.InstanceShuttingDown, nil); errors.Is(err, db.ErrAbsent) {
		return nil // somebody else has removed it
	} else if err != nil {
		return err
	}
	if err := s.Machines.Destroy(ctx, instance.ID); err != nil {
		return fmt.Errorf("destroy machine %s: %w", instance.ID, err)
	}
	if err := s.exports.close(instance.ID); err != nil {
		// The log is thrown away below: what could not be written to it is no loss.
		s.Log.Warn("disks of a terminated instance did not close cleanly", "instance", instance.ID, "err", err)
	}
	err = s.Vault.DropBranch(ctx, instance.VaultServer, string(instance.ID))
	var damage *vault.CorruptError
	switch {
	case errors.As(err, &damage):
		// Damage of the server's objects must not keep its instances for ever; the
		// branch holds on to a point, which is the safe side.
		s.Log.Error("branch of a terminated instance was not dropped", "instance", instance.ID, "err", err)
	case err != nil && !errors.Is(err, vault.ErrAbsent):
		return fmt.Errorf("drop the branch of %s: %w", instance.ID, err)
	}
	if err := os.RemoveAll(s.dir(instance.ID)); err != nil {
		return fmt.Errorf("remove the files of %s: %w", instance.ID, err)
	}
	return s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error { return forget(ctx, tx, instance) })
}

// forget removes the record of an instance and what its server says of it.
func forget(ctx context.Context, tx db.Tx, instance drs.RecoveryInstance) error {
	server, err := tx.SourceServer(ctx, instance.Account, instance.SourceServer)
	switch {
	case errors.Is(err, db.ErrAbsent):
		return tx.DeleteInstance(ctx, instance.ID)
	case err != nil:
		return err
	}
	if last := server.LifeCycle.LastLaunch; last != nil && last.Job == instance.Job && last.Status == drs.LaunchLaunched {
		last.Status = drs.LaunchTerminated
		if err := tx.SetLastLaunch(ctx, last, server.LastLaunchResult, server.ID); err != nil {
			return err
		}
	}
	if server.RecoveryInstance == instance.ID {
		if err := tx.SetRecoveryInstance(ctx, server.ID, ""); err != nil {
			return err
		}
	}
	if err := tx.EndLaunch(ctx, instance.Job, instance.SourceServer); err != nil {
		return err
	}
	return tx.DeleteInstance(ctx, instance.ID)
}
