// Package show turns what the client knows into text for people in a hurry:
// tables with the hostname first, ages and sizes in words, and below a table
// what is wrong and what to do next. It decides nothing and reads no clock but
// the one it is given, so equal input gives equal text.
//
// What machines call themselves is foreign text: control characters are
// replaced, so that no hostname can drive a terminal.
package show

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"lifeboat/internal/client"
)

// Printer writes text. The first error ends it: later calls do nothing, and Err
// returns that error.
type Printer struct {
	W   io.Writer
	Now time.Time // its location is the zone of all times shown

	err error
}

// Err is the first error of writing.
func (p *Printer) Err() error { return p.err }

func (p *Printer) printf(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.W, format, args...)
	}
}

// table writes a header and rows in columns of equal width.
func (p *Printer) table(header []string, rows [][]string) {
	if p.err != nil {
		return
	}
	t := tabwriter.NewWriter(p.W, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		cells := make([]string, len(row))
		for n, cell := range row {
			if cells[n] = clean(cell); cell == "" {
				cells[n] = "-"
			}
		}
		if _, p.err = fmt.Fprintln(t, strings.Join(cells, "\t")); p.err != nil {
			return
		}
	}
	p.err = t.Flush()
}

// clean makes foreign text harmless.
func clean(s string) string { return client.Printable(s) }

// zone is the name of the zone that times are shown in.
func (p *Printer) zone() string { return p.Now.Format("MST") }

// moment shows a time to the second.
func (p *Printer) moment(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.In(p.Now.Location()).Format("2006-01-02 15:04:05")
}

// ago shows how long ago a time was.
func (p *Printer) ago(t *time.Time) string {
	if t == nil {
		return ""
	}
	return Duration(p.Now.Sub(*t)) + " ago"
}
