package main

import (
	"context"
	"os"

	"golang.org/x/term"

	"lifeboat/internal/demo"
)

type demoCommand struct {
	Dir string `placeholder:"DIR" type:"path" help:"Work in this directory and keep it; a temporary one is used and removed by default."`
}

// Run tells a machine's death and return.
func (c *demoCommand) Run(ctx context.Context) error {
	return demo.Run(ctx, demo.Config{Dir: c.Dir, Out: os.Stdout, Terminal: term.IsTerminal(int(os.Stdout.Fd()))})
}
