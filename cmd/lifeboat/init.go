package main

import (
	"context"

	"lifeboat/internal/client/show"
)

type initCommand struct {
	clientFlags
}

// Run initializes the account; doing it again changes nothing.
func (v *initCommand) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	if err := c.Initialize(ctx); err != nil {
		return err
	}
	return v.result(struct {
		Initialized bool `json:"initialized"`
	}{true}, (*show.Printer).Initialized)
}
