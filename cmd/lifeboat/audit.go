package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"lifeboat/internal/client"
	"lifeboat/internal/client/show"
)

type auditCommand struct {
	clientFlags
	Since    time.Duration `placeholder:"1h" help:"Only calls of this long ago or less."`
	User     string        `placeholder:"TEXT" help:"Only calls of callers whose ARN holds this, or of an access key."`
	Event    string        `placeholder:"NAME" help:"Only calls of one operation, such as StartRecovery."`
	About    string        `placeholder:"TEXT" help:"Only calls whose parameters or reply hold this, such as an ID."`
	Changes  bool          `help:"Leave out calls that only read."`
	Errors   bool          `help:"Only calls that were refused."`
	Unsigned bool          `help:"Only calls of nobody known; told to the server's first account."`
	Limit    int           `default:"50" help:"How many, the latest (50)."`
}

// Run prints who did what.
func (v *auditCommand) Run(ctx context.Context) error {
	c, err := v.connect(ctx)
	if err != nil {
		return err
	}
	filter := client.AuditFilter{
		User: v.User, Name: v.Event, About: v.About, Changes: v.Changes, Errors: v.Errors, Unsigned: v.Unsigned, Most: v.Limit,
	}
	if v.Since > 0 {
		filter.Since = time.Now().Add(-v.Since)
	}
	events, incomplete, err := c.Audit(ctx, filter)
	if err != nil {
		return err
	}
	if incomplete {
		fmt.Fprintln(os.Stderr, "lifeboat: some lines of the audit log cannot be read; the rest is here")
	}
	raw := make([]json.RawMessage, len(events))
	for i, e := range events {
		raw[i] = e.Raw
	}
	return v.result(map[string]any{"events": raw}, func(p *show.Printer) {
		var rows [][]string
		for _, e := range events {
			who, outcome := e.Identity.ARN, "done"
			switch {
			case who == "" && e.Identity.Type == "InstallToken":
				who = "an install token"
			case who == "":
				who = "(unknown)"
			}
			if e.ErrorCode != "" {
				outcome = e.ErrorCode
			}
			rows = append(rows, []string{p.Moment(e.Time), e.Name, outcome, who, e.SourceIP})
		}
		p.Table([]string{"TIME (" + p.Zone() + ")", "CALL", "OUTCOME", "CALLER", "FROM"}, rows)
	})
}
