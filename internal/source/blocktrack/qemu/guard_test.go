package qemu_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lifeboat/internal/source/blocktrack/qemu"
	"lifeboat/internal/source/blocktrack/tracktest"
)

// role is the environment variable with which a test starts its own program for
// something else: a guard, or an agent that holds a cut until it is killed.
const role = "LIFEBOAT_QEMU_TEST"

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(role) {
	case "guard":
		err = qemu.Watch(os.Stdin, os.Stdout)
	case "follower":
		err = obey(qemu.Address{Socket: os.Args[1], Domain: os.Args[2], Libvirt: os.Args[3]}, os.Args[4], os.Args[5], os.Args[6:]...)
	case "owner":
		err = hold(os.Args[1], os.Args[2:]...)
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// hold makes a cut, says so, and does no more.
func hold(socket string, guard ...string) error {
	tracker, err := qemu.Open(context.Background(), qemu.Options{Address: qemu.Address{Socket: socket}, Guard: guard})
	if err != nil {
		return err
	}
	if _, err := tracker.Swap(context.Background()); err != nil {
		return err
	}
	os.Stdout.WriteString("x")
	select {}
}

func command(t *testing.T, as string, args ...string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return append([]string{"/usr/bin/env", role + "=" + as, self}, args...)
}

// killHolding has another process make a cut of the machine, and kills it.
func killHolding(t *testing.T, g *tracktest.Machine, guard ...string) {
	t.Helper()
	args := command(t, "owner", append([]string{g.Address.Socket}, guard...)...)
	owner := exec.Command(args[0], args[1:]...)
	owner.Stderr = os.Stderr
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it holds one
		t.Fatal(err)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
}

func leftovers(t *testing.T, g *tracktest.Machine) (found []string) {
	t.Helper()
	for _, query := range []string{"query-jobs", "query-block-exports", "query-named-block-nodes"} {
		var raw json.RawMessage
		if err := g.Control.Run(t.Context(), query, nil, &raw); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), "lifeboat-") {
			found = append(found, query+": "+string(raw))
		}
	}
	return found
}

// An agent that is killed while it holds a cut has a guard that ends the copying,
// though no other agent comes.
func TestGuardEndsTheCopying(t *testing.T) {
	g := tracktest.NewMachine(t, 2, diskSize)
	killHolding(t, g, command(t, "guard")...)
	for deadline := time.Now().Add(3 * time.Minute); len(leftovers(t, g)) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("left: %v", leftovers(t, g))
		}
	}
	g.Write(0, 5, 0, 65536)
	swap(t, open(t, g)) // nothing is in its way
}

// guestAgent answers as QEMU's guest agent does, with filesystems that it only notes.
type guestAgent struct {
	socket string
	stuck  bool // it does not say when it has frozen

	mu     sync.Mutex
	frozen bool
	log    []string
}

func newGuestAgent(t *testing.T, dir string) *guestAgent {
	t.Helper()
	a := &guestAgent{socket: filepath.Join(dir, "qga")}
	l, err := net.Listen("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			a.serve(nc) // one client at a time
		}
	}()
	return a
}

func (a *guestAgent) serve(nc net.Conn) {
	defer nc.Close()
	for lines := bufio.NewScanner(nc); lines.Scan(); {
		var q struct {
			Execute   string
			Arguments struct{ ID int64 }
		}
		if json.Unmarshal(lines.Bytes(), &q) != nil {
			return
		}
		a.mu.Lock()
		answer := `{"error": {"class": "CommandNotFound", "desc": "no such command"}}`
		switch q.Execute {
		case "guest-sync":
			answer = fmt.Sprintf(`{"return": %d}`, q.Arguments.ID)
		case "guest-fsfreeze-status":
			answer = map[bool]string{true: `{"return": "frozen"}`, false: `{"return": "thawed"}`}[a.frozen]
		case "guest-fsfreeze-freeze":
			a.frozen, answer = true, `{"return": 2}`
		case "guest-fsfreeze-thaw":
			a.frozen, answer = false, `{"return": 2}`
		}
		if q.Execute != "guest-sync" {
			a.log = append(a.log, strings.TrimPrefix(q.Execute, "guest-fsfreeze-"))
		}
		silent := a.stuck && q.Execute == "guest-fsfreeze-freeze"
		a.mu.Unlock()
		if !silent {
			fmt.Fprintln(nc, answer)
		}
	}
}

func (a *guestAgent) did() (frozen bool, log string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.frozen, strings.Join(a.log, " ")
}

func openFreezing(t *testing.T, g *tracktest.Machine, a *guestAgent, bound time.Duration) *qemu.Tracker {
	t.Helper()
	tracker, err := qemu.Open(t.Context(), qemu.Options{Address: qemu.Address{Socket: g.Address.Socket, Agent: a.socket}, Guard: command(t, "guard"), Freeze: bound})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tracker.Close() })
	return tracker
}

// The guest is frozen for the moment of a cut, and what somebody left frozen is thawed
// to begin with.
func TestGuestIsFrozenForTheMoment(t *testing.T) {
	g := tracktest.NewMachine(t, 1, diskSize)
	a := newGuestAgent(t, g.Dir)
	a.frozen = true
	tracker := openFreezing(t, g, a, time.Minute)
	swap(t, tracker)
	if frozen, log := a.did(); frozen || log != "status thaw status freeze thaw" {
		t.Errorf("frozen %t after %s", frozen, log)
	}
	if cut := tracker.Cut(); !cut.Frozen || cut.Freeze <= 0 || cut.Freeze > time.Minute {
		t.Errorf("the cut tells %+v", cut)
	}
	release(t, tracker)
}

// A guest that does not say that it is frozen is thawed, and the cut goes on without.
func TestGuestThatDoesNotFreeze(t *testing.T) {
	g := tracktest.NewMachine(t, 1, diskSize)
	a := newGuestAgent(t, g.Dir)
	a.stuck = true
	tracker := openFreezing(t, g, a, 100*time.Millisecond)
	swap(t, tracker)
	if frozen, log := a.did(); frozen || !strings.HasSuffix(log, "freeze thaw") {
		t.Errorf("frozen %t after %s", frozen, log)
	}
	if cut := tracker.Cut(); cut.Frozen {
		t.Errorf("the cut tells %+v", cut)
	}
	release(t, tracker)
	swap(t, tracker) // and not tried again at once
	if _, log := a.did(); strings.Count(log, "freeze") != 1 {
		t.Errorf("did %s", log)
	}
}

// A guest that somebody else holds frozen stays so, and the cut goes on without.
func TestGuestThatSomebodyElseFroze(t *testing.T) {
	g := tracktest.NewMachine(t, 1, diskSize)
	a := newGuestAgent(t, g.Dir)
	tracker := openFreezing(t, g, a, time.Minute)
	a.mu.Lock()
	a.frozen = true
	a.mu.Unlock()
	swap(t, tracker)
	if frozen, log := a.did(); !frozen || strings.Contains(log, "thaw") {
		t.Errorf("frozen %t after %s", frozen, log)
	}
	if cut := tracker.Cut(); cut.Frozen {
		t.Errorf("the cut tells %+v", cut)
	}
	release(t, tracker)
}
