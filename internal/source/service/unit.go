package service

import "strings"

// Unit is the systemd unit of the settings.
//
// KillMode=process: the agent starts a guard that thaws filesystems when the agent
// dies while they are frozen. Were it killed together with the agent, they would
// stay frozen, and the machine with them. The guard ends by itself.
//
// No option gives the service a view of its own of the mounted filesystems
// (ProtectSystem, PrivateTmp and others) or of the devices: the agent reads the
// disks and freezes the filesystems on them as they are. What remains bounds it all
// the same: CAP_SYS_ADMIN is what freezing takes, CAP_BPF and CAP_PERFMON what
// tracking writes does. Hooks are programs of the user's, such as psql run as
// another user, so they lift the bounds.
func Unit(s Settings) string {
	var b strings.Builder
	b.WriteString(`# Made by "lifeboat agent install" and made again by "lifeboat agent upgrade":
# change it with "systemctl edit ` + Name + `", or install again with other flags.
[Unit]
Description=Lifeboat agent: replicates the disks of this machine
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart=` + Program + " agent")
	for _, arg := range s.Args {
		b.WriteString(" " + quote(arg))
	}
	b.WriteString(`
# proxies and the like
EnvironmentFile=-` + configDir + `/environment
TimeoutStartSec=180
TimeoutStopSec=60
# 2: wrong flags; 3: the server turned this agent away for good
Restart=on-failure
RestartSec=15
RestartPreventExitStatus=2 3
# the guard outlives the agent, to thaw what it froze
KillMode=process
OOMPolicy=continue
Nice=5
IOSchedulingClass=best-effort
IOSchedulingPriority=7
UMask=0077
`)
	if !s.Hooks {
		b.WriteString(`CapabilityBoundingSet=CAP_SYS_ADMIN CAP_SYS_RAWIO CAP_SYS_RESOURCE CAP_BPF CAP_PERFMON CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @module @obsolete @reboot @swap
SystemCallErrorNumber=EPERM
`)
	}
	b.WriteString(`
[Install]
WantedBy=multi-user.target
`)
	return b.String()
}

// quote makes one word of a unit's command line.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$", "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}
