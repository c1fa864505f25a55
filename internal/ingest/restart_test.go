package ingest_test

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/drs"
	"lifeboat/internal/source/agent"
	"lifeboat/internal/source/blocktrack/tracktest"
)

// restarting is an agent on a device of random bytes, with a tracker that outlives it.
type restarting struct {
	*rig
	t      *testing.T
	faults *faultVault
	loop   string
	cfg    agent.Config
	server drs.SourceServerID
	block  int64 // written next
}

const restartingSize = 48 << 20

func newRestarting(t *testing.T) *restarting {
	t.Parallel()
	f := &faultVault{}
	s := &restarting{t: t, faults: f, loop: tracktest.Loop(t, restartingSize)}
	if !tracked(s.loop) {
		t.Skip("writes cannot be tracked here")
	}
	all := make([]byte, restartingSize)
	rand.Read(all)
	s.writeAt(all, 0)
	s.rig = newRig(t, faulty(f))
	s.cfg = s.config(t.TempDir(), s.loop)
	s.cfg.Pins = tracktest.Pins(t)
	return s
}

func (s *restarting) writeAt(p []byte, off int64) {
	s.t.Helper()
	f, err := os.OpenFile(s.loop, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(p, off)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// write changes a few blocks, far apart.
func (s *restarting) write() {
	s.t.Helper()
	p := make([]byte, 4096)
	for range 3 {
		rand.Read(p)
		s.writeAt(p, s.block*4096)
		s.block = (s.block + 997) % (restartingSize / 4096)
	}
}

// replicated waits for a point that equals the device, and returns how much of the
// device was read for it.
func (s *restarting) replicated(before int64) int64 {
	s.t.Helper()
	p := s.takePoint(s.server)
	read := bytesRead(s.t, s.loop) - before
	wantContent(s.t, s.vault, p, s.loop)
	return read
}

// first is an agent that has read all and settled.
func (s *restarting) first() *running {
	s.t.Helper()
	a := runAgent(s.cfg)
	s.catalog.await(s.t, "the first point", func() bool { return len(s.catalog.points) == 1 })
	s.server = s.only()
	s.write()
	s.replicated(bytesRead(s.t, s.loop))
	return a
}

// little is more than an agent reads at its start, tables of partitions and the like,
// and much less than the device.
const little = 4 << 20

func (s *restarting) wantLittle(read int64) {
	s.t.Helper()
	s.t.Logf("%d bytes read", read)
	if read > little {
		s.t.Errorf("%d bytes read of a device of %d", read, restartingSize)
	}
}

func (s *restarting) wantAll(read int64) {
	s.t.Helper()
	s.t.Logf("%d bytes read", read)
	if read < restartingSize {
		s.t.Errorf("%d bytes read of a device of %d", read, restartingSize)
	}
}

// An agent that was stopped reads what was written while it was away.
func TestRestartReadsOnlyWhatChanged(t *testing.T) {
	s := newRestarting(t)
	a := s.first()
	s.write() // perhaps not yet sent
	a.stop(t)
	s.write()
	before := bytesRead(t, s.loop)
	a = runAgent(s.cfg)
	defer func() { a.stop(t) }()
	s.wantLittle(s.replicated(before))
}

// So does one that was killed, again and again, at any moment.
func TestKilledAgentReadsOnlyWhatChanged(t *testing.T) {
	s := newRestarting(t)
	s.first().stop(t)
	command := strings.Join([]string{"agent", strings.TrimPrefix(s.cfg.Server, "https://"), s.cfg.CAFile, s.cfg.State, s.cfg.Pins, s.loop}, " ")
	before := bytesRead(t, s.loop)
	for range 4 {
		source := startProcess(t, command)
		s.write()
		s.takePoint(s.server)
		s.write()
		kill(source)
		s.write()
	}
	a := runAgent(s.cfg)
	defer func() { a.stop(t) }()
	s.wantLittle(s.replicated(before))
}

// A commit whose acknowledgement is lost is no reason to read all: not for the agent
// that lost it, and not for its successor.
func TestLostAcknowledgement(t *testing.T) {
	for _, successor := range []bool{false, true} {
		t.Run(map[bool]string{false: "the same agent", true: "its successor"}[successor], func(t *testing.T) {
			s := newRestarting(t)
			a := s.first()
			defer func() { a.stop(t) }()
			lost := make(chan struct{})
			s.faults.set(nil, func(do func() error) error {
				err := do()
				s.proxy.cut()
				s.faults.set(nil, nil)
				close(lost)
				return err
			})
			before := bytesRead(t, s.loop)
			s.write()
			<-lost
			if successor {
				a.stop(t)
				s.write()
				a = runAgent(s.cfg)
			}
			s.proxy.mend()
			s.write()
			s.wantLittle(s.replicated(before))
		})
	}
}

// What somebody else committed in between has all disks read.
func TestForeignCommit(t *testing.T) {
	s := newRestarting(t)
	s.first().stop(t)
	other := s.cfg
	other.State, other.Pins, other.Tracker = t.TempDir(), "", "scan"
	raw, err := os.ReadFile(filepath.Join(s.cfg.State, "identity.json"))
	if err == nil {
		err = os.WriteFile(filepath.Join(other.State, "identity.json"), raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	a := runAgent(other)
	s.write()
	s.replicated(0)
	a.stop(t)
	before := bytesRead(t, s.loop)
	a = runAgent(s.cfg)
	defer func() { a.stop(t) }()
	s.wantAll(s.replicated(before))
}

// An agent with another tracker ends what the one before it left behind; so does one
// that is turned away.
func TestPinsAreRemoved(t *testing.T) {
	s := newRestarting(t)
	pins := func() int {
		found, err := filepath.Glob(filepath.Join(s.cfg.Pins, "agent-*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	s.first().stop(t)
	if n := pins(); n != 1 {
		t.Fatalf("%d pinned trackers, want one", n)
	}
	scanning := s.cfg
	scanning.Tracker = "scan"
	a := runAgent(scanning)
	s.replicated(0)
	a.stop(t)
	if n := pins(); n != 0 {
		t.Errorf("%d pinned trackers beside an agent that scans", n)
	}
	a = runAgent(s.cfg)
	s.replicated(0)
	s.rig.server.Forget(s.server, "the source server was disconnected")
	if err := <-a.err; err == nil {
		t.Error("the agent was not turned away")
	}
	if n := pins(); n != 0 {
		t.Errorf("%d pinned trackers of an agent that was turned away", n)
	}
}
