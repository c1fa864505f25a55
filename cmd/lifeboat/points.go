package main

import (
	"context"
	"errors"
	"time"

	"lifeboat/internal/client"
	"lifeboat/internal/client/show"
)

type pointsCommand struct {
	clientFlags
	Server string `arg:"" help:"Hostname, ID, or first part of an ID."`
	Limit  *int   `placeholder:"N" help:"Show the newest N; 0 shows all. Without it: 20, all with --json."`
	Until  moment `placeholder:"TIME" help:"Show those taken at or before a moment: RFC 3339, \"2006-01-02 15:04\", 15:04, 15m, \"2 hours ago\"."`
	Fuzzy  bool   `help:"Show those too that mix moments and may not boot."`
}

// pointsShown is how many points a person is shown who does not say.
const pointsShown = 20

// Validate implements kong's check of the command line.
func (v *pointsCommand) Validate() error {
	if v.Limit != nil && *v.Limit < 0 {
		return errors.New("--limit counts points: want 0 or more")
	}
	return nil
}

// Run lists the recovery points of one server.
func (v *pointsCommand) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	s, err := c.FindServer(ctx, v.Server)
	if err != nil {
		return err
	}
	query := client.PointQuery{Until: v.Until.at, Fuzzy: v.Fuzzy}
	switch {
	case v.Limit != nil:
		query.Limit = *v.Limit
	case !v.JSON:
		query.Limit = pointsShown
	}
	points, more, err := c.Points(ctx, s.ID, query)
	if err != nil {
		return err
	}
	return v.result(struct {
		Server string         `json:"server"`
		Points []client.Point `json:"points"`
		More   bool           `json:"more"`
	}{s.ID, points, more}, func(p *show.Printer) { p.Points(s, points, more) })
}

// moment is a flag that takes a time in the past.
type moment struct{ at *time.Time }

// UnmarshalText implements the flag.
func (m *moment) UnmarshalText(text []byte) error {
	at, err := client.ParseMoment(string(text), time.Now())
	if err == nil {
		m.at = &at
	}
	return err
}
