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
	"testing"
	"time"

	"lifeboat/internal/recovery/machine"
	"lifeboat/internal/recovery/machine/qemu"
)

// serverEnv makes the test binary a server that starts one machine: it holds the
// directory and the specification.
const serverEnv = "LIFEBOAT_TEST_SERVER"

type serverOrder struct {
	Dir  string
	Spec machine.Spec
}

func TestMain(m *testing.M) {
	if text := os.Getenv(serverEnv); text != "" {
		fmt.Println(serve(text))
		select {} // until killed
	}
	os.Exit(m.Run())
}

func serve(text string) string {
	var order serverOrder
	if err := json.Unmarshal([]byte(text), &order); err != nil {
		return err.Error()
	}
	d, err := qemu.New(qemu.Config{Dir: order.Dir, Emulate: true})
	if err != nil {
		return err.Error()
	}
	if _, err := d.Start(context.Background(), order.Spec); err != nil {
		return err.Error()
	}
	return "started"
}

// server runs a child that starts the machine, and returns it with its output.
func server(t *testing.T, dir string, spec machine.Spec) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	text, err := json.Marshal(serverOrder{dir, spec})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill9(cmd) })
	return cmd, bufio.NewReader(out)
}

func kill9(cmd *exec.Cmd) {
	cmd.Process.Kill()
	cmd.Wait()
}

func TestMachineSurvivesItsServer(t *testing.T) {
	dir := t.TempDir()
	spec := specFor(serveGuest(t, halt, "still here"))
	cmd, out := server(t, dir, spec)
	if line, err := out.ReadString('\n'); line != "started\n" {
		t.Fatalf("server: %q, %v", line, err)
	}
	kill9(cmd)

	s := newSite(t, dir)
	all, err := s.Attach(t.Context())
	if err != nil || len(all) != 1 || all[0].ID != spec.ID || all[0].State != machine.Running {
		t.Fatalf("attach: %+v, %v; want %s running", all, err, spec.ID)
	}
	waitConsole(t, s.ConsolePath(spec.ID), "still here", 1)
	nudge(t, s.machineDir(spec.ID))
	waitConsole(t, s.ConsolePath(spec.ID), "still here", 2)
	first := s.start(t, spec)
	if !first.Adopted || first.FirstInstruction.IsZero() || first.Accelerator != "tcg" {
		t.Errorf("started = %+v, want an adopted machine with its past", first)
	}
	if n := qemus(t, spec.ID); n != 1 {
		t.Errorf("%d processes, want 1", n)
	}
	if err := s.Stop(t.Context(), spec.ID, patience); err != nil {
		t.Fatal(err)
	}
	if st := s.state(t, spec.ID); st.State != machine.Stopped || st.Reason != "the guest powered off" {
		t.Errorf("state = %+v", st)
	}
}

// TestServerKilledWhileStarting kills the server all along a start; the next
// server must bring the machine up, once, whatever it finds.
func TestServerKilledWhileStarting(t *testing.T) {
	t.Parallel()
	disk := serveGuest(t, halt, "up")
	for after := time.Duration(0); after <= 96*time.Millisecond; after += 12 * time.Millisecond {
		dir := t.TempDir()
		spec := specFor(disk)
		cmd, _ := server(t, dir, spec)
		<-time.After(after) // the moment of the crash, not a wait for anything
		kill9(cmd)

		s := newSite(t, dir)
		started := s.start(t, spec)
		waitConsole(t, s.ConsolePath(spec.ID), "up", 1)
		if n := qemus(t, spec.ID); n != 1 {
			t.Errorf("killed after %s: %d processes, want 1", after, n)
		}
		t.Logf("killed after %s: adopted %t", after, started.Adopted)
		if err := s.Destroy(t.Context(), spec.ID); err != nil {
			t.Fatal(err)
		}
		if n := qemus(t, spec.ID); n != 0 {
			t.Errorf("killed after %s: %d processes after destroy", after, n)
		}
	}
}

// TestDestroyAfterServerKilled destroys what a server left in the middle.
func TestDestroyAfterServerKilled(t *testing.T) {
	disk := serveGuest(t, halt, "up")
	for after := time.Duration(0); after <= 100*time.Millisecond; after += 20 * time.Millisecond {
		dir := t.TempDir()
		spec := specFor(disk)
		cmd, _ := server(t, dir, spec)
		<-time.After(after)
		kill9(cmd)
		s := newSite(t, dir)
		if err := s.Destroy(t.Context(), spec.ID); err != nil {
			t.Fatal(err)
		}
		if n := qemus(t, spec.ID); n != 0 {
			t.Errorf("killed after %s: %d processes after destroy", after, n)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("killed after %s: left %v", after, left)
		}
	}
}

// TestForeignFilesStay: others may keep files in a machine's directory.
func TestForeignFilesStay(t *testing.T) {
	s := newSite(t, t.TempDir())
	spec := specFor(serveGuest(t, halt, "up"))
	foreign := filepath.Join(s.machineDir(spec.ID), "branch")
	if err := os.MkdirAll(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	if st := s.state(t, spec.ID); st.State != machine.Absent {
		t.Errorf("state = %+v, want absent", st)
	}
	s.start(t, spec)
	if err := s.Destroy(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(s.machineDir(spec.ID))
	if err != nil || len(left) != 1 || left[0].Name() != "branch" {
		t.Errorf("left %v, %v; want branch alone", left, err)
	}
}

// serveFull serves a guest's disk of which the first writes find no space.
func serveFull(t *testing.T, command byte, text string, writes int) *diskServer {
	t.Helper()
	program := need(t, "qemu-storage-daemon")
	dir := t.TempDir()
	s := &diskServer{socket: filepath.Join(dir, "nbd"), image: filepath.Join(dir, "image"), export: "vol"}
	writeGuest(t, s.image, command, text)
	rules, pid := filepath.Join(dir, "rules"), filepath.Join(dir, "pid")
	rule := "[inject-error]\nevent = \"none\"\niotype = \"write\"\nerrno = \"28\"\nonce = \"on\"\nsector = \"1\"\n"
	if err := os.WriteFile(rules, []byte(strings.Repeat(rule, writes)), 0o600); err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command(program,
		"--blockdev", "driver=file,node-name=f,filename="+s.image,
		"--blockdev", "driver=blkdebug,node-name=d,image=f,config="+rules,
		"--nbd-server", "addr.type=unix,addr.path="+s.socket,
		"--export", "type=nbd,id=e,node-name=d,name="+s.export+",writable=on",
		"--daemonize", "--pidfile", pid)
	if out, err := daemon.CombinedOutput(); err != nil {
		t.Fatalf("qemu-storage-daemon: %v: %s", err, out)
	}
	t.Cleanup(func() { killAndWait(t, readPID(t, pid)) })
	return s
}

// TestDiskWithoutSpace: the guest waits for space and loses nothing, also when
// the server is another by then.
func TestDiskWithoutSpace(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart %t", restart), func(t *testing.T) {
			s := newSite(t, t.TempDir())
			spec := specFor(serveFull(t, rewrite, "writing", 2))
			if restart {
				patient := newSiteThatResumes(t, s.dir, time.Hour)
				if _, err := patient.Start(t.Context(), spec); err != nil {
					t.Fatal(err)
				}
				for !strings.Contains(patient.wait(t, machine.Paused).Reason, "no space") {
				}
				patient.Close()
				if st := s.state(t, spec.ID); st.State != machine.Paused {
					t.Fatalf("state seen by a later driver = %+v, want paused", st)
				}
			} else {
				s.start(t, spec)
			}
			for !strings.Contains(s.wait(t, machine.Paused).Reason, "no space") { // it was starting before
			}
			s.wait(t, machine.Running)
			waitConsole(t, s.ConsolePath(spec.ID), "WROTE", 1)
			text, err := os.ReadFile(s.ConsolePath(spec.ID))
			if err != nil || strings.Contains(string(text), "DISK ERROR") {
				t.Errorf("console %q, %v", text, err)
			}
			if err := s.Destroy(t.Context(), spec.ID); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestSilentDiskServer: a server that accepts and says nothing must not hold the
// start for ever, nor leave a process.
func TestSilentDiskServer(t *testing.T) {
	need(t, "qemu-system-x86_64")
	socket := filepath.Join(t.TempDir(), "nbd")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := qemu.New(qemu.Config{Dir: t.TempDir(), Emulate: true, StartTimeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	spec := specFor(&diskServer{socket: socket, export: "vol"})
	if _, err := d.Start(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "disk servers") {
		t.Errorf("error %v, want one that names the disk servers", err)
	}
	if n := qemus(t, spec.ID); n != 0 {
		t.Errorf("%d processes left", n)
	}
	if err := d.Destroy(t.Context(), spec.ID); err != nil {
		t.Error(err)
	}
}

func TestUEFIStart(t *testing.T) {
	t.Parallel() // the firmware takes seconds
	s := newSite(t, t.TempDir())
	spec := specFor(serveGuest(t, halt, "a UEFI machine runs no boot sector"))
	spec.Firmware = "UEFI"
	spec.Memory = 128 << 20
	if _, err := s.Start(t.Context(), spec); err != nil {
		if strings.Contains(err.Error(), "install the package ovmf") {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	defer s.Destroy(context.Background(), spec.ID)
	vars := filepath.Join(s.machineDir(spec.ID), "uefi-vars.fd")
	before, err := os.ReadFile(vars)
	if err != nil {
		t.Fatal(err)
	}
	waitConsole(t, s.ConsolePath(spec.ID), "BdsDxe", 1)
	if err := s.Stop(t.Context(), spec.ID, 0); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(vars)
	if err != nil || string(after) == string(before) {
		t.Errorf("the firmware wrote no settings of its own (%v)", err)
	}
	s.start(t, spec)
	if again, err := os.ReadFile(vars); err != nil || string(again) == string(before) {
		t.Errorf("the settings were lost by a restart (%v)", err)
	}
}
