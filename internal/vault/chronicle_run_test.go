package vault_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"lifeboat/internal/client"
	"lifeboat/internal/diskstream"
	"lifeboat/internal/drs"
	host "lifeboat/internal/server"
	"lifeboat/internal/server/export"
	"lifeboat/internal/vault"
)

// exporter exports as `lifeboat vault export` does: with the location and the master key,
// or with the data directory that a rebuild made.
func (c *chronicle) exporter() *host.OpenVault {
	c.t.Helper()
	access := host.VaultAccess{Vault: c.location, MasterKey: c.keyFile}
	if c.dataDir != "" && c.rnd.IntN(2) == 0 {
		access = host.VaultAccess{Data: c.dataDir}
	}
	return must(access.Open(ctxOf))(c.t)
}

// check exports all disks of a point, and compares each byte with what the source held.
func (c *chronicle) check(open *host.OpenVault, s *source, id drs.RecoverySnapshotID) {
	c.t.Helper()
	disks := s.points[id].disks
	of := drs.SourceServer{ID: s.id}
	for n, volume := range slices.Sorted(maps.Keys(disks)) {
		var got bytes.Buffer
		if err := stream(&got, open, of, id, n); err != nil {
			c.t.Fatalf("event %d: export disk %d of %s of %s: %v", c.event, n, id, s.id, err)
		}
		d := disks[volume]
		want := d.fill(volume, 0, len(d.versions))[:d.size]
		if int64(got.Len()) != d.size {
			c.t.Fatalf("event %d: disk %d of %s of %s: %d bytes, want %d", c.event, n, id, s.id, got.Len(), d.size)
		}
		if at := firstDifference(got.Bytes(), want); at >= 0 {
			c.t.Fatalf("event %d: disk %d of %s of %s differs at byte %d (block %d)", c.event, n, id, s.id, at, at/vault.BlockSize)
		}
		c.done["exports"]++
	}
	none := len(disks)
	if err := stream(io.Discard, open, of, id, none); err == nil {
		c.t.Fatalf("event %d: %s of %s has a disk %d", c.event, id, s.id, none)
	}
}

// stream writes a disk as the verb does.
func stream(out io.Writer, open *host.OpenVault, of drs.SourceServer, id drs.RecoverySnapshotID, n int) error {
	disk, err := export.FromVault(open.Vault)(ctxOf, of, id, n)
	if err != nil {
		return err
	}
	defer disk.Close()
	r, w := io.Pipe()
	defer r.Close()
	go func() { w.CloseWithError(export.Stream(ctxOf, w, disk)) }() // ends with r
	in, err := diskstream.NewReader(r)
	if err != nil {
		return err
	}
	_, err = client.StreamImage(out, in, func(int64, int64) {})
	return err
}

// checkSome exports a few points of any server.
func (c *chronicle) checkSome() {
	c.t.Helper()
	open := c.exporter()
	defer open.Close()
	for range 3 {
		if s := c.anySource(); len(s.points) > 0 {
			c.check(open, s, c.anyPoint(s))
		}
	}
}

// checkAll exports every point that is kept, and wants no other one listed; and the
// heads of all branches.
func (c *chronicle) checkAll() {
	c.t.Helper()
	open := c.exporter()
	defer open.Close()
	for _, s := range c.sources {
		listed := must(open.Vault.Points(ctxOf, s.id))(c.t)
		if len(listed) != len(s.points) {
			c.t.Fatalf("event %d: %d points of %s are listed, want %d", c.event, len(listed), s.id, len(s.points))
		}
		for _, p := range listed {
			if s.points[p.ID] == nil {
				c.t.Fatalf("event %d: %s is listed, and should not be there", c.event, p.ID)
			}
			c.check(open, s, p.ID)
		}
		names := must(open.Vault.Branches(ctxOf, s.id))(c.t)
		if !slices.Equal(names, slices.Sorted(maps.Keys(s.lines))) {
			c.t.Fatalf("event %d: branches %v of %s, want %v", c.event, names, s.id, slices.Sorted(maps.Keys(s.lines)))
		}
		for name, line := range s.lines {
			image := must(open.Vault.OpenHead(ctxOf, s.id, name))(c.t)
			for id, d := range line.disks {
				want := &disk{size: d.size, data: d.fill(id, 0, len(d.versions))}
				want.check(c.t, image, id)
			}
			image.Close()
		}
	}
}

// live lets the vault live until it has seen so many points.
func (c *chronicle) live(points int) {
	for c.made < points {
		c.begin()
		s := c.anySource()
		switch n := c.rnd.IntN(1000); {
		case n < 30:
			c.maintain(s)
		case n < 36:
			c.collect(s)
		case n < 44:
			c.fork(s)
		case n < 50:
			c.dropBranch(s)
		case n < 54:
			c.dropPoint(s)
		case n < 57:
			c.lock(s)
		case n < 63:
			c.restart(c.rnd.IntN(2) == 0)
		case n < 65:
			c.lose()
		case n < 68:
			c.checkSome()
		case n < 69:
			c.verify()
		case n == 70 && c.rnd.IntN(4) == 0:
			c.checkAll()
		case n == 71 && c.rnd.IntN(2) == 0:
			c.changeKey()
		case n == 72:
			c.rebuild()
		case n == 73 && c.rnd.IntN(2) == 0:
			c.retireServer()
		default:
			c.commit(s, c.anyLine(s))
		}
	}
}

// What a run of TestEveryKeptPointIsWhatTheSourceHeld does: how many points, and which.
const (
	chroniclePoints = "LIFEBOAT_TEST_POINTS"
	chronicleSeed   = "LIFEBOAT_TEST_SEED"
)

// TestEveryKeptPointIsWhatTheSourceHeld: whatever was folded, collected, dropped, failed,
// killed, restarted and rebuilt since, the export of any kept point is byte for byte what
// the source server's disks were at that moment, and no point is lost that was to be kept.
func TestEveryKeptPointIsWhatTheSourceHeld(t *testing.T) {
	t.Parallel()
	seed, points := rand.Uint64(), step(2000, 60)
	if text := os.Getenv(chronicleSeed); text != "" {
		seed = must(strconv.ParseUint(text, 10, 64))(t)
	}
	if text := os.Getenv(chroniclePoints); text != "" {
		points = must(strconv.Atoi(text))(t)
	}
	t.Logf("%s=%d %s=%d", chronicleSeed, seed, chroniclePoints, points)
	c := newChronicle(t, seed, 4)
	c.live(points)
	for _, s := range c.sources {
		c.maintain(s)
		c.collect(s)
	}
	c.rebuild()
	c.verify()
	c.checkAll()
	kept := 0
	for _, s := range c.sources {
		kept += len(s.points)
	}
	t.Logf("%s, %d points made, %d kept, %d objects; %v", c.at.Sub(simulated), c.made, kept, len(c.bare.Names()), fmt.Sprint(c.done))
}
