package main

import (
	"context"
	"fmt"

	"lifeboat/internal/client/show"
	"lifeboat/internal/server"
)

type vaultRotateKeyCommand struct {
	Data string `required:"" placeholder:"DIR" type:"path" help:"The data directory; its server must be stopped."`
	JSON bool   `name:"json" help:"Print the result as one JSON document."`
}

// Run gives the vault a new master key.
func (v *vaultRotateKeyCommand) Run(ctx context.Context) error {
	r, err := server.RotateKey(ctx, v.Data)
	if err != nil {
		return fmt.Errorf("%w. If it was cut short, run it again: until it is done the old key opens everything", err)
	}
	return printResult(v.JSON, r, func(p *show.Printer) {
		if r.From == "" {
			p.Printf("The change of the master key that was cut short is complete: the vault is sealed with %s.\n", r.To)
			return
		}
		p.Printf("The vault is sealed with a new master key, %s, in %s/master.key. Keys of %s were wrapped anew; no data was.\n",
			r.To, v.Data, show.Count(r.Servers, "source server"))
		p.Printf("Copy the new key to where you keep such things. The old one lies at %s: keep it for as long as there are older copies of the vault, then delete it.\n", r.Retired)
	})
}
