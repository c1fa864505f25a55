package main

import (
	"context"

	"lifeboat/internal/client"
	"lifeboat/internal/client/show"
)

type instancesCommand struct {
	clientFlags
}

// Run lists the machines that were launched and are still there.
func (v *instancesCommand) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	instances, err := c.Instances(ctx)
	if err != nil {
		return err
	}
	return v.result(instancesDocument{Instances: instances}, func(p *show.Printer) { p.Instances(instances) })
}

// instancesDocument is what verbs about instances print as JSON.
type instancesDocument struct {
	DryRun    bool              `json:"dryRun,omitempty"`
	Instances []client.Instance `json:"instances"`
}
