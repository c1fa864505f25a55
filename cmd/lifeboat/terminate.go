package main

import (
	"context"

	"lifeboat/internal/client/show"
)

type terminateCommand struct {
	clientFlags
	confirmFlags
	Instances []string `arg:"" name:"instance" help:"IDs, first parts of IDs, or hostnames."`
	NoWait    bool     `help:"Return as soon as the job is accepted."`
}

// Run removes recovery instances with all they hold.
func (v *terminateCommand) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	instances, err := c.FindInstances(ctx, v.Instances)
	if err != nil {
		return err
	}
	plan := func(p *show.Printer) { p.Termination(instances) }
	if v.DryRun {
		return v.result(instancesDocument{DryRun: true, Instances: instances}, plan)
	}
	if err := say(plan); err != nil {
		return err
	}
	if err := v.confirm(ctx); err != nil {
		return err
	}
	job, err := c.Terminate(ctx, instances)
	if err != nil {
		return err
	}
	if v.NoWait {
		return v.accepted(job)
	}
	return v.follow(ctx, c, job.ID)
}
