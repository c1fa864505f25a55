package ingest_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/ingest"
	"lifeboat/internal/source/blocktrack/tracktest"
	"lifeboat/internal/vault"
)

// cabinet is a folder of links to loop devices that stands for a machine's disks:
// plugging one in is making a link, pulling it out is removing that.
type cabinet struct {
	t   *testing.T
	dir string
}

// plug puts a new disk into the machine, which an id tells from others, and returns
// the device that it is.
func (c cabinet) plug(name string, id byte, size int64) (device string) {
	c.t.Helper()
	device = tracktest.Loop(c.t, size)
	label(c.t, device, id)
	write(c.t, device, []byte("disk "+name), 1<<20)
	tracktest.Command(c.t, "sync", device)
	c.link(device, name)
	return device
}

func (c cabinet) link(device, name string) {
	c.t.Helper()
	if err := os.Symlink(device, c.path(name)); err != nil {
		c.t.Fatal(err)
	}
}

func (c cabinet) pull(name string) {
	c.t.Helper()
	if err := os.Remove(c.path(name)); err != nil {
		c.t.Fatal(err)
	}
}

func (c cabinet) path(name string) string { return filepath.Join(c.dir, name) }

func (c cabinet) disks() ([]string, error) { return filepath.Glob(c.path("*")) }

// sameAs fails the test where a volume of a point is other than the disk, which is at
// rest.
func (r *rig) sameAs(t *testing.T, p drs.RecoveryPoint, volume int, device string) {
	t.Helper()
	tracktest.Command(t, "sync", device)
	want, err := os.ReadFile(device)
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, r.vault, p.SourceServer, p.ID, volume); string(got) != string(want) {
		t.Errorf("volume %d of %s is not %s (%d bytes, %d)", volume, p.ID, device, len(got), len(want))
	}
}

func (r *rig) volumes(t *testing.T, p drs.RecoveryPoint) []vault.Volume {
	t.Helper()
	image, err := r.vault.OpenPoint(t.Context(), p.SourceServer, p.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	return image.Volumes()
}

func (r *rig) newest() drs.RecoveryPoint {
	points := r.catalog.points[r.only()]
	return points[len(points)-1]
}

// An agent of a whole machine takes up disks that are plugged in, or tells of them, as
// it is configured; one that is pulled out ends the points and not the replication
// of the others, and is known again under another name; one that grows is followed.
func TestDisksComeAndGo(t *testing.T) {
	t.Parallel()
	c := cabinet{t, t.TempDir()}
	a, b := c.plug("sda", 1, 8<<20), c.plug("sdb", 2, 6<<20)
	r := newRig(t, nil)
	cfg := r.config(t.TempDir(), "")
	cfg.Disks, cfg.WholeDisks = nil, c.disks
	running := runAgent(cfg)
	defer func() { running.stop(t) }()
	r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
	server := r.only()

	third := c.plug("sdc", 3, 5<<20)
	has := func(n int) func() bool { return func() bool { return len(r.volumes(t, r.newest())) == n } }
	r.catalog.await(t, "a point of three disks", has(3))
	p := r.takePoint(server)
	for volume, device := range []string{a, b, third} {
		r.sameAs(t, p, volume, device)
	}

	settings := func(s ingest.Settings) {
		r.catalog.change(func() { r.catalog.settings = s })
		r.server.Reconfigure(server, s)
	}
	settings(ingest.Settings{HoldNewDisks: true})
	fourth := c.plug("sdd", 4, 5<<20)
	r.catalog.await(t, "a disk that is told and not replicated", func() bool {
		held := r.catalog.props[server].Unreplicated
		return len(held) == 1 && held[0].Device == c.path("sdd") && held[0].Bytes == 5<<20
	})
	if p := r.takePoint(server); len(r.volumes(t, p)) != 3 {
		t.Errorf("a held disk is replicated: %+v", r.volumes(t, p))
	}
	settings(ingest.Settings{})
	r.catalog.await(t, "a point of four disks", has(4))
	r.catalog.await(t, "no disk that is not replicated", func() bool { return len(r.catalog.props[server].Unreplicated) == 0 })
	r.sameAs(t, r.takePoint(server), 3, fourth)

	c.pull("sdb")
	r.stalled(t, server, c.path("sdb"))
	points := len(r.catalog.points[server])
	write(t, a, []byte("while another is away"), 2<<20)
	tracktest.Command(t, "sync", a)
	r.catalog.await(t, "the write in the vault", func() bool { return strings.Contains(r.headOf(t, server, 0), "while another is away") })
	if _, err := r.server.TakePoint(t.Context(), server); !errors.Is(err, ingest.ErrNoPoint) {
		t.Errorf("a point without a disk: %v", err)
	}
	if now := len(r.catalog.points[server]); now != points {
		t.Errorf("%d points without a disk", now-points)
	}
	write(t, b, []byte("while away"), 3<<20)
	c.link(b, "sdz")
	r.continuous(t, server)
	p = r.takePoint(server)
	for volume, device := range []string{a, b, third, fourth} {
		r.sameAs(t, p, volume, device)
	}
	if v := r.volumes(t, p); v[1].Device != c.path("sdz") {
		t.Errorf("the disk that came back is called %s", v[1].Device)
	}

	grow(t, third, 9<<20)
	r.catalog.await(t, "the new size", func() bool {
		return slices.ContainsFunc(r.catalog.info[server].Disks, func(d drs.ReplicatedDisk) bool { return d.Total == 9<<20 })
	})
	r.sameAs(t, r.takePoint(server), 2, third)
}

// After a start with other names, and with one disk that comes late, all are what they
// were: volumes, order and what was set for them.
func TestMachineStartsWithOtherNames(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"all", "named"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			c := cabinet{t, t.TempDir()}
			a, b := c.plug("sda", 1, 8<<20), c.plug("sdb", 2, 6<<20)
			r := newRig(t, nil)
			cfg := r.config(t.TempDir(), "")
			cfg.Disks, cfg.WholeDisks = nil, c.disks
			if how == "named" {
				cfg.Disks = []string{c.path("sda"), c.path("sdb")}
			}
			running := runAgent(cfg)
			r.catalog.await(t, "the first point", func() bool { return len(r.catalog.points) == 1 })
			server := r.only()
			first := r.newest()
			running.stop(t)

			c.pull("sda")
			c.pull("sdb")
			c.link(b, "sda") // and a is not there yet
			running = runAgent(cfg)
			defer func() { running.stop(t) }()
			r.stalled(t, server, "sda")
			c.link(a, "sdb")
			r.continuous(t, server)
			p := r.takePoint(server)
			r.sameAs(t, p, 0, a)
			r.sameAs(t, p, 1, b)
			props := r.catalog.props[server]
			if len(props.Disks) != 2 || props.Disks[0].Device != c.path("sdb") || props.Disks[0].Identity == "" {
				t.Errorf("the disks are %+v, the first was %s", props.Disks, a)
			}
			set := drs.SourceServer{Properties: props}
			set.ReplicationConfiguration.Disks = []drs.ConfiguredDisk{
				{Device: c.path("sda"), Identity: props.Disks[0].Identity}, {Device: c.path("sdb"), Identity: props.Disks[1].Identity, Boot: true},
			}
			if boot := set.DisksBootFirst()[0]; boot.Device != c.path("sda") {
				t.Errorf("boots from %+v; what was set for %s is for another disk now", boot, b)
			}
			// Points of before have the old names, and are put in order all the same.
			named := drs.InDiskOrder(props.Disks, r.volumes(t, first), func(v vault.Volume) drs.DiskName {
				return drs.DiskName{Device: v.Device, Identity: v.Identity}
			})
			if named[0].ID != 0 || named[0].Device != c.path("sda") {
				t.Errorf("volumes of an older point: %+v", named)
			}
		})
	}
}

func (r *rig) stalled(t *testing.T, server drs.SourceServerID, why string) {
	t.Helper()
	r.catalog.await(t, "STALLED: "+why, func() bool {
		info := r.catalog.info[server]
		return info.State == drs.ReplicationStalled && info.Error != nil &&
			strings.Contains(info.Error.Raw, why) && strings.Contains(info.Error.Raw, "Next: ")
	})
}

func (r *rig) continuous(t *testing.T, server drs.SourceServerID) {
	t.Helper()
	r.catalog.await(t, "CONTINUOUS", func() bool {
		info := r.catalog.info[server]
		return info.State == drs.ReplicationContinuous && info.Error == nil
	})
}

// headOf reads what the vault holds of a volume, point or not.
func (r *rig) headOf(t *testing.T, server drs.SourceServerID, volume int) string {
	t.Helper()
	image, err := r.vault.OpenHead(t.Context(), server, vault.MainBranch)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	reader, err := image.Volume(image.Volumes()[volume].ID)
	if err != nil {
		t.Fatal(err)
	}
	all := make([]byte, reader.Size())
	if _, err := reader.ReadAt(all, 0); err != nil {
		t.Fatal(err)
	}
	return string(all)
}

// grow makes a loop device larger, while it is in use.
func grow(t *testing.T, loop string, size int64) {
	t.Helper()
	back, err := os.ReadFile("/sys/block/" + filepath.Base(loop) + "/loop/backing_file")
	if err == nil {
		err = os.Truncate(strings.TrimSpace(string(back)), size)
	}
	if err != nil {
		t.Fatal(err)
	}
	tracktest.Command(t, "losetup", "--set-capacity", loop)
}
