package recovery

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
)

// runJob carries a job to its end, from wherever an earlier run left it. An
// error means that the job could not go on, not that a server failed: it will be
// run again.
func (s *Service) runJob(ctx context.Context, id drs.JobID) error {
	job, err := s.DB.JobByID(ctx, id)
	if errors.Is(err, db.ErrAbsent) {
		return nil // deleted while it waited
	}
	if err != nil {
		return err
	}
	if job.Status == drs.JobCompleted {
		return nil
	}
	err = s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		return errors.Join(
			tx.SetJobStatus(ctx, id, drs.JobStarted),
			tx.Log(ctx, string(drs.EventJobStart), drs.JobLogItem{Job: id, Time: now(), Event: drs.EventJobStart}))
	})
	if err != nil {
		return err
	}

	work := s.launchServer
	if job.Type == drs.JobTerminate {
		work = s.terminateServer
	}
	errs := make([]error, len(job.Servers))
	var wg sync.WaitGroup
	for n, p := range job.Servers {
		switch p.Status {
		case drs.LaunchPending, drs.LaunchInProgress:
			wg.Go(func() { errs[n] = s.guarded(ctx, job, p, work) })
		}
	}
	for _, n := range job.Networks { // each is but a few rows
		if n.Status == drs.LaunchPending || n.Status == drs.LaunchInProgress {
			errs = append(errs, s.guardedNetwork(ctx, job, n))
		}
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		s.Log.Warn("job is interrupted and will go on", "job", id, "err", err)
		return err
	}
	err = s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		return errors.Join(
			tx.Log(ctx, string(drs.EventJobEnd), drs.JobLogItem{Job: id, Time: now(), Event: drs.EventJobEnd}),
			tx.SetJobStatus(ctx, id, drs.JobCompleted))
	})
	if err == nil && s.JobEnded != nil {
		s.JobEnded(id)
	}
	return err
}

// guarded does the work on one server. A fault of ours there fails this server,
// and not the process with all machines' disks, again at every start.
func (s *Service) guarded(ctx context.Context, job drs.Job, p drs.ParticipatingServer, work func(context.Context, drs.Job, drs.ParticipatingServer) error) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			s.Log.Error("fault in a job", "job", job.ID, "server", p.SourceServer, "fault", fault, "stack", string(debug.Stack()))
			err = s.serverRun(job, p).fail(ctx, drs.EventLaunchFailed,
				fmt.Errorf("an internal fault, which the server's log tells more of: %v", fault), nil)
		}
	}()
	return work(ctx, job, p)
}

// guardedNetwork is guarded for the part of one network.
func (s *Service) guardedNetwork(ctx context.Context, job drs.Job, part drs.ParticipatingNetwork) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			s.Log.Error("fault in a job", "job", job.ID, "network", part.SourceNetwork, "fault", fault, "stack", string(debug.Stack()))
			err = networkRun{s, job, part}.fault(ctx, fault)
		}
	}()
	return s.recoverNetwork(ctx, job, part)
}

// serverRun is one server's part in a running job.
type serverRun struct {
	service *Service
	job     drs.Job
	part    drs.ParticipatingServer
	held    drs.SourceServerID // where the server's points are
}

func (s *Service) serverRun(job drs.Job, p drs.ParticipatingServer) serverRun {
	return serverRun{s, job, p, p.SourceServer}
}

// log tells a step in the job's log, once however often the step is repeated.
func (r serverRun) log(ctx context.Context, item drs.JobLogItem) error {
	return r.service.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error { return r.logIn(ctx, tx, item) })
}

func (r serverRun) logIn(ctx context.Context, tx db.Tx, item drs.JobLogItem) error {
	item.Job, item.SourceServer, item.Time = r.job.ID, r.part.SourceServer, now()
	step := fmt.Sprintf("%s/%s/%s", r.part.SourceServer, r.part.Instance, item.Event)
	if item.Event == drs.EventCleanupFail {
		step += "/" + string(item.Instance) // a launch cleans up several
	}
	return tx.Log(ctx, step, item)
}

// advance moves the server on within the job. For a launch, the server's record
// follows.
func (r serverRun) advance(ctx context.Context, to drs.LaunchStatus, instance drs.RecoveryInstanceID) error {
	return r.service.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error { return r.advanceIn(ctx, tx, to, instance) })
}

// advanceIn is advance within a transaction; runs are those of a launched server's
// post-launch actions. A launch counts as successful only when all of them succeeded
// that are not optional.
func (r serverRun) advanceIn(ctx context.Context, tx db.Tx, to drs.LaunchStatus, instance drs.RecoveryInstanceID, runs ...drs.LaunchActionRun) error {
	if err := tx.SetLaunchStatus(ctx, r.job.ID, r.part.SourceServer, r.part.Instance, to, instance); err != nil {
		return err
	}
	if len(runs) > 0 {
		if err := tx.SetActionRuns(ctx, r.job.ID, r.part.SourceServer, runs); err != nil {
			return err
		}
	}
	if r.job.Type != drs.JobLaunch {
		return nil
	}
	succeeded := to == drs.LaunchLaunched && !drs.RequiredFailed(runs)
	result := drs.LastLaunchPending
	switch {
	case succeeded:
		result = drs.LastLaunchSucceeded
	case to == drs.LaunchLaunched, to == drs.LaunchFailed:
		result = drs.LastLaunchFailed
	}
	if err := tx.SetLastLaunch(ctx, r.lastLaunch(to), result, r.part.SourceServer); err != nil {
		return err
	}
	if to != drs.LaunchLaunched && to != drs.LaunchFailed {
		return nil
	}
	return tx.Emit(ctx, drs.LaunchResult(r.job, r.part.SourceServer, succeeded, now()))
}

func (r serverRun) lastLaunch(status drs.LaunchStatus) *drs.LastLaunch {
	return &drs.LastLaunch{
		Job: r.job.ID, Initiated: r.job.Created, Drill: r.job.Initiated == drs.StartedDrill, Status: status,
	}
}

// explain turns an error into a sentence for the job's log: what happened and
// what to do.
func explain(err error) string {
	var corrupt *vault.CorruptError
	ownDisk := errors.Is(err, syscall.ENOSPC) && !errors.Is(err, blob.ErrNoSpace) // not the vault's
	if t := blob.TroubleOf(err); t != nil && !ownDisk {
		return fmt.Sprintf("%s: %s.", sentence(t.Text), t.NextStep)
	}
	switch {
	case errors.As(err, &corrupt):
		return fmt.Sprintf("%v. The vault holds a damaged object; recover from another point (`lifeboat points` lists them).", err)
	case ownDisk:
		return fmt.Sprintf("%v. Free space in the server's data directory and start the recovery again.", err)
	case errors.Is(err, vault.ErrWrongKey):
		return fmt.Sprintf("%v. Restore the master key that the vault was written with.", err)
	}
	return blob.Short(err.Error(), maxRawError)
}

// maxRawError bounds what the API tells of an error, in bytes; the server's log has all of it.
const maxRawError = 1000

// sentence begins a text with a capital letter.
func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] }
