package guest

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	parts "lifeboat/internal/demo/guest"
	"lifeboat/internal/qmp"
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
	// Serial is what the disk is called by itself; empty: nothing, or of NVMe its number.
	Serial string
}

// bootLimit only keeps a hung machine from hanging the tests.
const bootLimit = 4 * time.Minute

// Config says what a machine has.
type Config struct {
	Disks []Disk
	// Slots is how many disks can be added while it runs.
	Slots int
	// Files are put into the machine, by their path there without the first slash,
	// executable; the values are paths on the host. Libraries do not come along.
	Files map[string]string
	// Tools are programs of the host that come along with their libraries.
	Tools []string
	// Args are QEMU's, besides.
	Args []string
	// Logs are names of virtio ports. What is written to /dev/virtio-ports/NAME, or
	// by a program that was started by that name, is added to a file of the host.
	Logs []string
}

// Machine is a running guest.
type Machine struct {
	Console *parts.Console // of the latest boot

	dir    string // of its sockets, archive and logs
	args   []string
	qmp    *qmp.Conn
	cmd    *exec.Cmd
	killed bool
	ended  chan struct{}
	line   net.Conn
	answer *bufio.Reader
}

var ready = regexp.MustCompile(`^GUEST READY`)

// Launch boots a machine whose files lie in dir, which has a short name, for a socket's
// is. It returns when the machine takes commands. Kill it in the end.
func Launch(ctx context.Context, dir string, cfg Config) (*Machine, error) {
	m := &Machine{dir: dir}
	if err := m.prepare(ctx, cfg); err != nil {
		return nil, fmt.Errorf("start guest: %w", err)
	}
	return m, m.boot(ctx)
}

// PowerCut takes the machine's power away and boots it again, with the disks as they
// are.
func (m *Machine) PowerCut(ctx context.Context) error {
	m.Kill()
	return m.boot(ctx)
}

// Log is the file of the host that a log of Config.Logs is written to.
func (m *Machine) Log(name string) string { return filepath.Join(m.dir, name+".log") }

// prepare writes the machine's archive and its command line.
func (m *Machine) prepare(ctx context.Context, cfg Config) error {
	initrd := filepath.Join(m.dir, "initrd")
	kernel, err := writeInitrd(ctx, initrd, cfg.Files, cfg.Tools)
	if err != nil {
		return err
	}
	m.args = []string{
		"-accel", "tcg,thread=multi", "-M", "q35", "-cpu", "qemu64", "-smp", "2", "-m", "768",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet no_timer_check panic=-1",
		"-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,id=net0",
		"-qmp", "unix:" + m.socket("qmp") + ",server=on,wait=off",
		"-device", "virtio-rng-pci", "-device", "virtio-serial", "-chardev", "socket,id=commands,server=on,wait=off,path=" + m.socket("commands"),
		"-device", "virtserialport,chardev=commands,name=commands",
	}
	for _, name := range cfg.Logs {
		m.args = append(m.args, "-chardev", fmt.Sprintf("file,id=%s,append=on,path=%s", name, m.Log(name)),
			"-device", fmt.Sprintf("virtserialport,chardev=%s,name=%s", name, name))
	}
	for i, d := range cfg.Disks {
		device := fmt.Sprintf("virtio-blk-pci,id=disk%d,drive=d%d", i, i)
		if d.Bus == NVMe {
			device = fmt.Sprintf("nvme,id=disk%d,drive=d%d", i, i)
			d.Serial = cmp.Or(d.Serial, fmt.Sprint(i))
		}
		if d.Serial != "" {
			device += ",serial=" + d.Serial
		}
		m.args = append(m.args, "-device", device,
			"-blockdev", fmt.Sprintf("driver=raw,node-name=d%d,discard=unmap,file.driver=file,file.filename=%s", i, d.Path))
	}
	for i := range cfg.Slots {
		m.args = append(m.args, "-device", fmt.Sprintf("pcie-root-port,id=slot%d,chassis=%d,slot=%d", i, i+1, i+1))
	}
	m.args = append(m.args, cfg.Args...)
	return nil
}

func (m *Machine) socket(name string) string { return filepath.Join(m.dir, name) }

// boot starts QEMU and waits until the machine takes commands.
func (m *Machine) boot(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bootLimit, fmt.Errorf("it took more than %s", bootLimit))
	defer cancel()
	m.Console, m.ended, m.killed = parts.NewConsole(), make(chan struct{}), false
	m.cmd = exec.Command("qemu-system-x86_64", m.args...) //nolint:noctx // it lives until Kill
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var complaints strings.Builder
	m.cmd.Stdout, m.cmd.Stderr = m.Console, &complaints
	if err := m.cmd.Start(); err != nil {
		return fmt.Errorf("start guest: %w", err)
	}
	console, cmd, ended := m.Console, m.cmd, m.ended
	go func() {
		defer close(ended)
		err := cmd.Wait()
		console.Close(fmt.Errorf("machine ended: %w %s", errors.Join(err), complaints.String()))
	}()
	_, err := m.Console.Wait(ctx, 0, ready)
	if err == nil {
		m.line, err = (&net.Dialer{}).DialContext(ctx, "unix", m.socket("commands"))
	}
	var control net.Conn
	if err == nil {
		control, err = (&net.Dialer{}).DialContext(ctx, "unix", m.socket("qmp"))
	}
	if err == nil {
		m.qmp, err = qmp.New(ctx, control)
	}
	if err == nil {
		go discard(m.qmp.Events()) // an agent outside makes more of them than a connection holds
	}
	if err != nil {
		m.Kill()
		return fmt.Errorf("start guest: %w\n%s", err, m.Console.Tail(20))
	}
	m.answer = bufio.NewReader(m.line)
	return nil
}

// Reset presses the machine's reset button: QEMU goes on, what ran in the machine is
// gone. It returns when the machine takes commands again.
func (m *Machine) Reset(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bootLimit, fmt.Errorf("it took more than %s", bootLimit))
	defer cancel()
	seen := len(m.Console.Lines(0))
	err := m.qmp.Run(ctx, "set-action", map[string]any{"reboot": "reset"}, nil)
	if err == nil {
		err = m.qmp.Run(ctx, "system_reset", nil, nil)
	}
	if err == nil {
		_, err = m.Console.Wait(ctx, seen, ready)
	}
	if err != nil {
		return fmt.Errorf("reset guest: %w\n%s", err, m.Console.Tail(20))
	}
	return nil
}

// discard takes the events of a connection until its end.
func discard(events <-chan qmp.Event) {
	for range events {
	}
}

// Kill ends the machine as a power cut would. It is safe to repeat.
func (m *Machine) Kill() {
	if !m.killed {
		m.killed = true
		_ = m.cmd.Process.Kill() // it may have ended by itself
		if m.line != nil {
			_ = m.line.Close()
		}
		if m.qmp != nil {
			_ = m.qmp.Close()
		}
	}
	<-m.ended
}

// Link pulls the machine's network cable, or puts it back.
func (m *Machine) Link(ctx context.Context, up bool) error {
	return m.qmp.Run(ctx, "set_link", map[string]any{"name": "net0", "up": up}, nil)
}
