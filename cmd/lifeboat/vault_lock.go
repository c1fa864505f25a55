package main

import (
	"context"
	"errors"
	"time"

	"lifeboat/internal/client/show"
	"lifeboat/internal/drs"
	"lifeboat/internal/server"
)

type vaultLockCommand struct {
	Data   string `required:"" placeholder:"DIR" type:"path" help:"The server's data directory. The work is done by its server when that runs."`
	Server string `arg:"" help:"Hostname, ID, or first part of an ID."`
	Point  string `required:"" placeholder:"P" help:"Recovery point: an ID, the first part of one, or \"latest\"."`
	Until  until  `required:"" placeholder:"TIME" help:"Until when: a date (2030-01-31), RFC 3339, or from now on (90d, 12h). It cannot be shortened later."`
	JSON   bool   `name:"json" help:"Print the result as one JSON document."`
}

// Run keeps a recovery point until a date.
func (v *vaultLockCommand) Run(ctx context.Context) (err error) {
	flags := vaultFlags{Data: v.Data}
	open, err := flags.look(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, open.Close()) }()
	known, err := open.Server(ctx, v.Server)
	if err != nil {
		return err
	}
	point, err := open.Point(ctx, known, v.Point)
	if err != nil {
		return err
	}
	if err := v.lock(ctx, known.ID, point.ID); err != nil {
		return err
	}
	return printResult(v.JSON, struct {
		Server drs.SourceServerID     `json:"server"`
		Point  drs.RecoverySnapshotID `json:"point"`
		Until  time.Time              `json:"until"`
	}{known.ID, point.ID, v.Until.at.UTC()}, func(p *show.Printer) {
		p.Printf("%s of %s, taken %s %s, is locked until %s.\n", point.ID, show.Clean(known.Hostname), p.Moment(point.Taken), p.Zone(), p.Moment(v.Until.at))
	})
}

func (v *vaultLockCommand) lock(ctx context.Context, id drs.SourceServerID, point drs.RecoverySnapshotID) error {
	if server.Running(v.Data) {
		online := clientFlags{Data: v.Data}
		c, err := online.connect(ctx)
		if err != nil {
			return err
		}
		return c.LockPoint(ctx, string(id), string(point), v.Until.at)
	}
	u, err := server.OpenUpkeep(ctx, v.Data, nil)
	if err != nil {
		return err
	}
	return errors.Join(u.Lock(ctx, id, point, v.Until.at), u.Close())
}
