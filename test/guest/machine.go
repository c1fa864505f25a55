package guest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	parts "lifeboat/internal/demo/guest"
)

// Bus is how a disk is attached.
type Bus string

const (
	Virtio Bus = "virtio" // vda, vdb, ... in the order given
	NVMe   Bus = "nvme"   // nvme0n1, nvme1n1, ... likewise
)

// Disk is a disk of a machine: a raw image.
type Disk struct {
	Path string
	Bus  Bus
}

// bootLimit only keeps a hung machine from hanging the tests.
const bootLimit = 4 * time.Minute

// Machine is a running guest.
type Machine struct {
	Console *parts.Console

	cmd    *exec.Cmd
	once   sync.Once
	ended  chan struct{}
	line   net.Conn
	answer *bufio.Reader
}

var ready = regexp.MustCompile(`^GUEST READY`)

// Start boots a machine and returns when it takes commands. It is killed when the
// test ends.
func Start(t *testing.T, disks ...Disk) *Machine {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bootLimit)
	t.Cleanup(cancel)
	dir, err := os.MkdirTemp("", "guest-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m, err := start(ctx, dir, disks)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s", m.Console.Tail(40))
		}
		m.Kill()
	})
	return m
}

func start(ctx context.Context, dir string, disks []Disk) (*Machine, error) {
	initrd := filepath.Join(dir, "initrd")
	kernel, err := writeInitrd(ctx, initrd)
	if err != nil {
		return nil, fmt.Errorf("start guest: %w", err)
	}
	socket := filepath.Join(dir, "commands")
	args := []string{
		"-accel", "tcg,thread=multi", "-M", "q35", "-cpu", "qemu64", "-smp", "2", "-m", "640",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet no_timer_check panic=-1",
		"-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0",
		"-device", "virtio-rng-pci", "-device", "virtio-serial", "-chardev", "socket,id=commands,server=on,wait=off,path=" + socket,
		"-device", "virtserialport,chardev=commands,name=commands",
	}
	for i, d := range disks {
		args = append(args, "-blockdev", fmt.Sprintf("driver=raw,node-name=d%d,discard=unmap,file.driver=file,file.filename=%s", i, d.Path))
		if d.Bus == NVMe {
			args = append(args, "-device", fmt.Sprintf("nvme,drive=d%d,serial=%d", i, i))
		} else {
			args = append(args, "-device", fmt.Sprintf("virtio-blk-pci,drive=d%d", i))
		}
	}
	m := &Machine{Console: parts.NewConsole(), ended: make(chan struct{})}
	m.cmd = exec.Command("qemu-system-x86_64", args...) //nolint:noctx // it lives until Kill
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var complaints strings.Builder
	m.cmd.Stdout, m.cmd.Stderr = m.Console, &complaints
	if err := m.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start guest: %w", err)
	}
	go func() {
		defer close(m.ended)
		err := m.cmd.Wait()
		m.Console.Close(fmt.Errorf("machine ended: %w %s", errors.Join(err), complaints.String()))
	}()
	_, err = m.Console.Wait(ctx, 0, ready)
	if err == nil {
		m.line, err = (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	if err != nil {
		m.Kill()
		return nil, fmt.Errorf("start guest: %w\n%s", err, m.Console.Tail(20))
	}
	m.answer = bufio.NewReader(m.line)
	return m, nil
}

// Kill ends the machine as a power cut would. It is safe to repeat.
func (m *Machine) Kill() {
	m.once.Do(func() {
		_ = m.cmd.Process.Kill() // it may have ended by itself
		if m.line != nil {
			_ = m.line.Close()
		}
	})
	<-m.ended
}

// Command and Answer are what goes over the line, a JSON object a line.
type (
	Command struct{ Args []string }
	Answer  struct {
		Output string // stdout and stderr
		Error  string // empty: it exited with 0
	}
)

// Run runs a program in the machine and returns what it printed. One at a time.
func (m *Machine) Run(t *testing.T, args ...string) string {
	t.Helper()
	raw, err := json.Marshal(Command{args})
	if err == nil {
		_, err = m.line.Write(append(raw, '\n'))
	}
	var line []byte
	if err == nil {
		line, err = m.answer.ReadBytes('\n')
	}
	var a Answer
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if err != nil {
		t.Fatalf("run %q in the guest: %v", args, err)
	}
	if a.Error != "" {
		t.Fatalf("%q in the guest: %s\n%s", args, a.Error, a.Output)
	}
	return a.Output
}
