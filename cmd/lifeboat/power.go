package main

import (
	"context"
	"os"

	"lifeboat/internal/client"
	"lifeboat/internal/client/show"
)

type startCommand struct {
	clientFlags
	Instances []string `arg:"" name:"instance" help:"IDs, first parts of IDs, or hostnames."`
	FromVault bool     `help:"Where the server's host has lost what the machines wrote: make their disks again as they were shipped to the vault, until seconds before."`
}

// Run starts machines that were stopped, or were launched with the disposition
// STOPPED.
func (v *startCommand) Run(ctx context.Context) error {
	start := (*client.Client).StartMachine
	if v.FromVault {
		start = (*client.Client).StartMachineFromVault
	}
	return v.power(ctx, v.Instances, start, "RUNNING")
}

type stopCommand struct {
	clientFlags
	Instances []string `arg:"" name:"instance" help:"IDs, first parts of IDs, or hostnames."`
}

// Run powers machines off. Their disks stay as they are; start goes on with them.
func (v *stopCommand) Run(ctx context.Context) error {
	return v.power(ctx, v.Instances, (*client.Client).StopMachine, "STOPPED")
}

// power gives all machines the order before it waits for any.
func (f *clientFlags) power(ctx context.Context, names []string, order func(*client.Client, context.Context, string) error, state string) error {
	c, err := f.connect(ctx)
	if err != nil {
		return err
	}
	instances, err := c.FindInstances(ctx, names)
	if err != nil {
		return err
	}
	for _, i := range instances {
		if err := order(c, ctx, i.ID); err != nil {
			return err
		}
	}
	for n, i := range instances {
		if instances[n], err = c.AwaitState(ctx, i.ID, state); err != nil {
			return err
		}
	}
	return f.result(instancesDocument{Instances: instances}, func(p *show.Printer) { p.Instances(instances) })
}

type consoleCommand struct {
	Data     string `placeholder:"DIR" type:"path" help:"Reach the server whose data directory this is, on its own host. Without it, the AWS_… variables are used that lifeboat env prints."`
	Instance string `arg:"" help:"ID, first part of an ID, or hostname."`
	Follow   bool   `short:"f" help:"Go on with what the machine prints, until interrupted."`
}

// Run prints what a machine's serial console has shown.
func (v *consoleCommand) Run(ctx context.Context) error {
	c, err := (&clientFlags{Data: v.Data}).connect(ctx)
	if err != nil {
		return err
	}
	instances, err := c.FindInstances(ctx, []string{v.Instance})
	if err != nil {
		return err
	}
	return c.Console(ctx, instances[0].ID, v.Follow, os.Stdout)
}
