package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// Config says how to run a machine.
type Config struct {
	// Image is the path of the raw disk image; the machine writes to it.
	Image string
	// Firmware the image boots under; empty means BIOS.
	Firmware Firmware
	// MemoryMiB and CPUs default to 256 and 1.
	MemoryMiB, CPUs int
	// Network lets the machine reach the host, and what the host reaches; without it
	// the machine has a card that leads nowhere.
	Network bool
	// QMPSocket, when not empty, is where QEMU listens for QMP.
	QMPSocket string
	// Args are more arguments for QEMU.
	Args []string
	// ConsoleCopy, when not nil, gets everything the serial console prints.
	ConsoleCopy io.Writer
}

// Machine is a running QEMU: emulation only, so that it works wherever tests
// do. It dies with the process that started it.
type Machine struct {
	Console *Console

	cmd  *exec.Cmd
	done chan struct{} // closed when QEMU has ended and Console is closed
	err  error         // why QEMU ended, valid after done
	vars string        // private copy of the UEFI variables, removed at the end
	once sync.Once
}

// Start runs a machine. It returns as soon as QEMU runs; use Console to see
// it boot. Cancelling ctx kills the machine.
func Start(ctx context.Context, cfg Config) (*Machine, error) {
	if cfg.MemoryMiB == 0 {
		cfg.MemoryMiB = 256
	}
	if cfg.CPUs == 0 {
		cfg.CPUs = 1
	}
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return nil, errors.New("start guest: qemu-system-x86_64 is missing: install qemu-system-x86 (Debian, Ubuntu)")
	}
	m := &Machine{Console: NewConsole(), done: make(chan struct{})}
	args := []string{
		"-accel", "tcg,thread=multi", "-M", "q35", "-cpu", "qemu64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-smp", fmt.Sprint(cfg.CPUs), "-m", fmt.Sprint(cfg.MemoryMiB), "-serial", "stdio",
		"-blockdev", "driver=file,node-name=file0,filename=" + escape(cfg.Image),
		"-blockdev", "driver=raw,node-name=disk0,file=file0",
		"-device", "virtio-blk-pci,drive=disk0,bootindex=0",
		"-netdev", "user,id=net0,restrict=" + onOff(!cfg.Network), "-device", "virtio-net-pci,netdev=net0",
	}
	if cfg.Firmware == UEFI {
		code, vars, err := uefiFirmware(filepath.Dir(cfg.Image))
		if err != nil {
			return nil, fmt.Errorf("start guest: %w", err)
		}
		m.vars = vars
		args = append(args,
			"-drive", "if=pflash,format=raw,readonly=on,file="+escape(code),
			"-drive", "if=pflash,format=raw,file="+escape(vars))
	}
	if cfg.QMPSocket != "" {
		args = append(args, "-qmp", "unix:"+escape(cfg.QMPSocket)+",server=on,wait=off")
	}
	args = append(args, cfg.Args...)
	m.cmd = exec.CommandContext(ctx, qemu, args...)
	// A group of its own keeps a Ctrl-C at the terminal from killing the machine
	// behind its owner's back; the death signal keeps it from outliving the owner.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var complaints strings.Builder
	m.cmd.Stderr = &complaints
	m.cmd.Stdout = m.Console
	if cfg.ConsoleCopy != nil {
		m.cmd.Stdout = io.MultiWriter(m.Console, cfg.ConsoleCopy)
	}
	if err := m.cmd.Start(); err != nil {
		m.removeVars()
		return nil, fmt.Errorf("start guest: %w", err)
	}
	go func() {
		defer close(m.done)
		m.err = m.cmd.Wait()
		m.removeVars()
		reason := errors.New("machine ended")
		if text := strings.TrimSpace(complaints.String()); text != "" {
			reason = fmt.Errorf("machine ended: %s", text)
		}
		m.Console.Close(reason)
	}()
	return m, nil
}

// Kill ends the machine as a power cut would and waits until it is gone. It is
// safe to repeat.
func (m *Machine) Kill() {
	m.once.Do(func() { _ = m.cmd.Process.Kill() }) // it may have ended by itself
	<-m.done
}

// Done is closed when the machine has ended.
func (m *Machine) Done() <-chan struct{} { return m.done }

func (m *Machine) removeVars() {
	if m.vars != "" {
		_ = os.Remove(m.vars)
	}
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// escape keeps a comma in a file name from ending a QEMU option.
func escape(path string) string { return strings.ReplaceAll(path, ",", ",,") }

// uefiFirmware finds the firmware and makes a private copy of its variables in dir.
func uefiFirmware(dir string) (code, vars string, err error) {
	for _, pair := range [][2]string{
		{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
		{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
		{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
		{"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},
	} {
		fresh, err := os.ReadFile(pair[1])
		if err != nil || !exists(pair[0]) {
			continue
		}
		file, err := os.CreateTemp(dir, ".uefi-vars-*")
		if err != nil {
			return "", "", err
		}
		_, err = file.Write(fresh)
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
		return pair[0], file.Name(), err
	}
	return "", "", errors.New("no UEFI firmware found: install ovmf (Debian, Ubuntu)")
}
