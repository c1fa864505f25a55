package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/convert"
	"lifeboat/internal/source/agent"
	"lifeboat/internal/source/blocktrack/ebpf"
	"lifeboat/internal/source/blocktrack/qemu"
	"lifeboat/internal/source/freeze"
	"lifeboat/internal/source/inventory"
	"lifeboat/internal/source/service"
)

// agentCommand is the agent itself where none of its verbs is named.
type agentCommand struct {
	Protect   protectCommand        `cmd:"" default:"withargs" name:"run" help:"Replicate until told to stop. This is what lifeboat agent does without a verb."`
	Install   agentInstallCommand   `cmd:"" help:"Make the agent a service of this machine under systemd, and wait until it replicates."`
	Upgrade   agentUpgradeCommand   `cmd:"" help:"Put this program in place of the installed one, and start the service with it; the machine stays the source server that it is."`
	Uninstall agentUninstallCommand `cmd:"" help:"Stop and remove the service. The agent's state stays, unless --purge."`
}

// protectCommand is the agent.
type protectCommand struct {
	Server    string   `required:"" placeholder:"URL" help:"API address of the server, https://HOST:PORT."`
	CACert    string   `required:"" name:"ca-cert" placeholder:"FILE" help:"Certificate that the server's is signed by: ca.pem of its data directory."`
	Token     string   `env:"LIFEBOAT_TOKEN" placeholder:"T" help:"Install token; needed until this machine is registered. \"lifeboat env\" on the server prints one."`
	TokenFile string   `placeholder:"FILE" help:"File of the install token; removed once this machine is registered."`
	State     string   `required:"" placeholder:"DIR" type:"path" help:"Directory of this agent's identity."`
	Disk      []string `placeholder:"PATH" sep:"none" help:"Block device or disk image file to replicate; again for each disk, the boot disk first. Without it: those of the start before; at first, or with \"all\", all disks of this machine, and new ones as they come. With --qmp or --domain: QEMU's name of a disk or its image; all that the machine can write to by default."`

	agentFlags
}

// agentFlags are what the agent and its installation have in common.
type agentFlags struct {
	Tracker    string        `default:"auto" enum:"auto,scan,ebpf,qemu" help:"How changed blocks are found: ebpf (the kernel marks writes to block devices), scan (all is read and compared), qemu (QEMU tells what its machine wrote, see --qmp and --domain), or auto: qemu with one of these, else ebpf where it works."`
	QMP        string        `name:"qmp" placeholder:"SOCKET" help:"With --tracker qemu: the machine to protect, by a QMP socket that nobody else uses (qemu-system-... -qmp unix:SOCKET,server=on,wait=off). Nothing runs in the guest."`
	Domain     string        `placeholder:"NAME" help:"With --tracker qemu: the machine to protect, by its name or UUID with libvirt on this host. Nothing runs in the guest; if it has QEMU's guest agent, its filesystems are frozen for the moment of each recovery point."`
	Libvirt    string        `placeholder:"URI" help:"With --domain: libvirt's daemon, qemu:///system by default."`
	GuestAgent string        `name:"guest-agent" placeholder:"SOCKET" help:"With --qmp: socket of the machine's port org.qemu.guest_agent.0, which nobody else uses: filesystems of the guest are frozen for the moment of each recovery point."`
	Scratch    string        `placeholder:"DIR" help:"With --qmp or --domain: folder in which QEMU keeps what the guest overwrites while it is read; by default that of the socket, or the one that libvirt made for the machine. 256 MiB must be free."`
	Epoch      time.Duration `placeholder:"5s" help:"Spacing of recovery points; the server's choice by default."`

	AuditDays int `default:"30" placeholder:"N" help:"With the ebpf tracker: read and compare all disks once in so many days, while they are at rest, to make sure that no write was missed. 0 never does."`

	DiskGrace   time.Duration `default:"10m" help:"How long a disk that is gone is waited for: then recovery points go on without it; those there are keep it. 0 waits for ever."`
	DropMissing bool          `help:"Recovery points go on at once without disks of this source server that are gone, or not named any more."`

	Freeze time.Duration `default:"2s" help:"The longest that filesystems are frozen for a recovery point of a disk that is never at rest; 0 never freezes. Needs the ebpf tracker."`
	Hooks  string        `placeholder:"DIR" type:"existingdir" help:"Directory with the programs \"before\" and \"after\", to be run around each freeze: points are then consistent for the applications that they bring to rest."`

	Hostname string     `placeholder:"NAME" help:"Name of the source server; this machine's by default."`
	CPUs     int        `name:"cpus" placeholder:"N" help:"CPUs of the source server, where a disk image is not this machine's."`
	Memory   string     `placeholder:"SIZE" help:"Memory of the source server, as in 2GiB, likewise."`
	BootMode string     `placeholder:"MODE" help:"bios or uefi, likewise; read off the disk by default."`
	Metrics  string     `placeholder:"ADDR" help:"Serve metrics for Prometheus at http://ADDR/metrics: HOST:PORT, of which 127.0.0.1 keeps them on this machine, or unix:FILE. Not served by default."`
	LogLevel slog.Level `default:"info" help:"debug, info, warn or error."`
}

// pins is where the kernel goes on tracking while no agent runs.
const pins = ebpf.Filesystem + "/lifeboat"

// Run is the agent until it is told to stop.
func (c *protectCommand) Run(ctx context.Context) error {
	overrides := inventory.Overrides{Hostname: c.Hostname, CPUs: c.CPUs}
	if c.CPUs < 0 {
		return usageError{fmt.Errorf("--cpus %d: want at least 1", c.CPUs)}
	}
	if c.Memory != "" {
		size, err := humanize.ParseBytes(c.Memory)
		if err != nil || size < 1<<20 || size > 1<<50 {
			return usageError{fmt.Errorf("--memory %s: want a size of at least 1MiB, as in 2GiB", c.Memory)}
		}
		overrides.Memory = int64(size)
	}
	switch mode := drs.BootMode(strings.ToUpper(c.BootMode)); mode {
	case drs.BootUnknown, drs.BootBIOS, drs.BootUEFI:
		overrides.BootMode = mode
	default:
		return usageError{fmt.Errorf("--boot-mode %s: want bios or uefi", c.BootMode)}
	}
	if c.Freeze <= 0 {
		c.Freeze = -1
	}
	if c.AuditDays < 0 {
		return usageError{fmt.Errorf("--audit-days %d: want a number of days, or 0", c.AuditDays)}
	}
	auditIn := time.Duration(c.AuditDays) * 24 * time.Hour
	if auditIn == 0 {
		auditIn = -1
	}
	if c.DiskGrace < 0 {
		return usageError{fmt.Errorf("--disk-grace %s: want a time, or 0", c.DiskGrace)}
	}
	if c.DiskGrace == 0 {
		c.DiskGrace = -1
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: c.LogLevel}))
	systemd := service.NewNotifier()
	status := func(line string) {
		if err := systemd.Status(line, !strings.HasPrefix(line, "STARTING")); err != nil {
			log.Warn("status not told", "err", err)
		}
	}
	metrics := agent.NewMetrics()
	if c.Metrics != "" {
		stop, err := serveMetrics(ctx, c.Metrics, metrics, log)
		if err != nil {
			return err
		}
		defer stop()
	}
	err = agent.Run(ctx, agent.Config{
		AuditIn: auditIn, DiskGrace: c.DiskGrace, DropMissing: c.DropMissing, FreezeBound: c.Freeze, Guard: []string{self, "guard"}, Hooks: c.Hooks,
		Server: c.Server, CAFile: c.CACert, Token: c.Token, TokenFile: c.TokenFile, State: c.State, Disks: c.Disk,
		Tracker: c.Tracker, Pins: pins, Machine: agent.Machine{
			Address: qemu.Address{Socket: c.QMP, Agent: c.GuestAgent, Domain: c.Domain, Libvirt: c.Libvirt},
			Scratch: c.Scratch, Guard: []string{self, "guard", "qemu"},
		},
		Overrides: overrides, BootMode: bootMode, Epoch: c.Epoch, Version: version,
		Status: status, Metrics: metrics, Logger: log,
	})
	if err != nil {
		if told := systemd.Status(err.Error(), false); told != nil {
			log.Warn("status not told", "err", told)
		}
	}
	return err
}

// guardCommand is the agent's own helper.
type guardCommand struct {
	Of string `arg:"" optional:"" enum:"host,qemu" default:"host"`
}

// Run puts right what an agent leaves behind when it dies.
func (c *guardCommand) Run() error {
	if c.Of == "qemu" {
		return qemu.Watch(os.Stdin, os.Stdout)
	}
	return freeze.Watch(os.Stdin, os.Stdout)
}

// bootMode reads off a disk how it boots.
func bootMode(disk io.ReaderAt, size int64) drs.BootMode {
	layout, err := convert.Inspect(disk, size)
	if err != nil {
		return drs.BootUnknown // an unreadable disk is the replication's to report
	}
	return layout.BootMode
}
