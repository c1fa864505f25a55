package main

import (
	"context"

	"lifeboat/internal/client"
	"lifeboat/internal/client/show"
)

type serversCommand struct {
	clientFlags
}

// Run lists the protected machines.
func (v *serversCommand) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	servers, err := c.Servers(ctx)
	if err != nil {
		return err
	}
	return v.result(struct {
		Servers []client.Server `json:"servers"`
	}{servers}, func(p *show.Printer) { p.Servers(servers) })
}
