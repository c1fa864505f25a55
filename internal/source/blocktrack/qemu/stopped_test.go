package qemu_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"lifeboat/internal/source/blocktrack/qemu"
	"lifeboat/internal/source/blocktrack/tracktest"
)

// obey makes and releases cuts, at the scratch folder given, as it is told on its
// standard input, and answers each order with a line.
func obey(address qemu.Address, scratch, keep string, guard ...string) error {
	tracker, err := qemu.Open(context.Background(), qemu.Options{Address: address, Guard: guard, Scratch: scratch, Keep: keep, Grain: 4096})
	if err != nil {
		return err
	}
	defer tracker.Close()
	fmt.Println("open")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch lines.Text() {
		case "swap":
			changes, err := tracker.Swap(context.Background())
			if err != nil {
				fmt.Println(err)
				continue
			}
			fmt.Println("all", changes[0].All, "bytes", changes[0].Bytes())
		case "release":
			fmt.Println("released:", tracker.Release())
		case "settle":
			fmt.Println("settled", tracker.Settle([]byte("note")))
		}
	}
	return nil
}

// follower is an agent's tracker in a process of its own.
type follower struct {
	t       *testing.T
	cmd     *exec.Cmd
	orders  io.WriteCloser
	answers *bufio.Reader
}

func follow(t *testing.T, address qemu.Address, scratch string) *follower {
	t.Helper()
	return followKept(t, address, scratch, "", command(t, "guard")...)
}

func followKept(t *testing.T, address qemu.Address, scratch, keep string, guard ...string) *follower {
	t.Helper()
	args := command(t, "follower", append([]string{address.Socket, address.Domain, address.Libvirt, scratch, keep}, guard...)...)
	f := &follower{t: t, cmd: exec.Command(args[0], args[1:]...)}
	f.cmd.Stderr = os.Stderr
	orders, err := f.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, err := f.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.cmd.Process.Kill(); _ = f.cmd.Wait() })
	f.orders, f.answers = orders, bufio.NewReader(answers)
	f.answer("open")
	return f
}

func (f *follower) answer(want string) {
	f.t.Helper()
	got, err := f.answers.ReadString('\n')
	if err != nil || !strings.Contains(got, want) {
		f.t.Fatalf("answer %q (%v), want %q", got, err, want)
	}
}

func (f *follower) does(order, want string) {
	f.t.Helper()
	if _, err := fmt.Fprintln(f.orders, order); err != nil {
		f.t.Fatal(err)
	}
	f.answer(want)
}

// close lets it end in good order.
func (f *follower) close() {
	f.t.Helper()
	_ = f.orders.Close() // a pipe
	if err := f.cmd.Wait(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *follower) kill() {
	f.t.Helper()
	f.signal(unix.SIGKILL)
	_ = f.cmd.Wait() // it was killed
}

func (f *follower) signal(s unix.Signal) {
	f.t.Helper()
	if err := f.cmd.Process.Signal(s); err != nil {
		f.t.Fatal(err)
	}
}

// An agent that is stopped in a cut does not take the room that the guest's writes
// need: its guard gives the cut up, no write fails, and points go on when it does.
func TestAgentStoppedInACut(t *testing.T) {
	const full = 448 << 20 // and the scratch holds 320 MiB
	for _, through := range []string{"socket", "libvirt"} {
		t.Run(through, func(t *testing.T) {
			if os.Getuid() != 0 {
				t.Skip("a small filesystem needs root")
			}
			var g *tracktest.Machine
			if through == "libvirt" {
				g = tracktest.NewLibvirt(t, 1, full).Machine
			} else {
				g = tracktest.NewMachine(t, 1, full)
			}
			fill := func(pattern byte) {
				for off := int64(0); off < full; off += 8 << 20 {
					g.Write(0, pattern, off, 8<<20)
				}
			}
			fill(6)                                 // zeros would take no room
			scratch, err := os.MkdirTemp("", "lbs") // that the machine's user can enter
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(scratch) })
			if err := unix.Mount("scratch", scratch, "tmpfs", 0, "size=320m,mode=1777"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(scratch, unix.MNT_DETACH) })
			agent := follow(t, g.Address, scratch)
			agent.does("swap", "all true")
			agent.does("release", "released: <nil>")
			agent.does("swap", "all false bytes 0")

			agent.signal(unix.SIGSTOP)
			fill(7)
			holds(t, g.Images[0], 7) // QEMU's own log tells of writes that fail, and nobody else
			agent.signal(unix.SIGCONT)
			agent.does("release", "the cut did not hold")
			agent.does("swap", fmt.Sprintf("all false bytes %d", full))
			agent.does("release", "released: <nil>")
			g.Write(0, 8, 0, 8192)
			agent.does("swap", "all false bytes 8192")
			agent.does("release", "released: <nil>")
		})
	}
}

// holds fails the test unless an image holds nothing but a byte.
func holds(t *testing.T, image string, want byte) {
	t.Helper()
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b, []byte{want}); n != len(b) {
		t.Errorf("writes failed: %d of %d bytes were written", n, len(b))
	}
}

// A guard that dies is replaced, and what it was lent does not stay in the way.
func TestGuardKilled(t *testing.T) {
	g := tracktest.NewMachine(t, 1, diskSize)
	tracker, err := qemu.Open(t.Context(), qemu.Options{Address: g.Address, Guard: command(t, "guard"), Grain: 4096})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		swap(t, tracker)
		release(t, tracker)
		killGuard(t)
		g.Write(0, 1, 0, 4096)
		if c := swap(t, tracker); c[0].All || c[0].Bytes() != 4096 {
			t.Errorf("after the death of the guard: %+v", c)
		}
		killGuard(t)
		release(t, tracker)
	}
	_ = tracker.Close()
	swap(t, open(t, g))
}

// killGuard kills the children of this process that are guards.
func killGuard(t *testing.T) {
	t.Helper()
	out, err := exec.Command("pgrep", "-P", fmt.Sprint(os.Getpid()), "-f", os.Args[0]).Output()
	if err != nil {
		t.Fatalf("no guard: %v", err)
	}
	for _, pid := range strings.Fields(string(out)) {
		var n int
		if _, err := fmt.Sscan(pid, &n); err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(n, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
}
