package main

import (
	"context"
	"errors"

	"lifeboat/internal/client"
	"lifeboat/internal/client/show"
)

type jobsCommand struct {
	clientFlags
	Limit *int `placeholder:"N" help:"Show the newest N; 0 shows all. Without it: 20, all with --json."`
}

// jobsShown is how many jobs a person is shown who does not say.
const jobsShown = 20

// Validate implements kong's check of the command line.
func (v *jobsCommand) Validate() error {
	if v.Limit != nil && *v.Limit < 0 {
		return errors.New("--limit counts jobs: want 0 or more")
	}
	return nil
}

// Run lists drills, recoveries and terminations.
func (v *jobsCommand) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	limit := 0
	switch {
	case v.Limit != nil:
		limit = *v.Limit
	case !v.JSON:
		limit = jobsShown
	}
	jobs, err := c.Jobs(ctx, limit)
	if err != nil {
		return err
	}
	return v.result(struct {
		Jobs []client.Job `json:"jobs"`
	}{jobs}, func(p *show.Printer) { p.Jobs(jobs) })
}

type jobCommand struct {
	clientFlags
	ID     string `arg:"" optional:"" help:"ID of the job, or the first part of it; without one, the newest."`
	NoWait bool   `help:"Show a running job as it stands; without it, the job is followed to its end."`
}

// Run shows one job with its log, and follows it while it runs.
func (v *jobCommand) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	id, err := c.FindJob(ctx, v.ID)
	if err != nil {
		return err
	}
	job, err := c.Job(ctx, id)
	if err != nil {
		return err
	}
	if job.Done() || v.NoWait {
		return v.ended(job, func(p *show.Printer) { p.Job(job) })
	}
	return v.follow(ctx, c, id)
}
