package main

import (
	"context"
	"errors"

	"lifeboat/internal/client"
	"lifeboat/internal/client/show"
)

type recoverCommand struct {
	clientFlags
	confirmFlags
	Servers []string `arg:"" name:"server" help:"Hostnames, IDs, or first parts of IDs."`
	Drill   bool     `help:"Only try: launch on the isolated network, and say in all records that it was a drill."`
	Point   string   `placeholder:"P" help:"Start from this recovery point of the one server named: an ID, the first part of one, or \"latest\"."`
	At      moment   `placeholder:"TIME" help:"Start each server from its newest point at or before a moment: RFC 3339, \"2006-01-02 15:04\", 15:04, 15m, \"2 hours ago\"."`
	NoWait  bool     `help:"Return as soon as the job is accepted."`
}

// Help is the long text of `lifeboat recover --help`.
func (v *recoverCommand) Help() string {
	return "Without --point or --at, a point of this very moment is taken if the server's agent still answers; " +
		"if it does not, the newest point that was kept is used. --point latest skips that and starts sooner when the server is known to be dead.\n\n" +
		"Instances of earlier launches of the same servers are removed first, drills and recoveries alike. " +
		"An instance with the tag lifeboat:termination-protection stays."
}

// Validate implements kong's check of the command line.
func (v *recoverCommand) Validate() error {
	switch {
	case v.Point != "" && v.At.at != nil:
		return errors.New("--point and --at both say where to start from: give one of them")
	case v.Point != "" && v.Point != client.LatestPoint && len(v.Servers) > 1:
		return errors.New("--point names a point of one server: name that server alone, or use --at for all of them")
	}
	return nil
}

// Run plans the recovery, shows the plan, orders it and follows it to its end.
func (v *recoverCommand) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	plan, err := c.Plan(ctx, client.Order{Servers: v.Servers, Drill: v.Drill, Point: v.Point, At: v.At.at})
	if err != nil {
		return err
	}
	if v.DryRun {
		return v.result(struct {
			DryRun bool        `json:"dryRun"`
			Plan   client.Plan `json:"plan"`
		}{true, plan}, func(p *show.Printer) { p.Plan(plan) })
	}
	if err := say(func(p *show.Printer) { p.Plan(plan) }); err != nil {
		return err
	}
	if len(plan.Removes()) > 0 {
		if err := v.confirm(ctx); err != nil {
			return err
		}
	}
	job, err := c.Start(ctx, plan)
	if err != nil {
		return err
	}
	if v.NoWait {
		return v.accepted(job)
	}
	return v.follow(ctx, c, job.ID)
}

// accepted prints a job that runs on without anybody watching.
func (f *clientFlags) accepted(job client.Job) error {
	return f.result(jobDocument{Job: job}, func(p *show.Printer) { p.Accepted(job) })
}
