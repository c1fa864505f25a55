package qemu_test

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

// guest is a real QEMU whose processors stand still: what a guest would write is
// written through its devices' block backends, in an order that the test knows.
type guest struct {
	t       *testing.T
	dir     string
	images  []string
	qmp     string
	process *exec.Cmd
	control *qmp.Conn
}

const diskSize = 48<<20 + 4096

func newGuest(t *testing.T, disks int) *guest {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("qemu-system-x86_64 is not installed")
	}
	dir, err := os.MkdirTemp("", "lbq") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	g := &guest{t: t, dir: dir, qmp: filepath.Join(dir, "agent.qmp")}
	for i := range disks {
		path := filepath.Join(dir, fmt.Sprintf("disk%d.img", i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, diskSize); err != nil {
			t.Fatal(err)
		}
		g.images = append(g.images, path)
	}
	g.start()
	return g
}

func (g *guest) start() {
	g.t.Helper()
	control := filepath.Join(g.dir, "control.qmp")
	_, _ = os.Remove(control), os.Remove(g.qmp) // of a machine that was killed
	args := []string{
		"-machine", "q35,accel=tcg", "-m", "64", "-nodefaults", "-display", "none", "-S",
		"-qmp", "unix:" + g.qmp + ",server=on,wait=off", "-qmp", "unix:" + control + ",server=on,wait=off",
	}
	for i, image := range g.images {
		args = append(args, "-blockdev", fmt.Sprintf("driver=raw,node-name=image%d,discard=unmap,file.driver=file,file.filename=%s", i, image),
			"-device", fmt.Sprintf("virtio-blk-pci,id=disk%d,drive=image%d", i, i))
	}
	g.process = exec.Command("qemu-system-x86_64", args...)
	g.process.Stderr = os.Stderr
	if err := g.process.Start(); err != nil {
		g.t.Fatal(err)
	}
	process := g.process
	g.t.Cleanup(func() { _ = process.Process.Kill(); _ = process.Wait() })
	ctx, cancel := context.WithTimeout(g.t.Context(), 20*time.Second)
	defer cancel()
	for {
		nc, err := new(net.Dialer).DialContext(ctx, "unix", control)
		if err == nil {
			if g.control, err = qmp.New(ctx, nc); err != nil {
				g.t.Fatal(err)
			}
			break
		}
		select {
		case <-ctx.Done():
			g.t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	control2 := g.control
	go func() {
		for range control2.Events() {
		}
	}()
	g.t.Cleanup(func() { _ = control2.Close() })
}

// kill ends QEMU as a crash does.
func (g *guest) kill() {
	g.t.Helper()
	if err := g.process.Process.Kill(); err != nil {
		g.t.Fatal(err)
	}
	_ = g.process.Wait()
}

// io runs a command of qemu-io on a disk's device.
func (g *guest) io(ctx context.Context, disk int, command string) error {
	var out string
	err := g.control.Run(ctx, "human-monitor-command", map[string]any{
		"command-line": fmt.Sprintf("qemu-io -d /machine/peripheral/disk%d/virtio-backend \"%s\"", disk, command),
	}, &out)
	if err == nil && out != "" {
		err = fmt.Errorf("qemu-io %s: %s", command, out)
	}
	return err
}

func (g *guest) write(disk int, pattern byte, off, n int64) {
	g.t.Helper()
	if err := g.io(g.t.Context(), disk, fmt.Sprintf("write -q -P %d %d %d", pattern, off, n)); err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) open() *qemu.Tracker {
	g.t.Helper()
	tracker, err := qemu.Open(g.t.Context(), qemu.Options{Socket: g.qmp, Grain: 4096})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = tracker.Close() })
	return tracker
}

// content reads all of a disk as the cut has it.
func content(t *testing.T, d *qemu.Device) []byte {
	t.Helper()
	b := make([]byte, diskSize)
	for off := 0; off < len(b); off += 1 << 20 {
		if _, err := d.ReadAt(b[off:min(off+1<<20, len(b))], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	return b
}
