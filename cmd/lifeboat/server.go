package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"lifeboat/internal/recovery/machine"
	"lifeboat/internal/server"
)

type serverCommand struct {
	Data              string        `required:"" placeholder:"DIR" help:"Directory of keys, database, vault and instances. The first start makes it; later starts refuse to invent what is missing."`
	Listen            string        `placeholder:"127.0.0.1:7443" help:"Address of the API."`
	ReplicationListen string        `placeholder:"127.0.0.1:1500" help:"Address that agents replicate to."`
	NBDListen         string        `name:"nbd-listen" placeholder:"HOST:PORT" help:"Serve disks of recovery points as block devices there, over TLS, to those who ask with lifeboat nbd. Off by default."`
	Vault             string        `placeholder:"file:DIR|s3://BUCKET" help:"Where recovery points are kept: a directory, by default within --data, or s3://BUCKET[/PREFIX]?endpoint=URL&region=NAME. Fixed by the first start; keys of a bucket are looked for in AWS_ACCESS_KEY_ID and ~/.aws at each."`
	CacheSize         byteSize      `default:"10GiB" help:"Local cache of a vault in a bucket, within --data; 0 for none. It may be deleted at any time."`
	DB                string        `name:"db" placeholder:"sqlite:FILE" help:"Where the tables are kept; within --data by default. Fixed by the first start."`
	Machines          string        `default:"qemu" help:"Where recovered machines run: qemu."`
	Epoch             time.Duration `default:"5s" help:"Spacing of recovery points."`
	Journal           *period       `placeholder:"TIME" help:"Keep every recovery point for so long, 0 to 90d; after that the server's point-in-time policy says which stay. Kept in --data for later starts and lifeboat vault gc; 4h if never given."`
	LockDays          int           `default:"0" placeholder:"N" help:"Lock a recovery point of each hour for so many days: nothing removes it before. The tag lifeboat:lock-days of a source server overrides it."`
	ScrubDays         int           `default:"30" placeholder:"N" help:"Verify everything in the vault once in so many days, a share each day; 0: never."`
	DrillNetwork      string        `default:"isolated" placeholder:"NET" help:"Network of drills: isolated, user (out through this host) or bridge=NAME."`
	RecoveryNetwork   string        `default:"user" placeholder:"NET" help:"Network of recoveries: isolated, user or bridge=NAME."`
	Region            string        `placeholder:"us-east-1" help:"AWS region to answer for. Fixed by the first start."`
	Account           string        `placeholder:"NUMBER" help:"Account number, 12 digits; made up by default. Fixed by the first start."`
	LogLevel          slog.Level    `default:"info" help:"debug, info, warn or error."`
}

// Run is the server until it is told to stop.
func (c *serverCommand) Run(ctx context.Context) error {
	drill, err := machine.ParseNetwork(c.DrillNetwork)
	if err != nil {
		return usageError{fmt.Errorf("--drill-network: %w", err)}
	}
	recovery, err := machine.ParseNetwork(c.RecoveryNetwork)
	if err != nil {
		return usageError{fmt.Errorf("--recovery-network: %w", err)}
	}
	config := server.Config{
		Data: c.Data, Listen: c.Listen, ReplicationListen: c.ReplicationListen, NBDListen: c.NBDListen,
		Vault: c.Vault, DB: c.DB, CacheSize: c.CacheSize.orNone(), Machines: c.Machines, Epoch: c.Epoch, ScrubDays: c.ScrubDays, Journal: c.Journal.duration(), LockDays: c.LockDays,
		DrillNetwork: drill, RecoveryNetwork: recovery,
		Region: c.Region, Account: c.Account, Version: version,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: c.LogLevel})),
	}
	if err := config.Check(); err != nil {
		return usageError{err}
	}
	return server.Run(ctx, config)
}
