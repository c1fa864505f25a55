package recovery

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/nbd"
)

type queueTx = *sql.Tx

// jobArgs is a job as the queue keeps it: only its ID, for the job itself has
// its own tables.
type jobArgs struct {
	Job drs.JobID `json:"job"`
}

// Kind names the work in the queue's table.
func (jobArgs) Kind() string { return "drs_job" }

type worker struct {
	river.WorkerDefaults[jobArgs]
	service *Service
}

// Timeout is none: a job may wait for points and boots as long as they take.
func (w *worker) Timeout(*river.Job[jobArgs]) time.Duration { return -1 }

// NextRetry keeps a job that could not go on (a full disk, a locked database)
// coming back soon.
func (w *worker) NextRetry(job *river.Job[jobArgs]) time.Time {
	return time.Now().Add(min(time.Duration(job.Attempt)*time.Second, 30*time.Second))
}

func (w *worker) Work(ctx context.Context, job *river.Job[jobArgs]) error {
	return w.service.runJob(ctx, job.Args.Job)
}

// attempts is how often a job comes back before the queue gives it up. Failures
// of a server are the job's result and no failure of it, so only a database or
// vault that stays broken for hours uses them up; a restart begins anew.
const attempts = 1000

// jobsAtOnce bounds the jobs that run at a time, of all accounts: enough that those
// of one, which its quota bounds, leave room for the others'. What a job costs is
// bounded elsewhere, see Config.Launches.
const jobsAtOnce = 500

func (s *Service) openQueue(ctx context.Context) (*river.Client[queueTx], error) {
	driver := riversqlite.New(s.DB.SQL())
	quiet := slog.New(atLeast{slog.LevelWarn, s.Log.Handler()})
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: quiet})
	if err != nil {
		return nil, fmt.Errorf("prepare the job queue: %w", err)
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, fmt.Errorf("prepare the job queue: %w", err)
	}
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &worker{service: s}); err != nil {
		return nil, fmt.Errorf("prepare the job queue: %w", err)
	}
	client, err := river.NewClient(driver, &river.Config{
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: jobsAtOnce}},
		Workers:           workers,
		MaxAttempts:       attempts,
		JobTimeout:        -1,
		FetchCooldown:     20 * time.Millisecond,
		FetchPollInterval: 500 * time.Millisecond,
		Logger:            quiet,
		// This process is the only worker of its database: what runs is ours, and
		// what a killed one left running is taken up in resume.
		RescueStuckJobsAfter: 365 * 24 * time.Hour,
	})
	if err != nil {
		return nil, fmt.Errorf("prepare the job queue: %w", err)
	}
	return client, nil
}

// enqueue adds the job to the queue in the transaction that creates it.
func (s *Service) enqueue(ctx context.Context, tx db.Tx, job drs.JobID) error {
	if _, err := s.queue.InsertTx(ctx, tx.Tx.Tx, jobArgs{job}, nil); err != nil {
		return fmt.Errorf("queue job %s: %w", job, err)
	}
	return nil
}

// resume queues every job that is not completed, as nobody works on it: this
// process has not begun, and another one has ended. What the queue still holds of
// them is replaced, whatever state a killed process left it in.
func (s *Service) resume(ctx context.Context) error {
	return s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM river_job WHERE kind = ?", jobArgs{}.Kind()); err != nil {
			return fmt.Errorf("resume jobs: %w", err)
		}
		unfinished, err := tx.Unfinished(ctx)
		if err != nil {
			return fmt.Errorf("resume jobs: %w", err)
		}
		for _, id := range unfinished {
			if err := s.enqueue(ctx, tx, id); err != nil {
				return err
			}
		}
		return nil
	})
}

// Run serves the disks of all instances and works on jobs until ctx ends. Jobs
// that are running then are resumed by the next Run; machines keep running.
func (s *Service) Run(ctx context.Context) error {
	defer s.end()
	if err := errors.Join(s.resume(ctx), s.exports.reopen(ctx)); err != nil {
		if ctx.Err() != nil {
			return nil // told to stop before it began
		}
		return err
	}
	// Machines connect as soon as they start, so this comes before the queue.
	listener, err := nbd.ListenUnix(ctx, s.Socket)
	if err != nil && ctx.Err() != nil {
		return nil // told to stop before it began
	}
	if err != nil {
		return fmt.Errorf("serve disks: %w", err)
	}
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	served := make(chan error, 1)
	go func() { served <- s.exports.serve(serving, listener) }()

	if err := s.queue.Start(context.WithoutCancel(ctx)); err != nil {
		stopServing()
		return errors.Join(fmt.Errorf("start the job queue: %w", err), <-served)
	}
	s.tasks.Go(func() { s.reviveMachines(s.life) })
	s.tasks.Go(func() { s.removeLeavings(s.life) })

	select {
	case <-ctx.Done():
	case err = <-served:
		served <- nil
	}
	s.end()
	s.tasks.Wait()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if stopErr := s.queue.StopAndCancel(stop); err == nil && stopErr != nil {
		err = fmt.Errorf("stop the job queue: %w", stopErr)
	}
	stopServing()
	if serveErr := <-served; err == nil {
		err = serveErr
	}
	return err
}

// atLeast hides the queue's chatter below a level.
type atLeast struct {
	level slog.Level
	slog.Handler
}

func (h atLeast) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= h.level && h.Handler.Enabled(ctx, l)
}

func (h atLeast) WithAttrs(a []slog.Attr) slog.Handler {
	return atLeast{h.level, h.Handler.WithAttrs(a)}
}
func (h atLeast) WithGroup(n string) slog.Handler { return atLeast{h.level, h.Handler.WithGroup(n)} }

var _ rivertype.JobArgs = jobArgs{}
