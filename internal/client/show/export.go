package show

import (
	"time"

	"lifeboat/internal/client"
)

// Exported shows what an export wrote.
func (p *Printer) Exported(s client.Server, point client.Point, disk int, output string, saved client.Saved, took time.Duration) {
	to := "to " + clean(output)
	if output == "-" {
		to = "to stdout"
	}
	p.printf("Wrote disk %d of %s as of %s %s (%s ago, %s) %s: %s, of which %s data, in %s.\n",
		disk, clean(s.Name()), p.moment(&point.Taken), p.zone(), Duration(p.Now.Sub(point.Taken)), point.ID,
		to, Bytes(saved.Bytes), Bytes(saved.Data), short(took))
	if point.Fuzzy() {
		p.printf("The point is fuzzy: it mixes moments, and its file systems may need repair.\n")
	}
}
