package main

import (
	"context"

	"lifeboat/internal/client/show"
	"lifeboat/internal/drs"
	"lifeboat/internal/server"
)

type vaultKeepDatabaseCommand struct {
	Data string `required:"" placeholder:"DIR" type:"path" help:"The data directory; its server must be stopped."`
	JSON bool   `name:"json" help:"Print the result as one JSON document."`
}

// Run makes an old copy of the database count.
func (v *vaultKeepDatabaseCommand) Run(ctx context.Context) error {
	replaced, err := server.KeepDatabase(ctx, v.Data)
	if err != nil {
		return err
	}
	result := struct {
		Configuration bool                 `json:"configuration"`
		Servers       []drs.SourceServerID `json:"servers"`
	}{Servers: []drs.SourceServerID{}}
	for _, id := range replaced {
		if id == "" {
			result.Configuration = true
		} else {
			result.Servers = append(result.Servers, id)
		}
	}
	return printResult(v.JSON, result, func(p *show.Printer) {
		if len(replaced) == 0 {
			p.Printf("The vault keeps nothing newer than the database: nothing was done.\n")
			return
		}
		if result.Configuration {
			p.Printf("The vault keeps a newer configuration (templates, plans, users, certificates): the next start replaces it with that of the database.\n")
		}
		for _, id := range result.Servers {
			p.Printf("%s: the vault keeps newer settings; the next start replaces them.\n", id)
		}
		p.Printf("Source servers that registered since are not in the database; their agents must register again. Now start the server: lifeboat server --data %s\n", v.Data)
	})
}
