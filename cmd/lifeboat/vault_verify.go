package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"lifeboat/internal/client/show"
	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
)

type vaultVerifyCommand struct {
	vaultFlags
	Share vault.Share `placeholder:"PART/OF" default:"1/1" help:"Read a part only, such as 1/30; 30 days of a thirtieth each read everything."`
	NoKey bool        `help:"Check the checksums of all that is stored without the master key. Which points damage hurts is not known then."`
	Rate  byteRate    `placeholder:"BYTES" help:"Read at most so much per second, such as 50MiB."`
	After string      `placeholder:"OBJECT" help:"Go on where a verification was interrupted, as it said."`
}

// errDamaged makes the exit code tell of damage that the result describes.
var errDamaged = errors.New("the vault is damaged: put the named objects back from a copy of the vault; points that are not named as hurt can be recovered as ever")

// Run checks what is stored.
func (v *vaultVerifyCommand) Run(ctx context.Context) (err error) {
	access := v.access()
	access.NoKey = v.NoKey
	if v.Data == "" && v.Vault == "" {
		return usageError{errors.New("name the server's data directory with --data, or a vault with --vault")}
	}
	open, err := access.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, open.Close()) }()

	bar, began, drawn := live(), time.Now(), time.Time{}
	opt := vault.VerifyOptions{Share: v.Share, Rate: int64(v.Rate), After: v.After, Catalogue: open.PointOf, Progress: func(p vault.VerifyProgress) {
		if time.Since(drawn) < 100*time.Millisecond {
			return
		}
		drawn = time.Now()
		took := time.Since(began)
		text := fmt.Sprintf("%s, %s, %s/s", show.Count(int(p.Objects), "object"), show.Bytes(p.Bytes), show.Bytes(int64(float64(p.Bytes)/took.Seconds())))
		if p.Damaged > 0 {
			text += fmt.Sprintf(", %d damaged", p.Damaged)
		}
		bar.Part(p.Part, text, took)
	}}
	var report vault.VerifyReport
	if v.NoKey {
		report, err = vault.Scrub(ctx, open.Store, opt)
	} else {
		report, err = vault.Verify(ctx, open.Store, open.Keys, vault.Options{}, opt)
	}
	bar.End()
	if err != nil && ctx.Err() == nil {
		return err
	}
	interrupted := ctx.Err() != nil
	printed := v.result(verified{Sound: report.Sound() && !interrupted, Unreferenced: report.UnreferencedCount, Unknown: orEmpty(report.Unknown), VerifyReport: report},
		func(p *show.Printer) { v.print(p, report, time.Since(began)) })
	switch {
	case printed != nil:
		return printed
	case interrupted && report.Next != "":
		return fmt.Errorf("interrupted: go on with --after %s", report.Next)
	case interrupted:
		return errors.New("interrupted")
	case !report.Sound():
		return errDamaged
	}
	return nil
}

// verified is what the verb prints as JSON.
type verified struct {
	Sound        bool     `json:"sound"`
	Unreferenced int64    `json:"unreferenced"`
	Unknown      []string `json:"unknown"`
	vault.VerifyReport
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (v *vaultVerifyCommand) print(p *show.Printer, r vault.VerifyReport, took time.Duration) {
	what := "everything"
	if v.Share.Of > 1 {
		what = "share " + v.Share.String()
	}
	p.Printf("Checked %s: %s, %s, in %s.\n", what, show.Count(int(r.Objects), "object"), show.Bytes(r.Bytes), show.Duration(took))
	for _, d := range r.Damages {
		p.Printf("\nDAMAGED  %s\n         %s\n", show.Clean(d.Object), show.Clean(d.Reason))
		switch {
		case d.Derived:
			p.Printf("         hurts no recovery point: the vault makes it again by itself\n")
		case len(d.Points) > 0:
			p.Printf("         hurts %s of %s: %s\n", show.Count(len(d.Points), "recovery point"), d.Server, join(d.Points))
			if d.PointsUnknown {
				p.Printf("         and the point that this object made, whose name is lost with it\n")
			}
		case d.PointsUnknown:
			p.Printf("         which recovery points it hurts is not known\n")
		default:
			p.Printf("         hurts no recovery point\n")
		}
	}
	if len(r.Damages) > 0 && len(r.Servers) > 0 {
		p.Printf("\n")
	}
	for _, s := range r.Servers {
		switch {
		case s.Err != "":
			p.Printf("%s: its recovery points cannot be looked at: %s\n", s.Server, show.Clean(s.Err))
		case len(s.Hurt) == 0:
			p.Printf("%s: %s, none hurt\n", s.Server, show.Count(len(s.Unhurt), "recovery point"))
		case len(s.Unhurt) == 0:
			p.Printf("%s: all %s hurt\n", s.Server, show.Count(len(s.Hurt), "recovery point"))
		default:
			p.Printf("%s: %s hurt; unhurt: %s\n", s.Server, show.Count(len(s.Hurt), "recovery point"), join(s.Unhurt))
		}
	}
	if r.Keyless && len(r.Damages) == 0 {
		p.Printf("Without the key only checksums were checked.\n")
	}
	if r.UnreferencedCount > 0 {
		p.Printf("%s referred to by nobody: garbage, or of an epoch that is being written. `lifeboat vault gc` removes garbage.\n",
			show.Count(int(r.UnreferencedCount), "segment"))
	}
	if r.UnknownCount > 0 {
		p.Printf("%s not of this version's making, such as %s.\n", show.Count(int(r.UnknownCount), "object"), show.Clean(r.Unknown[0]))
	}
}

func join(ids []drs.RecoverySnapshotID) string {
	words := make([]string, len(ids))
	for i, id := range ids {
		words[i] = string(id)
	}
	return strings.Join(words, " ")
}
