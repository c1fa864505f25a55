package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lifeboat/internal/client/show"
	"lifeboat/internal/drs"
	"lifeboat/internal/server"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/retention"
)

type vaultLsCommand struct {
	vaultFlags
	Journal *period `placeholder:"TIME" help:"For how long the server keeps every point, 0 to 90d. By default what the data directory says; without one, 4h."`
	Server  string  `arg:"" optional:"" help:"Hostname, ID, or first part of an ID: list its branches and points. All servers without it."`
}

// Run lists what is in the vault.
func (v *vaultLsCommand) Run(ctx context.Context) (err error) {
	open, err := v.look(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, open.Close()) }()
	if v.Journal == nil {
		window := server.DefaultJournal
		if open.Dir != nil {
			kept, known, err := open.Dir.Journal()
			if err != nil {
				return err
			}
			if known {
				window = kept
			}
		}
		v.Journal = (*period)(&window)
	}
	if err := server.CheckJournal(v.Journal.duration()); err != nil {
		return usageError{err}
	}
	if v.Server == "" {
		return v.servers(ctx, open)
	}
	known, err := open.Server(ctx, v.Server)
	if err != nil {
		return err
	}
	return v.server(ctx, open, known)
}

type listedBranch struct {
	Name   string `json:"name"`
	Points int    `json:"points"`
}

type listedPoint struct {
	ID          drs.RecoverySnapshotID `json:"id"`
	Branch      string                 `json:"branch"`
	Taken       time.Time              `json:"taken"`
	Consistency drs.Consistency        `json:"consistency"`
	Method      drs.CutMethod          `json:"method"`
	LockedUntil *time.Time             `json:"lockedUntil,omitempty"`
	Branches    []string               `json:"branches"` // that begin at it
	// Kept says why upkeep leaves it; empty: the next one drops it.
	Kept string `json:"kept,omitempty"`
}

func (v *vaultLsCommand) server(ctx context.Context, open *server.OpenVault, known server.Known) error {
	points, damage := open.Vault.ListPoints(ctx, known.ID)
	if damage != nil && len(points) == 0 {
		return damage
	}
	names, err := open.Vault.Branches(ctx, known.ID)
	if err != nil {
		return err
	}
	branches := make([]listedBranch, 0, len(names))
	list := make([]listedPoint, 0, len(points))
	for _, name := range names {
		var on []vault.PointInfo
		for _, p := range points {
			if p.Branch == name {
				on = append(on, p)
			}
		}
		branches = append(branches, listedBranch{name, len(on)})
		list = append(list, v.points(known, on)...)
	}
	slices.SortStableFunc(list, func(a, b listedPoint) int { return b.Taken.Compare(a.Taken) }) // the newest first
	err = v.result(struct {
		Server   drs.SourceServerID `json:"server"`
		Hostname string             `json:"hostname"`
		Branches []listedBranch     `json:"branches"`
		Points   []listedPoint      `json:"points"`
	}{known.ID, known.Hostname, branches, list}, func(p *show.Printer) {
		rows := make([][]string, 0, len(branches))
		for _, b := range branches {
			rows = append(rows, []string{b.Name, fmt.Sprint(b.Points)})
		}
		p.Table([]string{"BRANCH", "POINTS"}, rows)
		p.Printf("\n")
		rows = rows[:0]
		for _, l := range list {
			kept := l.Kept
			if kept == "" {
				kept = "goes next"
			}
			rows = append(rows, []string{p.Moment(l.Taken), string(l.Consistency), string(l.Method), kept, string(l.ID)})
		}
		p.Table([]string{"TAKEN (" + p.Zone() + ")", "CONSISTENCY", "METHOD", "KEPT BY", "ID"}, rows)
	})
	return errors.Join(err, damage)
}

// points are those of one branch, with what the server's rules say of them.
func (v *vaultLsCommand) points(known server.Known, points []vault.PointInfo) []listedPoint {
	now := time.Now()
	var decide []retention.Point
	for _, p := range points {
		decide = append(decide, retention.Point{ID: p.ID, Taken: p.Taken, Clock: p.Clock, Epoch: p.Epoch, Consistency: p.Consistency,
			Locked: p.LockedUntil.After(now), Pinned: len(p.Branches) > 0})
	}
	why := map[drs.RecoverySnapshotID]string{}
	for _, k := range retention.FromPIT(time.Duration(*v.Journal), known.PITPolicy()).Decide(decide).Kept {
		why[k.ID] = string(k.Reason)
		if k.Reason == retention.ByRule {
			why[k.ID] = fmt.Sprintf("one per %s for %s", show.Duration(k.Rule.Every), show.Duration(k.Rule.For))
		}
	}
	out := make([]listedPoint, 0, len(points))
	for _, p := range points {
		l := listedPoint{ID: p.ID, Branch: p.Branch, Taken: p.Taken.UTC(), Consistency: p.Consistency, Method: p.Method,
			Branches: orEmpty(p.Branches), Kept: why[p.ID]}
		if !p.LockedUntil.IsZero() {
			until := p.LockedUntil.UTC()
			l.LockedUntil = &until
			if l.Kept != "" && until.After(now) {
				l.Kept = "lock until " + lockEnd(until, now)
			}
		}
		if len(p.Branches) > 0 {
			branches := "branch " + strings.Join(p.Branches, ", ")
			if strings.HasPrefix(l.Kept, "lock ") { // both keep it
				branches = l.Kept + "; " + branches
			}
			l.Kept = branches
		}
		out = append(out, l)
	}
	return out
}

// lockEnd is the day on which a lock ends; one that ends within a day or two, to the minute.
func lockEnd(until, now time.Time) string {
	if until.Sub(now) < 48*time.Hour {
		return until.Format("2006-01-02 15:04 UTC")
	}
	return until.Format(time.DateOnly)
}

type listedServer struct {
	ID       drs.SourceServerID `json:"id"`
	Hostname string             `json:"hostname"`
	Branches []string           `json:"branches"`
	Points   int                `json:"points"`
	Problem  string             `json:"problem,omitempty"`
	// BeingMade: nothing is kept of it yet, or its making or deletion was cut short.
	BeingMade bool `json:"beingMade,omitempty"`
}

// beingMade says so of a server.
const beingMade = "is being made right now, or its making or deletion was cut short; nothing is kept of it"

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
		switch {
		case err == nil:
		case len(points) == 0 && open.HalfMade(ctx, k.ID, err):
			s.BeingMade = true
		default:
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
			if s.BeingMade {
				p.Printf("%s: %s.\n", show.Clean(s.Hostname), beingMade)
			}
		}
	})
}
