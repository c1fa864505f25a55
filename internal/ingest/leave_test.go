package ingest_test

import (
	"slices"
	"testing"
	"time"

	"lifeboat/internal/ingest"
	"lifeboat/internal/source/blocktrack/tracktest"
	"lifeboat/internal/vault"
)

// The boot disk is waited for as long as it takes, for no machine starts from points
// without it; the others leave meanwhile.
func TestTheBootDiskDoesNotLeave(t *testing.T) {
	t.Parallel()
	c := cabinet{t, t.TempDir()}
	a, b := c.plug("sda", 1, 8<<20), c.plug("sdb", 2, 6<<20)
	c.plug("sdc", 3, 5<<20)
	r := newRig(t, nil)
	cfg := r.config(t.TempDir(), "")
	cfg.Disks, cfg.WholeDisks = nil, c.disks
	cfg.DiskGrace = 3 * time.Second
	running := runAgent(cfg)
	defer func() { running.stop(t) }()
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()

	c.pull("sda")
	r.stalled(t, server, "waited for, as long as it takes")
	c.pull("sdc") // gone for less long, it leaves first
	r.catalog.await(t, "the other disk to leave", func() bool { return len(r.catalog.props[server].Disks) == 2 })
	r.stalled(t, server, "waited for, as long as it takes")

	c.link(a, "sda")
	r.continuous(t, server)
	p := r.takePoint(server)
	if got := r.ids(t, p); !slices.Equal(got, []vault.VolumeID{0, 1}) {
		t.Errorf("a point holds %v, not the boot disk and the one that stayed", got)
	}
	r.sameAs(t, p, 0, a)
	r.sameAs(t, p, 1, b)
}

// A disk that goes while it is on its way into the vault is waited for by nobody: no point
// holds it, though the user said to wait for ever for those that points hold.
func TestAJoiningDiskGoes(t *testing.T) {
	t.Parallel()
	c := cabinet{t, t.TempDir()}
	a := c.plug("sda", 1, 8<<20)
	r := newRig(t, nil)
	cfg := r.config(t.TempDir(), "")
	cfg.Disks, cfg.WholeDisks, cfg.DiskGrace = nil, c.disks, -1
	running := runAgent(cfg)
	defer func() { running.stop(t) }()
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()

	slow := ingest.Settings{ThrottleMbps: 8} // 1 MB/s
	r.catalog.change(func() { r.catalog.settings = slow })
	r.server.Reconfigure(server, slow)
	rng := seed(t)
	device := tracktest.Loop(t, 96<<20)
	label(t, device, 2)
	noise := make([]byte, 64<<20)
	_, _ = rng.Read(noise) // it never fails
	write(t, device, noise, 1<<20)
	tracktest.Command(t, "sync", device)
	joins := func() {
		t.Helper()
		r.catalog.await(t, "the new disk on its way", func() bool { return len(r.catalog.info[server].Disks) == 2 })
	}
	goes := func() {
		t.Helper()
		r.catalog.await(t, "one disk", func() bool { return len(r.catalog.info[server].Disks) == 1 })
		r.continuous(t, server)
		write(t, a, []byte("while the other is away"), 3<<20)
		tracktest.Command(t, "sync", a)
		p := r.takePoint(server)
		if got := r.ids(t, p); !slices.Equal(got, []vault.VolumeID{0}) {
			t.Errorf("a point holds %v", got)
		}
		r.sameAs(t, p, 0, a)
	}
	c.link(device, "sdb")
	joins()
	c.pull("sdb")
	goes()

	// Nor when it goes while no agent runs.
	c.link(device, "sdb")
	joins()
	running.stop(t)
	c.pull("sdb")
	running = runAgent(cfg)
	goes()
}
