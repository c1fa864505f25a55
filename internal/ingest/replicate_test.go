package ingest_test

import (
	"testing"

	"lifeboat/internal/drs"
)

func TestPointEqualsDisk(t *testing.T) {
	rng := seed(t)
	r := newRig(t, nil)
	disk := image(t, 24<<20+512*3, rng) // not a multiple of a block
	a := runAgent(r.config(t.TempDir(), disk))
	defer a.stop(t)

	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	first := r.catalog.points[server][0]
	if first.Consistency != drs.CrashConsistent || first.Method != drs.QuietPass {
		t.Errorf("first point of a disk at rest is %s by %s", first.Consistency, first.Method)
	}
	wantContent(t, r.vault, first, disk)

	// Changes, zeros over data, and data in holes.
	write(t, disk, []byte("changed"), 12345)
	write(t, disk, make([]byte, 300<<10), 8<<20)
	write(t, disk, []byte("in a hole"), 20<<20)
	p := r.takePoint(server)
	if !p.Bootable() || p.Epoch <= first.Epoch {
		t.Errorf("point on demand: %+v", p)
	}
	wantContent(t, r.vault, p, disk)
	if got := content(t, r.vault, server, first.ID, 0); string(got[12345:12352]) == "changed" {
		t.Error("the first point changed")
	}
	r.catalog.await(t, "CONTINUOUS", func() bool { return r.catalog.info[server].State == drs.ReplicationContinuous })
}
