package show

import (
	"time"

	"lifeboat/internal/client"
)

// Blocks shows how to reach a disk as a block device.
func (p *Printer) Blocks(s client.Server, point client.Point, disk int, uri string, expires time.Time) {
	p.printf("Disk %d of %s as of %s %s (%s) can be read for %s at\n\n    %s\n\n",
		disk, clean(s.Name()), p.moment(&point.Taken), p.zone(), point.ID, Duration(expires.Sub(p.Now)), clean(uri))
	p.printf("For example:  nbdinfo --map '%s'\n", clean(uri))
	p.printf("              nbdfuse mnt/ '%s' &  (then mount -o loop,ro mnt/nbd …)\n", clean(uri))
	if point.Fuzzy() {
		p.printf("The point is fuzzy: it mixes moments, and its file systems may need repair.\n")
	}
}
