package qemu_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/machine"
	"lifeboat/internal/recovery/machine/qemu"
)

// site is a driver with its directory and all the changes it reported.
type site struct {
	*qemu.Driver
	dir     string
	changes chan machine.Change
}

func newSite(t *testing.T, dir string) *site {
	t.Helper()
	return newSiteThatResumes(t, dir, 50*time.Millisecond)
}

func newSiteThatResumes(t *testing.T, dir string, every time.Duration) *site {
	t.Helper()
	need(t, "qemu-system-x86_64")
	s := &site{dir: dir, changes: make(chan machine.Change, 100)}
	d, err := qemu.New(qemu.Config{
		Dir:         dir,
		Emulate:     true,
		ResumeEvery: every,
		OnChange:    func(c machine.Change) { s.changes <- c },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Driver = d
	t.Cleanup(func() { d.Close() })
	return s
}

// start starts a machine that the test's end destroys.
func (s *site) start(t *testing.T, spec machine.Spec) machine.Started {
	t.Helper()
	started, err := s.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Destroy(context.Background(), spec.ID); err != nil {
			t.Error(err)
		}
	})
	return started
}

// wait returns the next report of that state.
func (s *site) wait(t *testing.T, want machine.State) machine.Change {
	t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case c := <-s.changes:
			if c.State == want {
				return c
			}
		case <-timeout:
			t.Fatalf("no report of state %s within %s", want, patience)
		}
	}
}

func (s *site) state(t *testing.T, id drs.RecoveryInstanceID) machine.Status {
	t.Helper()
	st, err := s.State(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func (s *site) machineDir(id drs.RecoveryInstanceID) string { return filepath.Join(s.dir, string(id)) }

func specFor(disks ...*diskServer) machine.Spec {
	spec := machine.Spec{ID: drs.NewRecoveryInstanceID(), Name: "web, one", CPUs: 1, Memory: 32 << 20, Firmware: drs.BootBIOS}
	for _, d := range disks {
		spec.Disks = append(spec.Disks, machine.Disk{Socket: d.socket, Export: d.export})
	}
	return spec
}

// qemus counts the living QEMU processes of a machine.
func qemus(t *testing.T, id drs.RecoveryInstanceID) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err == nil && strings.Contains(string(text), "serial="+string(id)) {
			n++
		}
	}
	return n
}

func TestGuestReadsItsDiskOnEveryBus(t *testing.T) {
	for _, bus := range []drs.DiskBus{"", drs.BusNVMe, drs.BusSATA, drs.BusSCSI} {
		t.Run("bus "+string(bus), func(t *testing.T) {
			s := newSite(t, t.TempDir())
			spec := specFor(serveGuest(t, halt, "hello from sector one"))
			spec.Disks[0].Bus = bus
			spec.NICs = []machine.NIC{{Network: machine.Isolated}, {Network: machine.UserNAT, MAC: "52:54:00:00:00:01"}}
			before := time.Now().Add(-time.Millisecond)
			started := s.start(t, spec)
			if started.Adopted || started.Accelerator != "tcg" || started.FirstInstruction.Before(before) || started.FirstInstruction.After(time.Now()) {
				t.Errorf("started = %+v", started)
			}
			waitConsole(t, s.ConsolePath(spec.ID), "hello from sector one", 1)
			if st := s.state(t, spec.ID); st.State != machine.Running {
				t.Errorf("state = %+v, want running", st)
			}
			if err := s.Destroy(t.Context(), spec.ID); err != nil {
				t.Fatal(err)
			}
			if n := qemus(t, spec.ID); n != 0 {
				t.Errorf("%d processes left after destroy", n)
			}
			if left, err := os.ReadDir(s.dir); err != nil || len(left) != 0 {
				t.Errorf("left after destroy: %v, %v", left, err)
			}
			if st := s.state(t, spec.ID); st.State != machine.Absent {
				t.Errorf("state after destroy = %+v, want absent", st)
			}
			t.Logf("steps %v", started.Steps)
		})
	}
}

func TestGuestPowersOffAndStartsAgain(t *testing.T) {
	s := newSite(t, t.TempDir())
	spec := specFor(serveGuest(t, power, "up and off"))
	s.start(t, spec)
	if c := s.wait(t, machine.Stopped); c.Reason != "the guest powered off" {
		t.Errorf("reason = %q", c.Reason)
	}
	if n := qemus(t, spec.ID); n != 0 {
		t.Errorf("%d processes after power-off", n)
	}
	if started := s.start(t, spec); started.Adopted {
		t.Error("a stopped machine was adopted")
	}
	s.wait(t, machine.Stopped)
	waitConsole(t, s.ConsolePath(spec.ID), "up and off", 2) // the log goes on

	other := newSite(t, s.dir) // a later server
	if st := other.state(t, spec.ID); st.State != machine.Stopped {
		t.Errorf("state seen by a later driver = %+v, want stopped", st)
	}
}

func TestGuestResetsAndKeepsItsWrites(t *testing.T) {
	s := newSite(t, t.TempDir())
	spec := specFor(serveGuest(t, reset, "boot"))
	s.start(t, spec)
	// Sector 1 now says h: only a written disk ends the resets at two.
	waitConsole(t, s.ConsolePath(spec.ID), "boot", 2)
	nudge(t, s.machineDir(spec.ID))
	waitConsole(t, s.ConsolePath(spec.ID), "boot", 3)
	if st := s.state(t, spec.ID); st.State != machine.Running {
		t.Errorf("state = %+v, want running", st)
	}
}

func TestStop(t *testing.T) {
	for _, c := range []struct {
		name    string
		command byte
		grace   time.Duration
		reason  string
	}{
		{"guest obeys the power button", halt, patience, "the guest powered off"},
		{"guest ignores the power button", ignore, time.Millisecond, "the machine was powered off"},
		{"no grace", halt, 0, "the machine was powered off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, t.TempDir())
			spec := specFor(serveGuest(t, c.command, "ready"))
			s.start(t, spec)
			waitConsole(t, s.ConsolePath(spec.ID), "ready", 1)
			for range 2 { // the second finds nothing to do
				if err := s.Stop(t.Context(), spec.ID, c.grace); err != nil {
					t.Fatal(err)
				}
			}
			if st := s.state(t, spec.ID); st.State != machine.Stopped || st.Reason != c.reason {
				t.Errorf("state = %+v, want stopped: %s", st, c.reason)
			}
			if n := qemus(t, spec.ID); n != 0 {
				t.Errorf("%d processes left", n)
			}
		})
	}
}

func TestStartIsIdempotent(t *testing.T) {
	s := newSite(t, t.TempDir())
	spec := specFor(serveGuest(t, halt, "only once"))
	results := make(chan machine.Started)
	for range 4 {
		go func() {
			started, err := s.Start(t.Context(), spec)
			if err != nil {
				t.Error(err)
			}
			results <- started
		}()
	}
	t.Cleanup(func() { s.Destroy(context.Background(), spec.ID) })
	adopted := 0
	var first time.Time
	for range 4 {
		r := <-results
		if r.Adopted {
			adopted++
		}
		if first.IsZero() {
			first = r.FirstInstruction
		}
		if !r.FirstInstruction.Equal(first) {
			t.Errorf("first instruction at %s and at %s", first, r.FirstInstruction)
		}
	}
	if n := qemus(t, spec.ID); adopted != 3 || n != 1 {
		t.Errorf("%d adopted, %d processes; want 3 and 1", adopted, n)
	}
}

func TestKilledMachineIsReported(t *testing.T) {
	s := newSite(t, t.TempDir())
	spec := specFor(serveGuest(t, halt, "doomed"))
	s.start(t, spec)
	waitConsole(t, s.ConsolePath(spec.ID), "doomed", 1)
	pid := readPID(t, filepath.Join(s.machineDir(spec.ID), "qemu.pid"))
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.wait(t, machine.Failed)
	if st := newSite(t, s.dir).state(t, spec.ID); st.State != machine.Failed {
		t.Errorf("state seen by a later driver = %+v, want failed", st)
	}
	if started := s.start(t, spec); started.Adopted {
		t.Error("a dead machine was adopted")
	}
	waitConsole(t, s.ConsolePath(spec.ID), "doomed", 2)
}

func TestDiskServerRestart(t *testing.T) {
	s := newSite(t, t.TempDir())
	disk := serveGuest(t, halt, "before")
	spec := specFor(disk)
	s.start(t, spec)
	waitConsole(t, s.ConsolePath(spec.ID), "before", 1)
	disk.kill(t)
	writeGuest(t, disk.image, halt, "after")
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		nudge(t, s.machineDir(spec.ID)) // the guest reads, and must wait
	}()
	disk.start(t)
	waitConsole(t, s.ConsolePath(spec.ID), "after", 1)
	<-answered
	text, err := os.ReadFile(s.ConsolePath(spec.ID))
	if err != nil || strings.Contains(string(text), "DISK ERROR") {
		t.Errorf("console %q, %v", text, err)
	}
}

func TestRefusals(t *testing.T) {
	disk := serveGuest(t, halt, "never")
	gone := &diskServer{socket: filepath.Join(t.TempDir(), "gone"), export: "x"}
	noExport := *disk
	noExport.export = "no such export"
	for _, c := range []struct {
		name, program string
		disk          *diskServer
		want          string
		state         machine.State
	}{
		{"QEMU is not installed", "qemu-that-is-not-there", disk, "install the package", machine.Absent},
		{"disk server is down", "", gone, "No such file", machine.Stopped},
		{"export is unknown", "", &noExport, "no such export", machine.Stopped},
	} {
		t.Run(c.name, func(t *testing.T) {
			need(t, "qemu-system-x86_64")
			dir := t.TempDir()
			d, err := qemu.New(qemu.Config{Dir: dir, Program: c.program, Emulate: true})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			spec := specFor(c.disk)
			_, err = d.Start(t.Context(), spec)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one that says %q", err, c.want)
			}
			if n := qemus(t, spec.ID); n != 0 {
				t.Errorf("%d processes left", n)
			}
			if st, err := d.State(t.Context(), spec.ID); err != nil || st.State != c.state {
				t.Errorf("state %+v, %v; want %s", st, err, c.state)
			}
			if err := d.Destroy(t.Context(), spec.ID); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("bad specification", func(t *testing.T) {
		s := newSite(t, t.TempDir())
		spec := specFor(disk)
		spec.CPUs = 0
		if _, err := s.Start(t.Context(), spec); !errors.Is(err, machine.ErrSpec) {
			t.Errorf("error %v, want machine.ErrSpec", err)
		}
		if _, err := s.State(t.Context(), "../../etc"); err == nil {
			t.Error("an ID that is a path was accepted")
		}
	})
}

func TestDeepDirectory(t *testing.T) {
	deep := filepath.Join(t.TempDir(), strings.Repeat("deep/", 40))
	s := newSite(t, filepath.Join(deep, "machines"))
	disk := serveGuest(t, halt, "from the deep")
	long := filepath.Join(deep, "nbd")
	if err := os.Symlink(disk.socket, long); err != nil {
		t.Fatal(err)
	}
	spec := specFor(disk)
	spec.Disks[0].Socket = long
	s.start(t, spec)
	waitConsole(t, s.ConsolePath(spec.ID), "from the deep", 1)
}

// TestDestroyWithoutDiskServer: a guest that waits for a disk that is gone for
// good is destroyed all the same.
func TestDestroyWithoutDiskServer(t *testing.T) {
	s := newSite(t, t.TempDir())
	disk := serveGuest(t, rewrite, "waiting")
	spec := specFor(disk)
	s.start(t, spec)
	waitConsole(t, s.ConsolePath(spec.ID), "waiting", 1)
	disk.kill(t)
	if err := s.Destroy(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	if n := qemus(t, spec.ID); n != 0 {
		t.Errorf("%d processes left", n)
	}
	disk.start(t) // for the clean-up
}

// TestManyMachinesAtOnce: processes born side by side must not mix up each
// other's locks, sockets or ends.
func TestManyMachinesAtOnce(t *testing.T) {
	s := newSite(t, t.TempDir())
	disk := serveGuest(t, halt, "one of many")
	taken := make(chan struct{})
	defer close(taken)
	go func() { // nobody waits for the reports here, and there are many
		for {
			select {
			case <-s.changes:
			case <-taken:
				return
			}
		}
	}()
	var all sync.WaitGroup
	for range 12 {
		all.Go(func() {
			spec := specFor(disk)
			for range 3 {
				if started, err := s.Start(t.Context(), spec); err != nil || started.Adopted {
					t.Errorf("start: %+v, %v", started, err)
				}
				if err := s.Stop(t.Context(), spec.ID, 0); err != nil {
					t.Error(err)
				}
			}
			if err := s.Destroy(t.Context(), spec.ID); err != nil {
				t.Error(err)
			}
			if n := qemus(t, spec.ID); n != 0 {
				t.Errorf("%d processes of %s left", n, spec.ID)
			}
		})
	}
	all.Wait()
	if left, err := os.ReadDir(s.dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
