package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"lifeboat/internal/client/show"
	"lifeboat/internal/server"
	"lifeboat/internal/vault"
)

type vaultStatCommand struct {
	vaultFlags
	Server string `arg:"" optional:"" help:"Hostname, ID, or first part of an ID; all servers without it."`
	Points bool   `help:"Show what each recovery point holds, and holds alone. Opens every one of them."`
}

// Validate implements kong's check of the command line.
func (v *vaultStatCommand) Validate() error {
	if v.Points && v.Server == "" {
		return errors.New("--points is about one server: name it")
	}
	return nil
}

// serverStat is what the verb prints of a server as JSON.
type serverStat struct {
	Hostname string `json:"hostname"`
	vault.Usage
	Amplification float64            `json:"amplification"`
	PointUsages   []vault.PointUsage `json:"pointUsages,omitempty"`
	Problem       string             `json:"problem,omitempty"` // why some figures are missing
	BeingMade     bool               `json:"beingMade,omitempty"`
}

// Run shows what the vault holds and what that takes.
func (v *vaultStatCommand) Run(ctx context.Context) (err error) {
	open, err := v.look(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, open.Close()) }()
	servers, err := open.Servers(ctx)
	if v.Server != "" && err == nil {
		var one server.Known
		one, err = open.Server(ctx, v.Server)
		servers = []server.Known{one}
	}
	if err != nil {
		return err
	}
	var scrub *server.Scrubbed
	if v.Data != "" {
		state, err := server.ReadScrubbed(v.Data)
		if err != nil {
			return err
		}
		scrub = &state
	}
	stats := []serverStat{}
	total := map[string]vault.KindUsage{}
	for _, k := range servers {
		u, err := open.Vault.Usage(ctx, k.ID)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s := serverStat{Hostname: k.Hostname, Usage: u, Amplification: u.Amplification()}
		if s.BeingMade = open.HalfMade(ctx, k.ID, err); !s.BeingMade {
			s.Problem = message(err)
		}
		if v.Points && err == nil {
			err := open.Vault.PointUsages(ctx, k.ID, func(p vault.PointUsage) error {
				s.PointUsages = append(s.PointUsages, p)
				return nil
			})
			if err != nil {
				return err
			}
		}
		for kind, n := range u.Kinds {
			total[kind] = vault.KindUsage{Objects: total[kind].Objects + n.Objects, Bytes: total[kind].Bytes + n.Bytes}
		}
		stats = append(stats, s)
	}
	return v.result(struct {
		Servers []serverStat               `json:"servers"`
		Kinds   map[string]vault.KindUsage `json:"kinds"`
		Scrub   *server.Scrubbed           `json:"scrub,omitempty"`
		// Troubles keep a server from storing more.
		Troubles []string `json:"troubles"`
	}{stats, total, scrub, open.Troubles()}, func(p *show.Printer) {
		v.print(p, stats, total)
		for _, text := range open.Troubles() {
			p.Printf("\nAttention: %s.\n", show.Clean(text))
		}
		printScrub(p, scrub)
	})
}

func (v *vaultStatCommand) print(p *show.Printer, stats []serverStat, total map[string]vault.KindUsage) {
	if len(stats) == 0 {
		p.Printf("No source servers in the vault yet.\n")
		return
	}
	var rows [][]string
	for _, s := range stats {
		rows = append(rows, []string{s.Hostname, show.Bytes(s.Logical), show.Bytes(s.Data), show.Bytes(s.Stored),
			fmt.Sprintf("%.2f", s.Amplification), fmt.Sprint(s.Points), fmt.Sprint(s.Branches), string(s.Server)})
	}
	p.Table([]string{"HOSTNAME", "DISKS", "DATA", "STORED", "STORED/DATA", "POINTS", "BRANCHES", "ID"}, rows)
	for _, s := range stats {
		if s.Problem != "" {
			p.Printf("%s: %s. `lifeboat vault verify` tells what is damaged.\n", show.Clean(s.Hostname), show.Clean(s.Problem))
		}
		if s.BeingMade {
			p.Printf("%s: %s.\n", show.Clean(s.Hostname), beingMade)
		}
	}
	p.Printf("\n")
	rows = nil
	for _, kind := range slices.Sorted(maps.Keys(total)) {
		rows = append(rows, []string{kind, fmt.Sprint(total[kind].Objects), show.Bytes(total[kind].Bytes)})
	}
	p.Table([]string{"KIND", "OBJECTS", "STORED"}, rows)
	if !v.Points {
		return
	}
	p.Printf("\n")
	rows = nil
	for _, u := range stats[0].PointUsages {
		rows = append(rows, []string{string(u.Point), show.Bytes(u.Data), show.Bytes(u.Unique)})
	}
	p.Table([]string{"POINT", "DATA", "ITS ALONE"}, rows)
}

// printScrub tells what the server's scheduled verification has found.
func printScrub(p *show.Printer, s *server.Scrubbed) {
	if s == nil || len(s.Shares) == 0 {
		return
	}
	oldest, damaged := s.Shares[0].At, 0
	for _, share := range s.Shares {
		damaged += len(share.Damages)
		if share.At.Before(oldest) {
			oldest = share.At
		}
	}
	p.Printf("\nVerified on schedule: %d of %s, the earliest at %s %s; %s.\n",
		len(s.Shares), show.Count(s.Of, "share"), p.Moment(oldest), p.Zone(), show.Count(damaged, "damaged object"))
}
