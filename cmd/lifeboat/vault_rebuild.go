package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"lifeboat/internal/client/show"
	"lifeboat/internal/server"
)

type vaultRebuildCommand struct {
	Data            string `required:"" placeholder:"DIR" type:"path" help:"The data directory; its server must be stopped. With --master-key: where a new one goes."`
	MasterKey       string `placeholder:"FILE" type:"path" help:"Make a new data directory over an existing vault with this master key."`
	Vault           string `placeholder:"LOCATION" help:"The existing vault, such as file:DIR; within --data by default. Only with --master-key."`
	DB              string `name:"db" placeholder:"sqlite:FILE" help:"Where the tables are to be kept. Only with --master-key."`
	Account         string `placeholder:"NUMBER" help:"Account of the new data directory; that of the servers in the vault by default."`
	Region          string `placeholder:"REGION" help:"Region of the new data directory; that of the servers in the vault by default."`
	ReplaceDatabase bool   `help:"Make the database anew although it is whole."`
	JSON            bool   `name:"json" help:"Print the result as one JSON document."`
}

// Run makes the catalogue again.
func (v *vaultRebuildCommand) Run(ctx context.Context) error {
	work := server.Rebuild{
		Data: v.Data, MasterKey: v.MasterKey, Vault: v.Vault, DB: v.DB, Account: v.Account, Region: v.Region, Replace: v.ReplaceDatabase,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	began := time.Now()
	done, err := work.Run(ctx)
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted: nothing was changed; run it again")
	}
	if err != nil {
		return err
	}
	return printResult(v.JSON, done, func(p *show.Printer) {
		points := 0
		var rows [][]string
		for _, s := range done.Servers {
			points += s.Points
			rows = append(rows, []string{s.Hostname, fmt.Sprint(s.Points), string(s.ID)})
		}
		what := "The database"
		if done.NewDataDir {
			what = "A new data directory"
		}
		p.Printf("%s was made from the vault in %s: %s, %s.\n", what, show.Duration(time.Since(began)),
			show.Count(len(done.Servers), "source server"), show.Count(points, "recovery point"))
		if len(rows) > 0 {
			p.Table([]string{"HOSTNAME", "POINTS", "ID"}, rows)
		}
		for _, s := range done.Servers {
			if s.Problem != "" {
				p.Printf("%s: %s\n", show.Clean(s.Hostname), show.Clean(s.Problem))
			}
		}
		if done.SetAside != "" {
			p.Printf("The database before lies at %s; delete it when it is no longer needed.\n", done.SetAside)
		}
		if done.Before != nil {
			p.Printf("The vault was that of another data directory, on host %s. If its server still runs, it stops by itself.\n", show.Clean(done.Before.Host))
		}
		if n := len(done.Instances); n > 0 {
			p.Printf("%s came back, too.\n", show.Count(n, "recovery instance"))
		}
		if n := len(done.Shipped); n > 0 {
			p.Printf("%s came back without disks, which are in the vault as they were seconds before: when the server runs, `lifeboat start INSTANCE --from-vault` "+
				"makes them again for %s.\n", show.Count(n, "recovery instance"), strings.Join(done.Shipped, " "))
		}
		if n := len(done.Lost); n > 0 {
			p.Printf("%s in %s/instances without a record: %s. Their disks are kept, and no table knows them. Delete those that are not needed.\n",
				show.Count(n, "recovery instance"), done.Data, strings.Join(done.Lost, " "))
		}
		if len(done.Configuration) > 0 {
			var kinds []string
			for _, kind := range slices.Sorted(maps.Keys(done.Configuration)) {
				kinds = append(kinds, fmt.Sprintf("%d in %s", done.Configuration[kind], strings.ReplaceAll(kind, "_", " ")))
			}
			p.Printf("What was set up came back, too: %s.\n", strings.Join(kinds, ", "))
		}
		if done.ConfigurationProblem != "" {
			p.Printf("Templates, recovery plans, launch actions, networks, users and webhooks did not come back: %s.\n", show.Clean(done.ConfigurationProblem))
		}
		if done.NewDataDir && done.SameIdentity {
			p.Printf("The certificate authority and the access keys are those of before. Agents go on by themselves if the server listens where it did, " +
				"under the same name or address; else start each one again with the new --server.\n")
		}
		if !done.SameIdentity {
			p.Printf("The certificate authority and the access keys are new. On each protected machine, remove the agent's state directory and start the agent "+
				"again with a fresh install token (`lifeboat env --data %s`): it becomes the source server that it was, and sends only what has changed.\n", done.Data)
		}
		p.Printf("Now start the server: lifeboat server --data %s\n", done.Data)
	})
}
