package recovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/machine"
	"lifeboat/internal/vault"
)

// TerminationProtection is the tag that keeps a recovery instance when its server
// is launched again, as termination protection does on EC2. Any value but
// "false" protects.
const TerminationProtection = "lifeboat:termination-protection"

// launchServer is the part of a launch job that brings one server back.
func (s *Service) launchServer(ctx context.Context, job drs.Job, p drs.ParticipatingServer) error {
	run := s.serverRun(job, p)
	if err := run.advance(ctx, drs.LaunchInProgress, ""); err != nil {
		return err
	}
	server, err := s.DB.SourceServer(ctx, job.Account, p.SourceServer)
	if errors.Is(err, db.ErrAbsent) {
		if err := run.log(ctx, drs.JobLogItem{Event: drs.EventServerSkipped, RawError: "The source server was deleted after the job was submitted."}); err != nil {
			return err
		}
		return run.advance(ctx, drs.LaunchFailed, "")
	}
	if err != nil {
		return err
	}

	run.held = server.VaultServer()

	instance, err := run.instance(ctx)
	if errors.Is(err, db.ErrAbsent) {
		failed, err := run.cleanUp(ctx)
		if err != nil {
			return err
		}
		if failed != nil {
			return run.fail(ctx, drs.EventLaunchFailed, failed, nil)
		}
		var point drs.RecoveryPoint
		if point, failed, err = run.choosePoint(ctx); err != nil {
			return err
		}
		if failed != nil {
			return run.fail(ctx, drs.EventLaunchFailed, failed, nil)
		}
		if instance, err = run.record(ctx, server, point); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}

	// Any number of points are taken at once, so that they are of one moment;
	// machines are started a few at a time.
	select {
	case s.launches <- struct{}{}:
		defer func() { <-s.launches }()
	case <-ctx.Done():
		return ctx.Err()
	}
	release, err := s.holds.hold(ctx, instance.ID)
	if err != nil {
		return err
	}
	failure, err := run.boot(ctx, server, instance)
	release()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	case failure != nil:
		return run.fail(ctx, failure.event, failure.cause, &instance)
	}
	return nil
}

// launchFailure is why a server was not launched: the job goes on without it.
type launchFailure struct {
	event drs.JobEvent // to log
	cause error
}

// instance returns the instance that an earlier run of this step recorded, or
// db.ErrAbsent.
func (r serverRun) instance(ctx context.Context) (found drs.RecoveryInstance, err error) {
	err = r.service.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		all, err := tx.InstancesOf(ctx, r.part.SourceServer)
		if err != nil {
			return err
		}
		for _, i := range all {
			if i.Job == r.job.ID {
				found = i
				return nil
			}
		}
		return db.ErrAbsent
	})
	return found, err
}

// cleanUp removes the instances of earlier launches of the server, as the
// service does, but for those that are protected. What cannot be removed costs
// space until a later try and is no failure, unless its machine still runs: two
// machines with one address help nobody.
func (r serverRun) cleanUp(ctx context.Context) (failed, err error) {
	s := r.service
	var earlier []drs.RecoveryInstance
	err = s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		all, err := tx.InstancesOf(ctx, r.part.SourceServer)
		for _, i := range all {
			if kept, ok := i.Tags[TerminationProtection]; !ok || kept == "false" {
				earlier = append(earlier, i)
			}
		}
		return err
	})
	if err != nil || len(earlier) == 0 {
		return nil, err
	}
	if err := r.log(ctx, drs.JobLogItem{Event: drs.EventCleanupStart}); err != nil {
		return nil, err
	}
	whole := true
	for _, i := range earlier {
		err := s.remove(ctx, i)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil {
			continue
		}
		s.Log.Error("earlier instance was not removed", "instance", i.ID, "err", err)
		whole = false
		if status, stateErr := s.Machines.State(ctx, i.ID); stateErr != nil || status.State == machine.Running {
			failed = errors.Join(failed, fmt.Errorf("the machine of an earlier launch, %s, could not be ended: end it, and start the recovery again", i.ID))
		}
		if err := r.log(ctx, drs.JobLogItem{Event: drs.EventCleanupFail, Instance: i.ID, RawError: explain(err) + removedLater}); err != nil {
			return nil, err
		}
	}
	if !whole {
		return failed, nil
	}
	return nil, r.log(ctx, drs.JobLogItem{Event: drs.EventCleanupEnd})
}

// record gives the launch its instance before anything of it exists, so that
// nothing can be left behind unknown.
func (r serverRun) record(ctx context.Context, server drs.SourceServer, point drs.RecoveryPoint) (drs.RecoveryInstance, error) {
	instance := drs.RecoveryInstance{
		ID: drs.NewRecoveryInstanceID(), Account: r.job.Account, SourceServer: server.ID, Job: r.job.ID,
		Drill: r.job.Initiated == drs.StartedDrill, State: drs.InstancePending, Launched: now(),
		Wanted: server.LaunchConfiguration.Disposition != drs.DispositionStopped,
		Point:  point.ID, PointTaken: point.Taken, VaultServer: server.VaultServer(),
		Tags: drs.Tags{"Name": server.Properties.Hostname},
	}
	if server.LaunchConfiguration.CopyTags {
		maps.Copy(instance.Tags, server.Tags)
	}
	// What the service says of the instance, no tag of the server says otherwise.
	maps.Copy(instance.Tags, drs.Tags{
		"AWSElasticDisasterRecoveryManaged": "drs.amazonaws.com",
		"drs.amazonaws.com-job":             string(r.job.ID),
		"drs.amazonaws.com-source-server":   string(server.ID),
	})
	err := r.service.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error { return tx.InsertInstance(ctx, instance) })
	return instance, err
}

// boot makes the disks bootable and starts the machine on them. A failure is the
// server's; an error means that the job could not go on.
func (r serverRun) boot(ctx context.Context, server drs.SourceServer, instance drs.RecoveryInstance) (*launchFailure, error) {
	s := r.service
	config := server.LaunchConfiguration
	failed := func(event drs.JobEvent, err error) (*launchFailure, error) { return &launchFailure{event, err}, nil }

	// A vault that is full, or read-only, or damaged behind the point, must not keep the
	// machine from running: the record of the instance keeps the point, and who ships
	// makes the branch when it can be made.
	branchless := ""
	forked := s.Vault.Fork(ctx, instance.VaultServer, instance.Point, string(instance.ID))
	if errors.Is(forked, vault.ErrExists) {
		forked = nil
	}
	disks, err := s.exports.open(ctx, instance)
	if err != nil {
		return failed(drs.EventLaunchFailed, fmt.Errorf("open recovery point %s: %w", instance.Point, err))
	}
	if forked != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		s.Log.Error("an instance has no branch in the vault; what its machine writes lies on this host alone", "instance", instance.ID, "err", forked)
		branchless = fmt.Sprintf("What it writes is not protected for now: %v.", forked)
	}

	convert := config.RecoveryMode != drs.RecoveryFast
	if convert {
		if err := r.log(ctx, drs.JobLogItem{Event: drs.EventConversionStart, Instance: instance.ID}); err != nil {
			return nil, err
		}
	}
	promised, err := s.crowded(ctx, server)
	if err != nil {
		return nil, err
	}
	plan, err := s.plan(server, instance, disks, promised)
	if err != nil {
		if convert {
			return failed(drs.EventConversionFail, err)
		}
		return failed(drs.EventLaunchFailed, err)
	}
	if convert {
		if err := r.log(ctx, drs.JobLogItem{
			Event: drs.EventConversionEnd, Instance: instance.ID, Conversion: &plan.conversion, Note: plan.note,
		}); err != nil {
			return nil, err
		}
	}

	accelerator, note, err := s.Machines.Accelerator(ctx)
	if err != nil {
		return failed(drs.EventLaunchFailed, err)
	}
	if len(r.job.Servers) > 0 && r.job.Servers[0].SourceServer != r.part.SourceServer {
		note = "" // it is about the host, and the first server's line tells it
	}
	runs, aside, err := r.actions(ctx, server)
	if err != nil {
		return nil, err
	}
	if err := r.log(ctx, drs.JobLogItem{
		Event: drs.EventLaunchStart, Instance: instance.ID, Note: sentences("Runs with "+accelerator+".", note, aside, branchless),
	}); err != nil {
		return nil, err
	}
	state := drs.InstanceStopped
	if config.Disposition != drs.DispositionStopped {
		started, err := s.Machines.Start(ctx, plan.spec)
		if err != nil {
			return failed(drs.EventLaunchFailed, err)
		}
		state = drs.InstanceRunning
		plan.properties.Accelerator = started.Accelerator
		r.tell(instance, started)
	}
	err = s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		_, err := tx.MoveInstance(ctx, instance.ID, state, func(i *drs.RecoveryInstance) { i.Properties = plan.properties })
		return errors.Join(err,
			tx.SetRecoveryInstance(ctx, server.ID, instance.ID),
			r.advanceIn(ctx, tx, drs.LaunchLaunched, instance.ID, runs...))
	})
	if err == nil && state == drs.InstanceRunning {
		// It may have ended before its record could follow it.
		if err := s.followMachine(ctx, instance.ID); err != nil {
			s.Log.Warn("state of a launched machine is not known", "instance", instance.ID, "err", err)
		}
	}
	return nil, err
}

func (r serverRun) tell(instance drs.RecoveryInstance, started machine.Started) {
	attrs := []any{
		"instance", instance.ID, "server", instance.SourceServer, "job", r.job.ID,
		"accelerator", started.Accelerator, "adopted", started.Adopted,
	}
	if !started.FirstInstruction.IsZero() {
		attrs = append(attrs, "sinceRequest", started.FirstInstruction.Sub(r.job.Created).Round(time.Millisecond))
	}
	for _, step := range started.Steps {
		attrs = append(attrs, "step."+step.Name, step.Took.Round(time.Millisecond))
	}
	r.service.Log.Info("machine started", attrs...)
	for _, note := range started.Notes {
		r.service.Log.Info("machine note", "instance", instance.ID, "note", note)
	}
}

// fail ends the server's part and frees what there is of the instance. That the
// launch has failed is settled first, at once with the log's line: whatever
// becomes of the rest, it is not tried again.
func (r serverRun) fail(ctx context.Context, event drs.JobEvent, cause error, instance *drs.RecoveryInstance) error {
	s := r.service
	s.Log.Error("server was not launched", "server", r.part.SourceServer, "job", r.job.ID, "err", cause)
	item := drs.JobLogItem{Event: event, RawError: explain(cause)}
	if instance != nil {
		item.Instance = instance.ID
	}
	err := s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		if instance != nil {
			if _, err := tx.MoveInstance(ctx, instance.ID, drs.InstanceShuttingDown, nil); err != nil && !errors.Is(err, db.ErrAbsent) {
				return err
			}
		}
		return errors.Join(r.logIn(ctx, tx, item), r.advanceIn(ctx, tx, drs.LaunchFailed, ""))
	})
	if err != nil || instance == nil {
		return err
	}
	if err := s.remove(ctx, *instance); err != nil {
		// It is tried again: see removeLeavings.
		s.Log.Error("leavings of a failed launch were not removed", "instance", instance.ID, "err", err)
	}
	return nil
}
