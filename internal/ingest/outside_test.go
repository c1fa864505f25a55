package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/ingest"
	"lifeboat/internal/source/agent"
	"lifeboat/internal/source/blocktrack/tracktest"
)

const machineDisk = 12 << 20

// outside is an agent of all disks of a machine under QEMU.
func (r *rig) outside(t *testing.T, m *tracktest.Machine) agent.Config {
	cfg := r.config(t.TempDir(), "")
	cfg.Disks, cfg.Overrides.Hostname = nil, ""
	cfg.Tracker, cfg.Machine = "qemu", agent.Machine{Address: m.Address}
	return cfg
}

// await waits for so many points that satisfy a condition, and returns the newest.
func (r *rig) await(t *testing.T, n int, is func(drs.RecoveryPoint) bool) (newest drs.RecoveryPoint) {
	t.Helper()
	r.catalog.await(t, "points", func() bool {
		found := 0
		for _, points := range r.catalog.points {
			for _, p := range points {
				if is(p) {
					found++
					newest = p
				}
			}
		}
		return found >= n
	})
	return newest
}

func wantDisks(t *testing.T, r *rig, p drs.RecoveryPoint, images []string) {
	t.Helper()
	for i, path := range images {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(content(t, r.vault, p.SourceServer, p.ID, i)) != string(want) {
			t.Errorf("disk %d of %s differs from the machine's", i, p.ID)
		}
	}
}

// Every point of a machine that writes to two disks without a pause is one moment of
// both, and one taken once it rests is its disks.
func TestAMachineFromOutside(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	m := tracktest.NewMachine(t, 2, machineDisk)
	writing, stop := context.WithCancel(t.Context())
	wrote := make(chan error, 1)
	go func() { wrote <- m.Stamp(writing) }()
	a := runAgent(r.outside(t, m))

	begun := time.Now()
	held := func(p drs.RecoveryPoint) bool { return p.Method == drs.CopyBeforeWrite }
	r.await(t, 5, held)
	for _, p := range r.catalog.points[r.only()] {
		if held(p) && p.Consistency != drs.CrashConsistent || p.Consistency == drs.Fuzzy {
			t.Errorf("a point is %s by %s", p.Consistency, p.Method)
		}
		n := tracktest.Stamped(t, [2][]byte{content(t, r.vault, p.SourceServer, p.ID, 0), content(t, r.vault, p.SourceServer, p.ID, 1)})
		t.Logf("%s after %s: %d numbers, by %s", p.ID, p.Taken.Sub(begun).Round(time.Millisecond), n, p.Method)
	}
	stop()
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	wantDisks(t, r, r.takePoint(r.only()), m.Images)

	p := r.catalog.props[r.only()]
	if p.Hostname != "harbour" || p.Cores() != 2 || p.RAMBytes != 64<<20 || p.BootMode != drs.BootBIOS || p.Tracker != "qemu" ||
		len(p.Disks) != 2 || p.Disks[0] != (drs.Disk{Device: "disk0", Bytes: machineDisk, Bus: drs.BusVirtio}) {
		t.Errorf("the machine is told as %+v", p)
	}
	a.stop(t)
}

// QEMU dies and comes back, and its image was changed meanwhile: all is read, and the
// point that follows is the disk. A disk that grows is followed without a break.
func TestAMachineComesBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	m := tracktest.NewMachine(t, 1, machineDisk)
	m.Write(0, 3, 1<<20, 8192)
	a := runAgent(r.outside(t, m))
	r.await(t, 1, drs.RecoveryPoint.Bootable)
	server := r.only()
	wantDisks(t, r, r.takePoint(server), m.Images)

	m.Kill()
	r.catalog.await(t, "stall", func() bool { return r.catalog.info[server].State == drs.ReplicationStalled })
	write(t, m.Images[0], []byte("written while no QEMU ran"), 5<<20)
	m.Start()
	r.catalog.await(t, "return", func() bool { return r.catalog.info[server].State == drs.ReplicationContinuous })
	m.Write(0, 4, 2<<20, 8192)
	wantDisks(t, r, r.takePoint(server), m.Images)

	m.Run("block_resize", map[string]any{"node-name": "image0", "size": machineDisk + 1<<20})
	m.Write(0, 5, machineDisk+4096, 4096)
	r.catalog.await(t, "growth", func() bool { return r.catalog.props[server].Disks[0].Bytes == machineDisk+1<<20 })
	wantDisks(t, r, r.takePoint(server), m.Images)
	a.stop(t)
}

// A machine under libvirt is protected over the death of libvirt's daemon, during which
// the machine runs on, and of the machine.
func TestAMachineUnderLibvirt(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	l := tracktest.NewLibvirt(t, 2, machineDisk)
	l.Write(0, 3, 1<<20, 8192)
	a := runAgent(r.outside(t, l.Machine))
	r.await(t, 1, drs.RecoveryPoint.Bootable)
	server := r.only()
	l.Write(1, 4, 2<<20, 8192)
	wantDisks(t, r, r.takePoint(server), l.Images)
	if p := r.catalog.props[server]; p.Hostname != "harbour" || p.Tracker != "qemu" || len(p.Disks) != 2 {
		t.Errorf("the machine is told as %+v", p)
	}
	stalled := func() bool { return r.catalog.info[server].State == drs.ReplicationStalled }
	continuous := func() bool { return r.catalog.info[server].State == drs.ReplicationContinuous }

	l.KillDaemon()
	r.catalog.await(t, "stall", stalled)
	l.StartDaemon()
	l.Redial()
	r.catalog.await(t, "return", continuous)
	l.Write(0, 5, 3<<20, 8192)
	wantDisks(t, r, r.takePoint(server), l.Images)

	l.Stop()
	r.catalog.await(t, "stall", stalled)
	write(t, l.Images[0], []byte("written while it was off"), 5<<20)
	l.Start()
	r.catalog.await(t, "return", continuous)
	l.Write(1, 6, 4<<20, 8192)
	wantDisks(t, r, r.takePoint(server), l.Images)
	a.stop(t)
}

// Disks that are plugged into a machine are taken up, or told of, as it is configured;
// one that is pulled out ends the points and not the replication of the others; what is
// new or back alone is read. All this holds over a restart of the agent.
func TestDisksOfAMachineComeAndGo(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	m := tracktest.NewMachine(t, 1, machineDisk)
	m.Write(0, 3, 1<<20, 8192)
	cfg := r.outside(t, m)
	cfg.Metrics = agent.NewMetrics()
	rescans := func(start, disk float64) {
		t.Helper()
		if m := gather(t, cfg.Metrics); m["rescans_total start"] != start || m["rescans_total disk"] != disk || m["rescans_total vault"] != 0 {
			t.Errorf("disks were read as a whole: %v at a start, %v that came; want %v, %v", m["rescans_total start"], m["rescans_total disk"], start, disk)
		}
	}
	a := runAgent(cfg)
	r.await(t, 1, drs.RecoveryPoint.Bootable)
	server := r.only()
	disks := []string{m.Images[0], m.Image("second.img", 8<<20), m.Image("third.img", 6<<20)}
	has := func(n int) func() bool { return func() bool { return len(r.volumes(t, r.newest())) == n } }
	rescans(1, 0)

	m.Plug(1, disks[1])
	m.Write(1, 4, 2<<20, 8192)
	r.catalog.await(t, "a point of two disks", has(2))
	m.Write(1, 5, 3<<20, 8192)
	wantDisks(t, r, r.takePoint(server), disks[:2])
	if p := r.catalog.props[server]; len(p.Disks) != 2 || p.Disks[1] != (drs.Disk{Device: "disk1", Bytes: 8 << 20, Bus: drs.BusSCSI}) {
		t.Errorf("the disks are told as %+v", p.Disks)
	}

	settings := func(s ingest.Settings) {
		r.catalog.change(func() { r.catalog.settings = s })
		r.server.Reconfigure(server, s)
	}
	settings(ingest.Settings{HoldNewDisks: true})
	m.Plug(2, disks[2])
	held := func() bool {
		held := r.catalog.props[server].Unreplicated
		return len(held) == 1 && held[0].Device == "disk2" && held[0].Bytes == 6<<20
	}
	r.catalog.await(t, "a disk that is told and not replicated", held)
	rescans(1, 1)
	a.stop(t)
	r.catalog.change(func() { r.catalog.props[server] = drs.SourceProperties{} })
	a = runAgent(cfg)
	r.catalog.await(t, "a disk that is still told and not replicated", held)
	if p := r.takePoint(server); len(r.volumes(t, p)) != 2 {
		t.Errorf("a held disk is replicated: %+v", r.volumes(t, p))
	}
	settings(ingest.Settings{})
	r.catalog.await(t, "a point of three disks", has(3))
	wantDisks(t, r, r.takePoint(server), disks)
	rescans(1, 2)

	m.Unplug(1)
	r.stalled(t, server, "disk1")
	points := len(r.catalog.points[server])
	m.Write(0, 'w', 5<<20, 4096)
	r.catalog.await(t, "the write in the vault", func() bool { return strings.Contains(r.headOf(t, server, 0), strings.Repeat("w", 4096)) })
	if _, err := r.server.TakePoint(t.Context(), server); !errors.Is(err, ingest.ErrNoPoint) {
		t.Errorf("a point without a disk: %v", err)
	}
	a.stop(t) // and it is not forgotten
	a = runAgent(cfg)
	r.catalog.await(t, "a second stall", func() bool {
		return strings.Count(fmt.Sprint(r.catalog.states[server]), string(drs.ReplicationStalled)) == 2
	})
	if now := len(r.catalog.points[server]); now != points {
		t.Errorf("%d points without a disk", now-points)
	}
	write(t, disks[1], []byte("while away"), 3<<20)
	m.Plug(1, disks[1])
	r.continuous(t, server)
	m.Write(2, 6, 1<<20, 4096)
	wantDisks(t, r, r.takePoint(server), disks)
	a.stop(t)
}

// A disk that was pulled out of a machine for good leaves: points go on without it, also
// after a restart of the agent, and hold it again when it is back.
func TestADiskLeavesAMachine(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	m := tracktest.NewMachine(t, 1, machineDisk)
	second := m.Image("second.img", 8<<20)
	cfg := r.outside(t, m)
	cfg.DiskGrace = 6 * time.Second // more than it takes to tell that it is gone
	a := runAgent(cfg)
	defer func() { a.stop(t) }()
	r.await(t, 1, drs.RecoveryPoint.Bootable)
	server := r.only()
	has := func(n int) func() bool { return func() bool { return len(r.ids(t, r.newest())) == n } }
	m.Plug(1, second)
	m.Write(1, 4, 2<<20, 8192)
	r.catalog.await(t, "a point of two disks", has(2))

	m.Unplug(1)
	r.stalled(t, server, "go on without it")
	m.Write(0, 5, 3<<20, 8192)
	r.catalog.await(t, "a point without the disk", has(1))
	r.continuous(t, server)
	wantDisks(t, r, r.takePoint(server), m.Images[:1])
	a.stop(t)
	points := len(r.catalog.points[server])
	a = runAgent(cfg)
	m.Write(0, 6, 4<<20, 8192)
	r.catalog.await(t, "a point after the restart", func() bool { return len(r.catalog.points[server]) > points })
	wantDisks(t, r, r.takePoint(server), m.Images[:1])

	m.Plug(1, second)
	m.Write(1, 7, 1<<20, 4096)
	r.catalog.await(t, "a point of both disks", has(2))
	wantDisks(t, r, r.takePoint(server), []string{m.Images[0], second})
}
