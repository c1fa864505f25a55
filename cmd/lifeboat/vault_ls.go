package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"lifeboat/internal/client/show"
	"lifeboat/internal/drs"
	"lifeboat/internal/server"
)

type vaultLsCommand struct {
	vaultFlags
	Server string `arg:"" optional:"" help:"Hostname, ID, or first part of an ID: list its branches and points. All servers without it."`
}

// Run lists what is in the vault.
func (v *vaultLsCommand) Run(ctx context.Context) (err error) {
	open, err := v.look(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, open.Close()) }()
	if v.Server == "" {
		return v.servers(ctx, open)
	}
	known, err := open.Server(ctx, v.Server)
	if err != nil {
		return err
	}
	return v.server(ctx, open, known)
}

type listedPoint struct {
	ID          drs.RecoverySnapshotID `json:"id"`
	Taken       time.Time              `json:"taken"`
	Consistency drs.Consistency        `json:"consistency"`
	Method      drs.CutMethod          `json:"method"`
}

func (v *vaultLsCommand) server(ctx context.Context, open *server.OpenVault, known server.Known) error {
	points, damage := open.Vault.Points(ctx, known.ID)
	if damage != nil && len(points) == 0 {
		return damage
	}
	branches, err := open.Vault.Branches(ctx, known.ID)
	if err != nil {
		return err
	}
	list := make([]listedPoint, 0, len(points))
	for _, p := range slices.Backward(points) {
		list = append(list, listedPoint{p.ID, p.Taken.UTC(), p.Consistency, p.Method})
	}
	err = v.result(struct {
		Server   drs.SourceServerID `json:"server"`
		Hostname string             `json:"hostname"`
		Branches []string           `json:"branches"`
		Points   []listedPoint      `json:"points"`
	}{known.ID, known.Hostname, branches, list}, func(p *show.Printer) {
		rows := make([][]string, 0, len(list))
		for _, l := range list {
			rows = append(rows, []string{p.Moment(l.Taken), string(l.Consistency), string(l.Method), string(l.ID)})
		}
		p.Table([]string{"TAKEN (" + p.Zone() + ")", "CONSISTENCY", "METHOD", "ID"}, rows)
	})
	return errors.Join(err, damage)
}

type listedServer struct {
	ID       drs.SourceServerID `json:"id"`
	Hostname string             `json:"hostname"`
	Branches []string           `json:"branches"`
	Points   int                `json:"points"`
	Problem  string             `json:"problem,omitempty"`
}

func (v *vaultLsCommand) servers(ctx context.Context, open *server.OpenVault) error {
	known, err := open.Servers(ctx)
	if err != nil {
		return err
	}
	list := []listedServer{}
	for _, k := range known {
		s := listedServer{ID: k.ID, Hostname: k.Hostname}
		points, err := open.Vault.Points(ctx, k.ID)
		if err == nil {
			s.Branches, err = open.Vault.Branches(ctx, k.ID)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.Problem = err.Error()
		}
		s.Points = len(points)
		list = append(list, s)
	}
	return v.result(struct {
		Servers []listedServer `json:"servers"`
	}{list}, func(p *show.Printer) {
		rows := make([][]string, 0, len(list))
		for _, s := range list {
			rows = append(rows, []string{s.Hostname, fmt.Sprint(s.Points), fmt.Sprint(len(s.Branches)), string(s.ID)})
		}
		p.Table([]string{"HOSTNAME", "POINTS", "BRANCHES", "ID"}, rows)
		for _, s := range list {
			if s.Problem != "" {
				p.Printf("%s: %s\n", show.Clean(s.Hostname), show.Clean(s.Problem))
			}
		}
	})
}
