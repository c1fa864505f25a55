package guest_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/test/guest"
)

// outsideTrial is a trial whose agent runs on the host, and in whose machine nothing of
// Lifeboat does.
type outsideTrial struct {
	*trial
	dir     string // of the sockets and the agent's state
	process *exec.Cmd
}

// The machine of TestPointsAreMoments, with its agent outside, under faults that such
// an agent meets: it is killed, and QEMU is; the machine is reset, the server killed. QEMU's own
// agent runs in the guest, so that its filesystems are frozen for a point.
func TestPointsFromOutsideAreMoments(t *testing.T) {
	seed := seedOf(t)
	s := newSite(t)
	dir, err := os.MkdirTemp("", "lbo") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	machine := newBusy(t, seed, s, guest.Config{Tools: []string{"qemu-ga"}, Args: []string{
		"-name", "busy", "-uuid", "7d3e1c52-0b1f-4c8e-9a44-1df0c2a9e0ab",
		"-qmp", "unix:" + dir + "/qmp,server=on,wait=off", "-chardev", "socket,id=qga,server=on,wait=off,path=" + dir + "/qga",
		"-device", "virtserialport,chardev=qga,name=org.qemu.guest_agent.0",
	}})
	r := &outsideTrial{trial: &trial{T: t, site: s, busy: machine, rng: rand.New(rand.NewPCG(seed, 0))}, dir: dir}
	r.startGuestAgent()
	r.write(t)
	r.progress(t, 5)
	r.startAgent()
	t.Cleanup(r.endAgent)
	s.follows(t, r.busy, r.progress(t, 5))
	faults := []func(){r.agentKilled, r.machineReset, r.serverKilled, r.qemuKilled}
	for range rounds() {
		r.rng.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
		for _, fault := range faults {
			r.before = s.points(t)
			// Not synchronisation: the moment of the fault is what is varied.
			time.Sleep(time.Duration(r.rng.IntN(1500)) * time.Millisecond)
			fault()
			s.follows(t, r.busy, r.progress(t, 5))
			r.nothingLost()
		}
	}
	eventually(t, "a point of frozen filesystems", func() (string, bool) {
		points := s.points(t)
		last := points[len(points)-1]
		return last.consistency, strings.EqualFold(last.consistency, "filesystem")
	})
	r.machine.Signal(t, "writer", int(syscall.SIGTERM))
	r.shell(t, "sync")
	last, written := r.log(t).Last(), time.Now()
	r.shell(t, "echo >/mnt/part/end; sync") // so that there is one more point, dated by this clock
	var points []point
	eventually(t, "a point of all that was written", func() (string, bool) {
		points = s.points(t)
		newest := points[len(points)-1]
		return newest.taken.String(), newest.taken.After(written)
	})
	r.endAgent()
	r.machine.Kill()
	t.Logf("%d operations, %d points; the agents' log:\n%s", last, len(points), r.told())
	r.check(r.sample(points, 4), last)
}

// startGuestAgent starts QEMU's own agent in the guest.
func (r *outsideTrial) startGuestAgent() {
	r.Helper()
	r.shell(r.T, `
		for port in /sys/class/virtio-ports/*; do
			[ "$(cat $port/name)" = org.qemu.guest_agent.0 ] && qemu-ga -d -m virtio-serial -p /dev/${port##*/} -t /tmp -f /tmp/qga.pid -l /tmp/qga.log
		done`)
}

func (r *outsideTrial) startAgent() {
	r.Helper()
	log, err := os.OpenFile(r.machine.Log("agent"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		r.Fatal(err)
	}
	defer log.Close()
	args := []string{
		"agent", "--server", r.server.Endpoint, "--ca-cert", r.server.CAFile, "--token", r.server.Token,
		"--state", filepath.Join(r.dir, "agent"), "--tracker", "qemu", "--qmp", filepath.Join(r.dir, "qmp"),
		"--guest-agent", filepath.Join(r.dir, "qga"), "--epoch", "1s",
	}
	for _, image := range r.disks {
		args = append(args, "--disk", image)
	}
	r.process = exec.Command(binary, args...)
	r.process.Stderr = log
	r.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := r.process.Start(); err != nil {
		r.Fatal(err)
	}
}

func (r *outsideTrial) endAgent() {
	_ = r.process.Process.Kill()
	_ = r.process.Wait()
}

func (r *outsideTrial) agentKilled() {
	r.Log("the agent is killed")
	r.endAgent()
	r.progress(r.T, 3) // its guard has thawed what was frozen
	r.startAgent()
}

func (r *outsideTrial) machineReset() {
	r.Log("the machine is reset")
	r.reset(r.T)
	r.startGuestAgent()
	r.write(r.T)
}

// qemuKilled takes what QEMU remembers of the writes, too.
func (r *outsideTrial) qemuKilled() {
	r.Log("QEMU is killed")
	r.powerCut(r.T)
	r.startGuestAgent()
	r.write(r.T)
}
