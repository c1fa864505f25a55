package ingest_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/ingest"
	"lifeboat/internal/source/blocktrack/tracktest"
	"lifeboat/internal/vault"
)

// ids are the volumes that a point holds.
func (r *rig) ids(t *testing.T, p drs.RecoveryPoint) (ids []vault.VolumeID) {
	for _, v := range r.volumes(t, p) {
		ids = append(ids, v.ID)
	}
	return ids
}

// While a new disk is on its way into the vault points of the others go on; the first one
// after it is whole holds it, too, and is of one moment.
func TestPointsGoOnWhileADiskJoins(t *testing.T) {
	t.Parallel()
	rng := seed(t)
	c := cabinet{t, t.TempDir()}
	a := c.plug("sda", 1, 8<<20)
	r := newRig(t, nil)
	cfg := r.config(t.TempDir(), "")
	cfg.Disks, cfg.WholeDisks = nil, c.disks
	running := runAgent(cfg)
	defer func() { running.stop(t) }()
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	settings := func(s ingest.Settings) {
		r.catalog.change(func() { r.catalog.settings = s })
		r.server.Reconfigure(server, s)
	}

	settings(ingest.Settings{ThrottleMbps: 20}) // 2.5 MB/s
	device := tracktest.Loop(t, 48<<20)
	label(t, device, 2)
	for off := int64(1 << 20); off < 40<<20; off += 1 << 20 {
		noise := make([]byte, 1<<20)
		_, _ = rng.Read(noise) // it never fails
		write(t, device, noise, off)
	}
	tracktest.Command(t, "sync", device)
	c.link(device, "sdb")
	r.catalog.await(t, "the new disk on its way", func() bool {
		disks := r.catalog.info[server].Disks
		return len(disks) == 2 && disks[1].Replicated > 8<<20
	})
	write(t, a, []byte("while the other joins"), 3<<20)
	tracktest.Command(t, "sync", a)
	p := r.takePoint(server)
	if got := r.ids(t, p); !slices.Equal(got, []vault.VolumeID{0}) {
		t.Errorf("a point taken while a disk joins holds %v", got)
	}
	r.sameAs(t, p, 0, a)
	// What is written to it meanwhile is not lost, in what was read and in what was not yet.
	for _, off := range []int64{2 << 20, 47 << 20} {
		write(t, device, []byte("written while it joins"), off)
	}
	tracktest.Command(t, "sync", device)
	// Nor by a new connection, nor by a new agent, which begin where the disk is compared.
	r.server.Restart(server, "test")
	r.catalog.await(t, "the new disk on its way again", func() bool {
		info := r.catalog.info[server]
		return len(info.Disks) == 2 && info.State == drs.ReplicationContinuous
	})
	running.stop(t)
	running = runAgent(cfg)
	if got := r.ids(t, r.takePoint(server)); !slices.Equal(got, []vault.VolumeID{0}) {
		t.Errorf("a point taken while a disk joins holds %v", got)
	}
	settings(ingest.Settings{})
	r.catalog.await(t, "a point of both disks", func() bool { return len(r.ids(t, r.newest())) == 2 })
	p = r.takePoint(server)
	r.sameAs(t, p, 0, a)
	r.sameAs(t, p, 1, device)
	info := r.catalog.info[server]
	if d := info.Disks[1]; d.Replicated != d.Total {
		t.Errorf("the disk has joined and counts as %+v", d)
	}
}

// A disk that stays away leaves after its time: points go on without it, and those there
// are keep it. It comes back as what it was; and once no point holds it, its volume is emptied
// and a disk that comes then is new.
func TestADiskLeaves(t *testing.T) {
	t.Parallel()
	for _, tracker := range []string{"auto", "scan"} {
		t.Run(tracker, func(t *testing.T) {
			t.Parallel()
			aDiskLeaves(t, tracker)
		})
	}
}

func aDiskLeaves(t *testing.T, tracker string) {
	c := cabinet{t, t.TempDir()}
	a, b := c.plug("sda", 1, 8<<20), c.plug("sdb", 2, 6<<20)
	r := newRig(t, nil)
	cfg := r.config(t.TempDir(), "")
	cfg.Tracker = tracker
	cfg.Disks, cfg.WholeDisks = nil, c.disks
	cfg.DiskGrace = 6 * time.Second // more than it takes to tell that it is gone
	running := runAgent(cfg)
	defer func() { running.stop(t) }()
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()
	both := r.takePoint(server)

	without := func() drs.RecoveryPoint {
		t.Helper()
		r.catalog.await(t, "a point without the disk", func() bool { return len(r.ids(t, r.newest())) == 1 })
		r.continuous(t, server)
		p := r.takePoint(server)
		r.sameAs(t, p, 0, a)
		if got := r.ids(t, p); !slices.Equal(got, []vault.VolumeID{0}) {
			t.Errorf("a point without the disk holds %v", got)
		}
		return p
	}
	c.pull("sdb")
	r.stalled(t, server, "go on without it")
	write(t, a, []byte("while another is away"), 2<<20)
	tracktest.Command(t, "sync", a)
	without()
	r.sameAs(t, both, 1, b)
	r.catalog.await(t, "one disk in the inventory", func() bool {
		return len(r.catalog.info[server].Disks) == 1 && len(r.catalog.props[server].Disks) == 1
	})
	// The next start knows that it has left.
	running.stop(t)
	running = runAgent(cfg)
	without()

	write(t, b, []byte("while away"), 3<<20)
	tracktest.Command(t, "sync", b)
	c.link(b, "sdz")
	r.catalog.await(t, "a point of both disks", func() bool { return len(r.ids(t, r.newest())) == 2 })
	p := r.takePoint(server)
	r.sameAs(t, p, 0, a)
	r.sameAs(t, p, 1, b)

	c.pull("sdz")
	last := without()
	for _, p := range r.catalog.points[server] {
		if p.ID != last.ID && len(r.ids(t, p)) > 1 {
			if err := r.vault.DropPoints(t.Context(), server, p.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(t, a, []byte("one more"), 4<<20)
	tracktest.Command(t, "sync", a)
	r.takePoint(server) // in a session that may not know yet that nothing holds the volume
	write(t, a, []byte("and one more"), 4<<20)
	tracktest.Command(t, "sync", a)
	r.takePoint(server)
	if strings.Trim(r.headOf(t, server, 1), "\x00") != "" {
		t.Error("no point holds the volume, and it is not empty")
	}
	c.link(b, "sdb")
	r.catalog.await(t, "a point of the disk as a new one", func() bool {
		return slices.Equal(r.ids(t, r.newest()), []vault.VolumeID{0, 2})
	})
	r.sameAs(t, r.takePoint(server), 1, b)
}

// A user who means it drops disks at once: those that are gone, and those that are not
// named any more.
func TestDropMissing(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"gone", "not named"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			c := cabinet{t, t.TempDir()}
			a, b := c.plug("sda", 1, 8<<20), c.plug("sdb", 2, 6<<20)
			r := newRig(t, nil)
			cfg := r.config(t.TempDir(), "")
			cfg.WholeDisks = c.disks
			cfg.Disks = []string{c.path("sda"), c.path("sdb")}
			running := runAgent(cfg)
			r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
			before := r.newest()
			running.stop(t)

			if how == "gone" {
				c.pull("sdb")
			} else {
				cfg.Disks = cfg.Disks[:1]
			}
			cfg.DropMissing = true
			running = runAgent(cfg)
			defer func() { running.stop(t) }()
			r.catalog.await(t, "a point of the other disk", func() bool { return len(r.ids(t, r.newest())) == 1 })
			r.sameAs(t, r.takePoint(r.only()), 0, a)
			r.sameAs(t, before, 1, b)
		})
	}
}
