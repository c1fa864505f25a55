package tracktest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"lifeboat/internal/qmp"
	"lifeboat/internal/source/blocktrack/qemu"
)

// Machine is a real QEMU whose processors stand still: what a guest would write is
// written through its devices' block backends, in an order that the test knows.
type Machine struct {
	Dir     string       // of the images and sockets
	Images  []string     // of disk0, disk1, ...
	Address qemu.Address // for the tracker under test
	Control Control

	t       *testing.T
	process *exec.Cmd
	ids     string // begins the ID of each disk
	plugged map[int]bool
}

// Control has QEMU carry out commands.
type Control interface {
	Run(ctx context.Context, command string, arguments, result any) error
}

// NewMachine starts a machine with so many disks of a size in bytes, all zeros. It
// is killed when the test ends.
func NewMachine(t *testing.T, disks int, size int64) *Machine {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("qemu-system-x86_64 is not installed")
	}
	dir, err := os.MkdirTemp("", "lbq") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m := &Machine{t: t, Dir: dir, Address: qemu.Address{Socket: filepath.Join(dir, "agent.qmp")}, ids: "disk"}
	for i := range disks {
		m.Images = append(m.Images, m.Image(fmt.Sprintf("disk%d.img", i), size))
	}
	m.Start()
	return m
}

// Image makes an image of zeros in the machine's folder.
func (m *Machine) Image(name string, size int64) string {
	m.t.Helper()
	path := filepath.Join(m.Dir, name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// Start starts the machine, again after Kill.
func (m *Machine) Start() {
	m.t.Helper()
	control := filepath.Join(m.Dir, "control.qmp")
	_, _ = os.Remove(control), os.Remove(m.Address.Socket) // of a machine that was killed
	args := []string{
		"-machine", "q35,accel=tcg", "-m", "64", "-nodefaults", "-display", "none", "-S",
		"-name", "harbour", "-uuid", "7d3e1c52-0b1f-4c8e-9a44-1df0c2a9e0aa", "-smp", "2",
		"-device", "virtio-scsi-pci,id=scsi", // for disks that come and go
		"-qmp", "unix:" + m.Address.Socket + ",server=on,wait=off", "-qmp", "unix:" + control + ",server=on,wait=off",
	}
	for i, image := range m.Images {
		// share-rw lets a test write besides the guest, through an export.
		args = append(args, "-blockdev", fmt.Sprintf("driver=raw,node-name=image%d,discard=unmap,file.driver=file,file.filename=%s", i, image),
			"-device", fmt.Sprintf("virtio-blk-pci,id=disk%d,drive=image%d,share-rw=on", i, i))
	}
	process := exec.Command("qemu-system-x86_64", args...) //nolint:noctx // it lives until Kill
	process.Stderr = os.Stderr
	if err := process.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.process = process
	m.t.Cleanup(func() { _ = process.Process.Kill(); _ = process.Wait() })
	ctx, cancel := context.WithTimeout(m.t.Context(), 3*time.Minute)
	defer cancel()
	var conn *qmp.Conn
	for {
		nc, err := new(net.Dialer).DialContext(ctx, "unix", control)
		if err == nil {
			if conn, err = qmp.New(ctx, nc); err != nil {
				m.t.Fatal(err)
			}
			break
		}
		select {
		case <-ctx.Done():
			state, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", process.Process.Pid))
			waits, _ := os.ReadFile(fmt.Sprintf("/proc/%d/wchan", process.Process.Pid))
			m.t.Fatalf("QEMU offers no control socket: %v; its state: %s, it waits in %s", err, state, waits)
		case <-time.After(10 * time.Millisecond): // it offers nothing else to wait for
		}
	}
	m.Control = conn
	go func() {
		for range conn.Events() { // somebody must take them
		}
	}()
	m.t.Cleanup(func() { _ = conn.Close() })
}

// Kill ends QEMU as a crash does.
func (m *Machine) Kill() {
	m.t.Helper()
	if err := m.process.Process.Kill(); err != nil {
		m.t.Fatal(err)
	}
	_ = m.process.Wait()
}

// Run has QEMU carry out a command, which must succeed.
func (m *Machine) Run(command string, arguments any) {
	m.t.Helper()
	if err := m.Control.Run(m.t.Context(), command, arguments, nil); err != nil {
		m.t.Fatal(err)
	}
}

// IO runs a command of qemu-io on a disk's device. It may be called concurrently.
func (m *Machine) IO(ctx context.Context, disk int, command string) error {
	device := fmt.Sprintf("/machine/peripheral/%s%d/virtio-backend", m.ids, disk)
	if m.plugged[disk] {
		device = fmt.Sprintf("disk%d", disk)
	}
	var out string
	err := m.Control.Run(ctx, "human-monitor-command", map[string]any{
		"command-line": fmt.Sprintf("qemu-io -d %s \"%s\"", device, command),
	}, &out)
	if err == nil && out != "" {
		err = fmt.Errorf("qemu-io %s: %s", command, out)
	}
	return err
}

// Write writes bytes of a pattern to a disk.
func (m *Machine) Write(disk int, pattern byte, off, n int64) {
	m.t.Helper()
	if err := m.IO(m.t.Context(), disk, fmt.Sprintf("write -q -P %d %d %d", pattern, off, n)); err != nil {
		m.t.Fatal(err)
	}
}

// Plug adds a disk with an image, as diskN. It takes no guest that agrees.
func (m *Machine) Plug(n int, image string) {
	m.t.Helper()
	m.Run("blockdev-add", map[string]any{
		"driver": "raw", "node-name": fmt.Sprintf("image%d", n), "discard": "unmap", "file": map[string]any{"driver": "file", "filename": image},
	})
	m.Run("device_add", map[string]any{
		"driver": "scsi-hd", "id": fmt.Sprintf("disk%d", n), "drive": fmt.Sprintf("image%d", n), "bus": "scsi.0", "share-rw": true,
	})
	if m.plugged == nil {
		m.plugged = map[int]bool{}
	}
	m.plugged[n] = true
}

// Unplug removes a disk that was added, and QEMU lets go of its image.
func (m *Machine) Unplug(n int) {
	m.t.Helper()
	m.Run("device_del", map[string]any{"id": fmt.Sprintf("disk%d", n)})
	// While a cut is held QEMU holds the image for it.
	for m.Control.Run(m.t.Context(), "blockdev-del", map[string]any{"node-name": fmt.Sprintf("image%d", n)}, nil) != nil {
		select {
		case <-m.t.Context().Done():
			m.t.Fatalf("disk%d stays", n)
		case <-time.After(20 * time.Millisecond): // there is nothing else to wait for
		}
	}
}

// Devices makes block devices of this host whose writes are made by QEMU, as those of a
// guest are, one for each disk. They are gone when the test ends.
func (m *Machine) Devices() (devices []string) {
	m.t.Helper()
	if os.Getuid() != 0 {
		m.t.Skip("loop devices need root")
	}
	for i, image := range m.Images {
		file := image + ".through"
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			m.t.Fatal(err)
		}
		m.Run("block-export-add", map[string]any{
			"type": "fuse", "id": fmt.Sprintf("through%d", i), "node-name": fmt.Sprintf("image%d", i), "mountpoint": file, "writable": true,
		})
		m.t.Cleanup(func() { Command(m.t, "umount", "-l", file) })
		devices = append(devices, LoopOn(m.t, file))
	}
	return devices
}
