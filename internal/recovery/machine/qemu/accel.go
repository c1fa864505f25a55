package qemu

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// accelerator is what executes guests.
type accelerator struct {
	name   string // kvm or tcg
	option string // of -accel
	cpu    string // of -cpu
	note   string // why it is not the fast one; empty if it is
}

var kvm = accelerator{name: "kvm", option: "kvm", cpu: "host"}

// emulation is always there. Its processor has what the x86-64-v2 level asks for:
// current distributions refuse to boot on less.
func emulation(why string) accelerator {
	return accelerator{
		name:   "tcg",
		option: "tcg,thread=multi",
		cpu:    "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+lahf_lm",
		note:   "Hardware virtualization is not usable here (" + why + "): the machine is emulated, which is many times slower.",
	}
}

const (
	// probeTime is how long the probe's guest may take. It needs about 0.3 s.
	probeTime = 5 * time.Second
	// killTime is how long a killed probe may take to go. One that is stuck in the
	// kernel is left behind.
	killTime = 2 * time.Second
)

// probeExit is QEMU's exit status when the probe's guest has written probeByte to
// the debug exit device.
const (
	probeByte = 0x15
	probeExit = probeByte<<1 | 1
)

// bootSector is the probe's guest. It enters 64-bit mode with paging, as every
// kernel does, counts to 2^27, which takes a processor a twentieth of a second,
// and only then reports. Counting is the point: there are hosts whose /dev/kvm
// carries out a guest's instructions one by one in software. A short guest gets
// through there in a second or two, but a kernel seems to hang for ever.
//
//	7c00  fa                 cli
//	7c01  31 c0              xor  ax, ax
//	7c03  8e d8 8e c0 8e d0  mov  ds, ax; mov es, ax; mov ss, ax
//	7c09  bc 00 7c           mov  sp, 0x7c00
//	7c0c  fc                 cld
//	7c0d  66 bf 00100000     mov  edi, 0x1000      three page tables from here
//	7c13  0f 22 df           mov  cr3, edi
//	7c16  66 31 c0           xor  eax, eax
//	7c19  b9 00 0c           mov  cx, 0xc00
//	7c1c  66 f3 ab           rep stosd
//	7c1f  66 c7 06 0010 …    mov  dword [0x1000], 0x2003
//	7c28  66 c7 06 0020 …    mov  dword [0x2000], 0x3003
//	7c31  66 c7 06 0030 …    mov  dword [0x3000], 0x83   the first 2 MiB
//	7c3a  0f 20 e0           mov  eax, cr4
//	7c3d  0c 20              or   al, 0x20         physical address extension
//	7c3f  0f 22 e0           mov  cr4, eax
//	7c42  66 b9 800000c0     mov  ecx, 0xc0000080
//	7c48  0f 32              rdmsr
//	7c4a  80 cc 01           or   ah, 1            long mode
//	7c4d  0f 30              wrmsr
//	7c4f  0f 01 16 887c      lgdt [0x7c88]
//	7c54  0f 20 c0           mov  eax, cr0
//	7c57  66 0d 01000080     or   eax, 0x80000001  paging and protection
//	7c5d  0f 22 c0           mov  cr0, eax
//	7c60  ea 657c 0800       jmp  8:0x7c65
//	7c65  b9 00000008        mov  ecx, 1<<27       from here in 64-bit mode
//	7c6a  ff c9 75 fc        dec  ecx; jnz 7c6a
//	7c6e  b0 15              mov  al, 0x15
//	7c70  e6 f4              out  0xf4, al         the debug exit device
//	7c72  f4 eb fd           hlt; jmp 7c72
//	7c78                     the descriptor table: none, 64-bit code
//	7c88                     its size and address
//	7dfe  55 aa              the mark of a boot sector
var bootSector = func() []byte {
	const code = "+jHAjtiOwI7QvAB8/Ga/ABAAAA8i32YxwLkADGbzq2bHBgAQAyAAAGbHBgAgAzAAAGbHBgAwgwAAAA8g4AwgDyLgZrmAAADADzKAzAEPMA8BFoh8DyDAZg0BAACADyLA6mV8CAC5AAAACP/JdfywFeb09Ov9Dx8AAAAAAAAAAAAAAAAAAJogAA8AeHwAAA=="
	sector := make([]byte, 512)
	if _, err := base64.StdEncoding.Decode(sector, []byte(code)); err != nil {
		panic(err)
	}
	sector[510], sector[511] = 0x55, 0xaa
	return sector
}()

// probeKVM finds out whether guests run under KVM by running one. The presence of
// /dev/kvm proves nothing.
func probeKVM(ctx context.Context, program string) accelerator {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return emulation("this host has no /dev/kvm")
	}
	err := runProbe(ctx, program, kvm, probeTime)
	if err == nil {
		return kvm
	}
	return emulation(err.Error())
}

// runProbe boots bootSector and returns nil when it reported. A probe does not
// outlive this process, which may be killed while one hangs: the kernel ends it
// with the thread that started it, so that thread is kept.
func runProbe(ctx context.Context, program string, accel accelerator, limit time.Duration) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	disk, err := probeDisk()
	if err != nil {
		return fmt.Errorf("make the test guest's disk: %w", err)
	}
	defer disk.Close()
	var output strings.Builder
	//nolint:noctx // ended below, which tells a guest that hangs from a process that the kernel holds
	cmd := exec.Command(program, "-accel", accel.option, "-cpu", accel.cpu, "-machine", "q35", "-m", "16M",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-drive", "file=/proc/self/fd/3,format=raw,if=virtio,readonly=on",
		"-device", "isa-debug-exit,iobase=0xf4,iosize=4")
	cmd.Dir, cmd.Stderr, cmd.ExtraFiles = "/", &output, []*os.File{disk}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = killTime
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the process, which is killed below
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case err := <-ended:
		return probeResult(err, output.String())
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = fmt.Errorf("/dev/kvm is there, but a test guest did not get done within %s", limit)
	}
	_ = cmd.Process.Kill() // it may have ended just now
	gone := time.NewTimer(killTime)
	defer gone.Stop()
	select {
	case <-ended: //nolint:errcheck // killed, so how it ended says nothing
	case <-gone.C:
		err = fmt.Errorf("%w, and process %d is stuck in the kernel", err, cmd.Process.Pid)
	}
	return err
}

// probeDisk holds bootSector in memory: a process that is killed while it probes
// leaves nothing behind.
func probeDisk() (*os.File, error) {
	fd, err := unix.MemfdCreate("probe", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	disk := os.NewFile(uintptr(fd), "probe")
	if _, err = disk.Write(bootSector); err == nil {
		err = disk.Truncate(1 << 20) // below a cylinder the BIOS boots nothing
	}
	if err != nil {
		_ = disk.Close()
		return nil, err
	}
	return disk, nil
}

func probeResult(err error, output string) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == probeExit {
		return nil
	}
	if text := lastLine(output); text != "" {
		return errors.New(text)
	}
	if err == nil {
		return errors.New("a test guest ended without a report")
	}
	return fmt.Errorf("a test guest ended without a report: %w", err)
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
