package tracktest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/internal/qmp/libvirt"
	"lifeboat/internal/source/blocktrack/qemu"
)

// Libvirt is a daemon of libvirt with folders of its own, that runs as nobody, and a
// machine that it runs, which stands still as a Machine does.
type Libvirt struct {
	*Machine
	URI string

	t    *testing.T
	home string
	run  *exec.Cmd
}

// nobody is the user that the daemon and its machines run as.
const nobody = 65534

const domain = "harbour"

// NewLibvirt starts a daemon and a machine with so many disks of a size in bytes, all
// zeros. Both are killed when the test ends. It needs root.
func NewLibvirt(t *testing.T, disks int, size int64) *Libvirt {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("starting a daemon as another user needs root")
	}
	if _, err := exec.LookPath("libvirtd"); err != nil {
		t.Fatal("libvirtd is not installed: run make setup-test")
	}
	home, err := os.MkdirTemp("", "lbv") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	socket := filepath.Join(home, "run/libvirt/libvirt-sock")
	l := &Libvirt{t: t, home: home, URI: "qemu+unix:///session?socket=" + socket}
	l.Machine = &Machine{t: t, Dir: home, Address: qemu.Address{Domain: domain, Libvirt: l.URI}, ids: "ua-disk"}
	for _, dir := range []string{"run", "config/libvirt", "cache", "data"} {
		if err := os.MkdirAll(filepath.Join(home, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	l.write("libvirtd.conf", "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\nlog_outputs = \"3:stderr\"\n")
	l.write("config/libvirt/qemu.conf", "stdio_handler = \"file\"\n")
	for i := range disks {
		l.Images = append(l.Images, l.Image(fmt.Sprintf("disk%d.img", i), size))
	}
	l.write("domain.xml", l.xml())
	if err := filepath.WalkDir(home, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, nobody, nobody) //nolint:gosec // a folder of the test's own
	}); err != nil {
		t.Fatal(err)
	}
	l.StartDaemon()
	t.Cleanup(func() {
		_, _ = l.virsh("destroy", domain)
		l.KillDaemon()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(home, "cache/libvirt/qemu/log", domain+".log"))
			t.Logf("the machine's log:\n%s", log)
		}
	})
	l.Virsh("define", filepath.Join(home, "domain.xml"))
	l.Start()
	return l
}

func (l *Libvirt) write(name, text string) {
	l.t.Helper()
	if err := os.WriteFile(filepath.Join(l.home, name), []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

func (l *Libvirt) xml() string {
	var disks strings.Builder
	for i, image := range l.Images {
		// shareable lets a test write besides the guest, through an export.
		fmt.Fprintf(&disks, `<disk type='file' device='disk'><driver name='qemu' type='raw' discard='unmap'/><source file='%s'/>
			<target dev='vd%c' bus='virtio'/><shareable/><alias name='ua-disk%d'/></disk>`, image, 'a'+i, i)
	}
	return `<domain type='qemu'><name>` + domain + `</name><uuid>7d3e1c52-0b1f-4c8e-9a44-1df0c2a9e0aa</uuid>
		<memory unit='MiB'>64</memory><vcpu>2</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os>
		<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>` + disks.String() + `
		<controller type='scsi' model='virtio-scsi'/>
		<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
		</devices></domain>`
}

// StartDaemon starts the daemon, again after KillDaemon. Machines that run go on.
func (l *Libvirt) StartDaemon() {
	l.t.Helper()
	at := func(dir string) string { return filepath.Join(l.home, dir) }
	_ = os.Remove(at("run/libvirt/libvirt-sock"))                                                      // of a daemon that was killed
	l.run = exec.Command("libvirtd", "--timeout", "0", "-f", at("libvirtd.conf"), "-p", at("run/pid")) //nolint:noctx // it lives until KillDaemon
	l.run.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + l.home, "XDG_RUNTIME_DIR=" + at("run"), "XDG_CONFIG_HOME=" + at("config"),
		"XDG_CACHE_HOME=" + at("cache"), "XDG_DATA_HOME=" + at("data"),
	}
	l.run.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	if err := l.run.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.await("the daemon", func() error {
		_, err := l.virsh("list")
		return err
	})
}

// KillDaemon ends the daemon as a crash does. Its machine goes on.
func (l *Libvirt) KillDaemon() {
	_ = l.run.Process.Kill()
	_ = l.run.Wait()
}

// Start starts the machine, again after Virsh("destroy"), with processors that stand
// still.
func (l *Libvirt) Start() {
	l.t.Helper()
	l.Virsh("start", "--paused", domain)
	l.Redial()
}

// Redial connects Control to the machine, after StartDaemon.
func (l *Libvirt) Redial() {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 3*time.Minute)
	defer cancel()
	control, err := libvirt.Dial(ctx, l.URI, domain)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = control.Close() })
	l.Control = control
}

// Stop has the machine end, as a crash does.
func (l *Libvirt) Stop() { l.Virsh("destroy", domain) }

// Virsh runs libvirt's own client, which must succeed.
func (l *Libvirt) Virsh(args ...string) string {
	l.t.Helper()
	out, err := l.virsh(args...)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

func (l *Libvirt) virsh(args ...string) (string, error) {
	cmd := exec.Command("virsh", append([]string{"-q", "-c", l.URI}, args...)...) //nolint:noctx // ends with its daemon
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("virsh %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func (l *Libvirt) await(what string, is func() error) {
	l.t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		err := is()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("%s: %v", what, err)
		}
	}
}

// Own makes a file one that the machine can be given.
func (l *Libvirt) Own(path string) {
	l.t.Helper()
	if err := os.Chown(path, nobody, nobody); err != nil {
		l.t.Fatal(err)
	}
}
