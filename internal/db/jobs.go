package db

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

type jobRow struct {
	bun.BaseModel `bun:"table:jobs"`

	ID        string `bun:",pk"`
	Account   string
	Region    string
	Type      string
	Initiated string
	Status    string
	Created   stamp
	Ended     stamp
	Tags      document[drs.Tags]
	Version   int64 // set by triggers
}

type jobServerRow struct {
	bun.BaseModel `bun:"table:job_servers"`

	Job          string `bun:",pk"`
	Ordinal      int64  `bun:",pk"`
	SourceServer string
	Snapshot     string
	Instance     string
	Status       string
	Actions      document[[]drs.LaunchActionRun]
}

func (r jobRow) resource(servers []jobServerRow, networks []drs.ParticipatingNetwork) drs.Job {
	job := drs.Job{
		ID: drs.JobID(r.ID), Account: drs.Account{ID: r.Account, Region: r.Region},
		Type: drs.JobType(r.Type), Initiated: drs.InitiatedBy(r.Initiated), Status: drs.JobStatus(r.Status),
		Created: r.Created.Time(), Ended: r.Ended.Time(), Tags: r.Tags.V, Networks: networks,
	}
	job.Servers = convert(servers, func(s jobServerRow) drs.ParticipatingServer {
		return drs.ParticipatingServer{
			SourceServer: drs.SourceServerID(s.SourceServer), Snapshot: drs.RecoverySnapshotID(s.Snapshot),
			Instance: drs.RecoveryInstanceID(s.Instance), Status: drs.LaunchStatus(s.Status), Actions: s.Actions.V,
		}
	})
	return job
}

// InsertJob adds a job and its servers.
func (tx Tx) InsertJob(ctx context.Context, job drs.Job) error {
	row := jobRow{
		ID: string(job.ID), Account: job.Account.ID, Region: job.Account.Region, Type: string(job.Type),
		Initiated: string(job.Initiated), Status: string(job.Status), Created: stampOf(job.Created),
		Ended: stampOf(job.Ended), Tags: document[drs.Tags]{job.Tags},
	}
	if _, err := tx.NewInsert().Model(&row).Exec(ctx); err != nil {
		return fmt.Errorf("insert job %s: %w", job.ID, err)
	}
	servers := make([]jobServerRow, 0, len(job.Servers))
	for i, s := range job.Servers {
		servers = append(servers, jobServerRow{
			Job: string(job.ID), Ordinal: int64(i), SourceServer: string(s.SourceServer),
			Snapshot: string(s.Snapshot), Instance: string(s.Instance), Status: string(s.Status),
		})
	}
	if len(servers) > 0 {
		if _, err := tx.NewInsert().Model(&servers).Exec(ctx); err != nil {
			return fmt.Errorf("insert the servers of job %s: %w", job.ID, err)
		}
	}
	return tx.insertNetworks(ctx, job)
}

// Job returns one job of the account, or ErrAbsent.
func (d *DB) Job(ctx context.Context, account drs.Account, id drs.JobID) (drs.Job, error) {
	var row jobRow
	err := d.read.NewSelect().Model(&row).
		Where("id = ? AND account = ? AND region = ?", id, account.ID, account.Region).Scan(ctx)
	if err != nil {
		return drs.Job{}, fmt.Errorf("look up job %s: %w", id, absent(err))
	}
	jobs, err := withServers(ctx, d.read, []jobRow{row})
	if err != nil {
		return drs.Job{}, err
	}
	return jobs[0], nil
}

// JobByID is Job for the job's own worker, which knows no account.
func (d *DB) JobByID(ctx context.Context, id drs.JobID) (drs.Job, error) {
	var row jobRow
	if err := d.read.NewSelect().Model(&row).Where("id = ?", id).Scan(ctx); err != nil {
		return drs.Job{}, fmt.Errorf("look up job %s: %w", id, absent(err))
	}
	return d.Job(ctx, drs.Account{ID: row.Account, Region: row.Region}, id)
}

// JobByID is DB.JobByID within the transaction.
func (tx Tx) JobByID(ctx context.Context, id drs.JobID) (drs.Job, error) {
	var row jobRow
	if err := tx.NewSelect().Model(&row).Where("id = ?", id).Scan(ctx); err != nil {
		return drs.Job{}, fmt.Errorf("look up job %s: %w", id, absent(err))
	}
	jobs, err := withServers(ctx, tx, []jobRow{row})
	if err != nil {
		return drs.Job{}, err
	}
	return jobs[0], nil
}

// JobFilter narrows a listing; zero members do not.
type JobFilter struct {
	IDs      []drs.JobID
	From, To time.Time // both inclusive, of the job's creation
}

// Jobs lists the jobs of an account, newest first. They share what they hold:
// nobody may change it.
func (d *DB) Jobs(ctx context.Context, account drs.Account, f JobFilter, page Page) ([]drs.Job, string, error) {
	listed, next, err := d.ListJobs(ctx, account, f, page)
	return values(listed), next, err
}

// ListJobs is Jobs for those who also keep what they write of them.
func (d *DB) ListJobs(ctx context.Context, account drs.Account, f JobFilter, page Page) ([]*Listed[drs.Job], string, error) {
	q := d.read.NewSelect().Table("jobs").Column("created", "id", "version").
		Where("account = ? AND region = ?", account.ID, account.Region)
	if len(f.IDs) > 0 {
		q = q.Where("id IN (?)", bun.List(f.IDs))
	}
	if !f.From.IsZero() {
		q = q.Where("created >= ?", stampOf(f.From))
	}
	if !f.To.IsZero() {
		q = q.Where("created <= ?", stampOf(f.To))
	}
	q, err := page.by(q, "created", "id", true)
	if err != nil {
		return nil, "", err
	}
	found, next, err := marks(ctx, q, page)
	if err != nil {
		return nil, "", fmt.Errorf("list jobs: %w", err)
	}
	jobs, err := d.jobs.list(found, func(ids []string) (map[string]*Listed[drs.Job], error) { return d.readJobs(ctx, ids) })
	if err != nil {
		return nil, "", fmt.Errorf("list jobs: %w", err)
	}
	return jobs, next, nil
}

// readJobs reads jobs that are not on the shelf, and puts them there. What takes
// part in a job is read after its version, and so is never older than that.
func (d *DB) readJobs(ctx context.Context, ids []string) (map[string]*Listed[drs.Job], error) {
	var rows []jobRow
	if err := d.read.NewSelect().Model(&rows).Where("id IN (?)", bun.List(ids)).Scan(ctx); err != nil {
		return nil, err
	}
	jobs, err := withServers(ctx, d.read, rows)
	if err != nil {
		return nil, err
	}
	out := make(map[string]*Listed[drs.Job], len(jobs))
	for i, job := range jobs {
		l := &Listed[drs.Job]{V: job}
		out[rows[i].ID] = l
		d.jobs.put(rows[i].ID, rows[i].Version, bytesOfJob(job), l)
	}
	return out, nil
}

// bytesOfJob is about what the texts of a job have, with those of its parts.
func bytesOfJob(job drs.Job) int {
	bytes := 200 + 100*len(job.Networks)
	for name, value := range job.Tags {
		bytes += len(name) + len(value)
	}
	for _, s := range job.Servers {
		bytes += 100
		for _, run := range s.Actions {
			bytes += 500 + len(run.Reason)
		}
	}
	return bytes
}

func withServers(ctx context.Context, db bun.IDB, rows []jobRow) ([]drs.Job, error) {
	servers := map[string][]jobServerRow{}
	if len(rows) > 0 {
		var all []jobServerRow
		ids := convert(rows, func(r jobRow) string { return r.ID })
		err := db.NewSelect().Model(&all).Where("job IN (?)", bun.List(ids)).Order("job", "ordinal").Scan(ctx)
		if err != nil {
			return nil, fmt.Errorf("list the servers of jobs: %w", err)
		}
		for _, s := range all {
			servers[s.Job] = append(servers[s.Job], s)
		}
	}
	networks, err := networksOf(ctx, db, rows)
	if err != nil {
		return nil, err
	}
	return convert(rows, func(r jobRow) drs.Job { return r.resource(servers[r.ID], networks[r.ID]) }), nil
}

// Busy returns those of the servers that a running job is processing, with the
// job. It looks from the running jobs, which are few, and not from the servers,
// whose past jobs are many: SQLite would choose otherwise.
func (tx Tx) Busy(ctx context.Context, servers []drs.SourceServerID) (map[drs.SourceServerID]drs.JobID, error) {
	var rows []jobServerRow
	err := tx.NewRaw(`SELECT s.* FROM jobs INDEXED BY jobs_running CROSS JOIN job_servers s ON s.job = jobs.id
		WHERE jobs.status <> 'COMPLETED' AND s.source_server IN (?)`, bun.List(servers)).Scan(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("look up running jobs: %w", err)
	}
	busy := map[drs.SourceServerID]drs.JobID{}
	for _, r := range rows {
		busy[drs.SourceServerID(r.SourceServer)] = drs.JobID(r.Job)
	}
	return busy, nil
}

// Unfinished lists the jobs of all accounts that are not completed, oldest first.
func (tx Tx) Unfinished(ctx context.Context) ([]drs.JobID, error) {
	var ids []drs.JobID
	err := tx.NewRaw("SELECT id FROM jobs INDEXED BY jobs_running WHERE status <> 'COMPLETED' ORDER BY created, id").Scan(ctx, &ids)
	if err != nil {
		return nil, fmt.Errorf("list unfinished jobs: %w", err)
	}
	return ids, nil
}

// Running counts the account's jobs that are not completed, and their servers.
func (tx Tx) Running(ctx context.Context, account drs.Account) (jobs, servers int, err error) {
	err = tx.NewRaw(`SELECT COUNT(DISTINCT jobs.id), COUNT(job_servers.job)
		FROM jobs INDEXED BY jobs_running LEFT JOIN job_servers ON job_servers.job = jobs.id
		WHERE jobs.account = ? AND jobs.region = ? AND jobs.status <> 'COMPLETED'`,
		account.ID, account.Region).Scan(ctx, &jobs, &servers)
	if err != nil {
		return 0, 0, fmt.Errorf("count running jobs: %w", err)
	}
	return jobs, servers, nil
}

// SetJobStatus moves a job on along its transition table. Completing it sets
// its end.
func (tx Tx) SetJobStatus(ctx context.Context, id drs.JobID, to drs.JobStatus) error {
	var row jobRow
	if err := tx.NewSelect().Model(&row).Where("id = ?", id).Scan(ctx); err != nil {
		return fmt.Errorf("look up job %s: %w", id, absent(err))
	}
	next, err := drs.JobStatus(row.Status).Next(to)
	if err != nil {
		return fmt.Errorf("job %s: %w", id, err)
	}
	row.Status = string(next)
	if next == drs.JobCompleted && row.Ended == 0 {
		row.Ended = stampOf(time.Now())
	}
	if _, err := tx.NewUpdate().Model(&row).Column("status", "ended").WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("set status of job %s: %w", id, err)
	}
	return nil
}

// SetLaunchStatus moves one server of a job on along its transition table. part
// is the instance that the job names for the server, which tells two instances
// of one server apart; launched, if not empty, is set as the instance from now
// on.
func (tx Tx) SetLaunchStatus(ctx context.Context, id drs.JobID, server drs.SourceServerID, part drs.RecoveryInstanceID, to drs.LaunchStatus, launched drs.RecoveryInstanceID) error {
	var row jobServerRow
	err := tx.NewSelect().Model(&row).Where("job = ? AND source_server = ? AND instance = ?", id, server, part).Scan(ctx)
	if err != nil {
		return fmt.Errorf("look up %s in job %s: %w", server, id, absent(err))
	}
	next, err := drs.LaunchStatus(row.Status).Next(to)
	if err != nil {
		return fmt.Errorf("%s in job %s: %w", server, id, err)
	}
	row.Status = string(next)
	if launched != "" {
		row.Instance = string(launched)
	}
	if _, err := tx.NewUpdate().Model(&row).Column("status", "instance").WherePK().Exec(ctx); err != nil {
		return fmt.Errorf("set launch status of %s in job %s: %w", server, id, err)
	}
	return nil
}

// SetActionRuns keeps what became of the post-launch actions of one server.
func (tx Tx) SetActionRuns(ctx context.Context, id drs.JobID, server drs.SourceServerID, runs []drs.LaunchActionRun) error {
	_, err := tx.NewUpdate().Model((*jobServerRow)(nil)).Set("actions = ?", document[[]drs.LaunchActionRun]{runs}).
		Where("job = ? AND source_server = ?", id, server).Exec(ctx)
	if err != nil {
		return fmt.Errorf("set the action runs of %s in job %s: %w", server, id, err)
	}
	return nil
}

// DeleteJob forgets a job with its log. One that has not completed is refused
// with a *drs.Error; ErrAbsent: the account has no such job.
func (d *DB) DeleteJob(ctx context.Context, account drs.Account, id drs.JobID) error {
	return d.InTx(ctx, func(ctx context.Context, tx Tx) error {
		var row jobRow
		if err := one(ctx, tx, &row, account, string(id)); err != nil {
			return err
		}
		if status := drs.JobStatus(row.Status); status != drs.JobCompleted {
			return drs.Conflict(drs.TypeJob, string(id), "Job %s is %s. Delete it when it has completed.", id, status)
		}
		return remove(ctx, tx, (*jobRow)(nil), account, string(id))
	})
}

// EndLaunch marks what a job launched of a server as terminated; a job that is
// gone, or did not get that far, is left as it is.
func (tx Tx) EndLaunch(ctx context.Context, id drs.JobID, server drs.SourceServerID) error {
	_, err := tx.NewUpdate().Model((*jobServerRow)(nil)).Set("status = ?", string(drs.LaunchTerminated)).
		Where("job = ? AND source_server = ? AND status = ?", id, server, string(drs.LaunchLaunched)).Exec(ctx)
	if err != nil {
		return fmt.Errorf("end the launch of %s by job %s: %w", server, id, err)
	}
	return nil
}
