package qemu_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds every wait of these tests; only a failing test uses it up.
const patience = 2 * time.Minute

// The test guest is one boot sector. It reads sector 1 of its disk through the
// BIOS: a command byte and a text that ends with zero. It prints the text on the
// serial port, then obeys:
//
//	h  wait for a byte on the serial port, then begin again;
//	   power off when the power button is pressed
//	i  the same, but ignore the power button
//	p  power off
//	r  write h over the command, reset the machine
//	w  write sector 1 back and print WROTE, then as h
//
// A read or write that fails prints DISK ERROR, then as h.
const (
	halt    = 'h'
	ignore  = 'i'
	power   = 'p'
	reset   = 'r'
	rewrite = 'w'
)

// guestCode is testdata/guest.s, assembled (the commands are in the file).
const guestCode = "+jHAjtiOwI7QvAB8/IgW0Hy6Aga4AAHv+7RC6HQAcmW+AX7oeACgAH48cHQmPHJ0Kzx3dDyAPgB+aXQJugAG7fbEAXUOuv0D7KgBdOi6+APs68W6BAa4ACDv69nGBgB+aLRD6CwAch26+QywBu706/20Q+gcAHINvrZ86CAAxgYAfmjrsL6qfOgTAMYGAH5o66OKFtB8sAC+wHzNE8O6+AOshMB0A+7r+MNESVNLIEVSUk9SCgBXUk9URQoAjXQAEAABAAB+AAABAAAAAAAAAAA="

// writeGuest makes the guest's disk. The BIOS boots none smaller than a cylinder.
func writeGuest(t *testing.T, path string, command byte, text string) {
	t.Helper()
	disk := make([]byte, 1<<20)
	if _, err := base64.StdEncoding.Decode(disk, []byte(guestCode)); err != nil {
		t.Fatal(err)
	}
	disk[510], disk[511] = 0x55, 0xaa
	disk[512] = command
	copy(disk[513:], text+"\n")
	if err := os.WriteFile(path, disk, 0o600); err != nil {
		t.Fatal(err)
	}
}

// diskServer is qemu-nbd with one export.
type diskServer struct {
	socket, image, export string
	pidfile               string
}

// serveGuest serves a guest's disk until the test ends.
func serveGuest(t *testing.T, command byte, text string) *diskServer {
	t.Helper()
	dir := t.TempDir()
	s := &diskServer{
		socket:  filepath.Join(dir, "nbd"),
		image:   filepath.Join(dir, "image"),
		pidfile: filepath.Join(dir, "pid"),
		export:  "vol-1,of=the test",
	}
	writeGuest(t, s.image, command, text)
	s.start(t)
	t.Cleanup(func() { s.kill(t) })
	return s
}

// start returns when the socket takes connections.
func (s *diskServer) start(t *testing.T) {
	t.Helper()
	program := need(t, "qemu-nbd")
	cmd := exec.Command(program, "--fork", "--persistent", "--shared=0", "--format=raw", "--cache=writeback",
		"--pid-file="+s.pidfile, "--socket="+s.socket, "--export-name="+s.export, s.image)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("qemu-nbd: %v: %s", err, out)
	}
}

// kill ends the server as a crash would, and returns when it is gone.
func (s *diskServer) kill(t *testing.T) {
	t.Helper()
	pid := readPID(t, s.pidfile)
	killAndWait(t, pid)
	os.Remove(s.socket)
}

func readPID(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	for _, c := range bytes.TrimSpace(text) {
		pid = pid*10 + int(c-'0')
	}
	return pid
}

// killAndWait kills a process that is no child of ours.
func killAndWait(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		t.Fatal(err)
	}
	waitReadable(t, fd, "end of the killed process")
}

func waitReadable(t *testing.T, fd int, what string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			t.Fatalf("no %s within %s", what, patience)
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			return
		}
	}
}

// waitConsole returns when the file holds text count times.
func waitConsole(t *testing.T, path, text string, count int) {
	t.Helper()
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, path, unix.IN_MODIFY); err != nil {
		t.Fatalf("watch %s: %v", path, err)
	}
	buf := make([]byte, 4096)
	deadline := time.Now().Add(patience)
	for {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(string(content), text) >= count {
			return
		}
		left := time.Until(deadline)
		if left <= 0 {
			t.Fatalf("console does not hold %q %d times:\n%q", text, count, content)
		}
		if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(watch), Events: unix.POLLIN}}, int(left.Milliseconds())+1); n > 0 {
			unix.Read(watch, buf)
		}
	}
}

// nudge sends a byte to the guest's serial port.
func nudge(t *testing.T, dir string) {
	t.Helper()
	// The directory may be deeper than a socket path can tell.
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	link := filepath.Join(t.TempDir(), "s")
	if err := os.Symlink(filepath.Join(dir, "console.sock"), link); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", link)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{'\n'}); err != nil {
		t.Fatal(err)
	}
	// Wait for the guest's answer, so that the byte is surely taken.
	conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatalf("guest does not answer on its serial port: %v", err)
	}
}

func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed (packages qemu-system-x86, qemu-utils)", program)
	}
	return path
}
