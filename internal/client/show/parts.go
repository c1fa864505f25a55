package show

import "time"

// What follows are the parts that other verbs make their own texts of.

// Printf writes a line or more of text.
func (p *Printer) Printf(format string, args ...any) { p.printf(format, args...) }

// Table writes a header and rows in columns of equal width.
func (p *Printer) Table(header []string, rows [][]string) { p.table(header, rows) }

// Zone is the name of the zone that times are shown in.
func (p *Printer) Zone() string { return p.zone() }

// Moment shows a time to the second; the zero one as nothing.
func (p *Printer) Moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return p.moment(&t)
}

// Clean makes foreign text harmless.
func Clean(s string) string { return clean(s) }

// Count is a number with its noun.
func Count(n int, noun string) string { return count(n, noun) }
