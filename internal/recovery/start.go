package recovery

import (
	"context"
	"errors"
	"slices"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// StartRecovery creates a job that launches a recovery instance of each server,
// or refuses the whole request with a *drs.Error: it never starts half. The job
// is durable when it is returned.
func (s *Service) StartRecovery(ctx context.Context, account drs.Account, r drs.StartRecovery) (job drs.Job, err error) {
	err = s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		job, err = s.StartRecoveryIn(ctx, tx, account, r)
		return err
	})
	if err != nil {
		return drs.Job{}, err
	}
	return job, nil
}

// StartRecoveryIn is StartRecovery as a part of the caller's transaction: the job
// is there, and runs, if and when that commits.
func (s *Service) StartRecoveryIn(ctx context.Context, tx db.Tx, account drs.Account, r drs.StartRecovery) (drs.Job, error) {
	job := drs.Job{
		ID: drs.NewJobID(), Account: account, Type: drs.JobLaunch, Initiated: drs.StartedRecovery,
		Status: drs.JobPending, Created: now(), Tags: r.Tags,
	}
	if r.Drill {
		job.Initiated = drs.StartedDrill
	}
	for _, want := range r.Servers {
		job.Servers = append(job.Servers, drs.ParticipatingServer{
			SourceServer: want.SourceServer, Snapshot: want.Snapshot, Status: drs.LaunchPending,
		})
	}
	if err := s.mayStart(ctx, tx, account, r); err != nil {
		return drs.Job{}, err
	}
	if err := s.mayRun(ctx, tx, job); err != nil {
		return drs.Job{}, err
	}
	if err := tx.InsertJob(ctx, job); err != nil {
		return drs.Job{}, err
	}
	launch := &drs.LastLaunch{Job: job.ID, Initiated: job.Created, Drill: r.Drill, Status: drs.LaunchPending}
	if err := tx.SetLastLaunch(ctx, launch, drs.LastLaunchPending, serversOf(job)...); err != nil {
		return drs.Job{}, err
	}
	return job, s.enqueue(ctx, tx, job.ID)
}

// CheckRecoveryIn tells with a *drs.Error why StartRecovery would refuse the
// servers as they are now, and starts nothing. Quotas are not looked at: they
// are of the moment in which a job starts.
func (s *Service) CheckRecoveryIn(ctx context.Context, tx db.Tx, account drs.Account, r drs.StartRecovery) error {
	if err := s.mayStart(ctx, tx, account, r); err != nil {
		return err
	}
	ids := make([]drs.SourceServerID, 0, len(r.Servers))
	for _, want := range r.Servers {
		ids = append(ids, want.SourceServer)
	}
	return notBusy(ctx, tx, ids)
}

// mayStart holds the preconditions of each server and its point. Servers are
// looked up all at once: a request may name 200.
func (s *Service) mayStart(ctx context.Context, tx db.Tx, account drs.Account, r drs.StartRecovery) error {
	ids := make([]drs.SourceServerID, 0, len(r.Servers))
	for _, want := range r.Servers {
		if slices.Contains(ids, want.SourceServer) {
			return conflict(want.SourceServer, "Source server %s is named twice in the request. Name each server once.", want.SourceServer)
		}
		ids = append(ids, want.SourceServer)
	}
	servers, err := tx.SourceServers(ctx, account, ids)
	if err != nil {
		return err
	}
	held := make([]drs.SourceServerID, 0, len(ids)) // where the points are
	for _, id := range ids {
		held = append(held, vaultServer(servers, id))
	}
	ready, err := tx.HaveLatest(ctx, held)
	if err != nil {
		return err
	}
	for _, want := range r.Servers {
		id := want.SourceServer
		server, ok := servers[id]
		if !ok {
			return conflict(id, "Source server %s does not exist in this account and region. DescribeSourceServers lists those that do.", id)
		}
		if why, err := s.extension(ctx, server); err != nil {
			return err
		} else if why != "" {
			return conflict(id, "Extended source server %s cannot be recovered. %s", id, why)
		}
		if state := server.Replication.State; state.Ended() {
			return conflict(id, "Source server %s cannot be recovered: its replication is %s.", id, state)
		}
		switch {
		case want.Snapshot != "":
			if err := mayUse(ctx, tx, id, server.VaultServer(), want.Snapshot); err != nil {
				return err
			}
		case !ready[server.VaultServer()]:
			return conflict(id, "Source server %s has no consistent recovery point yet (replication state %s). "+
				"Wait for its initial sync to end, or name a point: `lifeboat points %s --fuzzy` lists those that hold a mix of moments.",
				id, server.Replication.State, id)
		}
	}
	return nil
}

// extension tells why an extended server cannot be recovered; empty: it can, or is
// none.
func (s *Service) extension(ctx context.Context, server drs.SourceServer) (string, error) {
	if !server.Extended() || server.Staging.Error != "" || s.MayExtend == nil {
		return server.Staging.Error, nil
	}
	err := s.MayExtend(ctx, server.Staging.Account, server.Account)
	var refused *drs.Error
	if errors.As(err, &refused) {
		return refused.Message, nil
	}
	return "", err
}

// vaultServer is where the data of one of the servers lies.
func vaultServer(servers map[drs.SourceServerID]drs.SourceServer, id drs.SourceServerID) drs.SourceServerID {
	if server, ok := servers[id]; ok {
		return server.VaultServer()
	}
	return id
}

func mayUse(ctx context.Context, tx db.Tx, server, held drs.SourceServerID, id drs.RecoverySnapshotID) error {
	point, err := tx.Point(ctx, id)
	if errors.Is(err, db.ErrAbsent) {
		return conflict(server, "Recovery snapshot %s does not exist (any more). DescribeRecoverySnapshots lists those of source server %s.", id, server)
	}
	if err != nil {
		return err
	}
	if point.SourceServer != held {
		return conflict(server, "Recovery snapshot %s is not one of source server %s. DescribeRecoverySnapshots lists those that are.", id, server)
	}
	return nil
}

// mayRun holds the quotas, and that a server is in one job at a time.
func (s *Service) mayRun(ctx context.Context, tx db.Tx, job drs.Job) error {
	servers, quotas := serversOf(job), s.Quotas.Of(job.Account)
	if n := len(servers); n > quotas.ServersPerJob {
		return drs.QuotaExceeded(drs.QuotaServersPerJob, drs.TypeJob, string(job.ID),
			"A job takes at most %d source servers, and the request names %d. Split it.", quotas.ServersPerJob, n)
	}
	if err := notBusy(ctx, tx, servers); err != nil {
		return err
	}
	jobs, inJobs, err := tx.Running(ctx, job.Account)
	if err != nil {
		return err
	}
	if jobs >= quotas.ConcurrentJobs {
		return drs.QuotaExceeded(drs.QuotaConcurrentJobs, drs.TypeJob, string(job.ID),
			"%d jobs are in progress, the most there may be. Wait until one has completed.", jobs)
	}
	if inJobs+len(servers) > quotas.ServersInAllJobs {
		return drs.QuotaExceeded(drs.QuotaServersInAllJobs, drs.TypeJob, string(job.ID),
			"Jobs in progress hold %d source servers and may hold %d. Wait until one has completed, or name fewer servers.",
			inJobs, quotas.ServersInAllJobs)
	}
	return nil
}

// notBusy refuses servers that a running job has.
func notBusy(ctx context.Context, tx db.Tx, servers []drs.SourceServerID) error {
	busy, err := tx.Busy(ctx, servers)
	if err != nil {
		return err
	}
	for _, id := range servers {
		if other, ok := busy[id]; ok {
			return conflict(id, "Source server %s is already being processed by job %s. Wait until it has completed.", id, other)
		}
	}
	return nil
}

func serversOf(job drs.Job) []drs.SourceServerID {
	ids := make([]drs.SourceServerID, 0, len(job.Servers))
	for _, p := range job.Servers {
		ids = append(ids, p.SourceServer)
	}
	return ids
}

func conflict(server drs.SourceServerID, format string, args ...any) error {
	return drs.Conflict(drs.TypeSourceServer, string(server), format, args...)
}

// now is the present as precisely as the tables keep it.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
