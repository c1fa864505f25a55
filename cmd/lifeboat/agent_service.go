package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"lifeboat/internal/source/agent"
	"lifeboat/internal/source/service"
)

type agentInstallCommand struct {
	Server string   `required:"" placeholder:"URL" help:"API address of the server, https://HOST:PORT."`
	CACert string   `required:"" name:"ca-cert" placeholder:"FILE" type:"existingfile" help:"Certificate that the server's is signed by; it is copied."`
	Token  string   `env:"LIFEBOAT_TOKEN" placeholder:"T" help:"Install token; not needed where the state directory holds an identity. It is kept in a file of its own only until the agent is registered."`
	State  string   `default:"/var/lib/lifeboat-agent" placeholder:"DIR" help:"Directory of the agent's identity."`
	Disk   []string `placeholder:"PATH" sep:"none" help:"Block device or disk image file to replicate; again for each disk, the boot disk first. All disks of this machine by default, and new ones as they come."`
	NoWait bool     `help:"Return as soon as the agent has reached its server, not only when it has replicated all."`

	placeFlags
	agentFlags
}

type placeFlags struct {
	Root string `placeholder:"DIR" type:"existingdir" help:"Install below this folder, such as an image that will boot elsewhere; nothing is started. Other paths mean what they will mean there, except --ca-cert."`
}

// check refuses what cannot work before anything is changed.
func (f placeFlags) check(instead string) (service.Place, error) {
	place := service.Place{Root: f.Root}
	switch {
	case f.Root != "":
	case os.Geteuid() != 0:
		return place, errors.New("services are installed by root: run it with sudo")
	case !service.Running():
		return place, errors.New("systemd does not run on this machine: " + instead)
	}
	return place, nil
}

// registeredWithin bounds the wait for an agent's first contact.
const registeredWithin = 2 * time.Minute

// Run installs the service and watches it until it replicates.
func (c *agentInstallCommand) Run(ctx context.Context) error {
	if c.Root != "" && len(c.Disk) == 0 && c.QMP == "" && c.Domain == "" {
		return usageError{errors.New("--root installs for another machine: name its disks with --disk")}
	}
	paths := []string{c.State}
	for _, path := range []string{c.QMP, c.GuestAgent, c.Scratch} {
		if path != "" {
			paths = append(paths, path)
		}
	}
	if c.QMP == "" && c.Domain == "" {
		paths = append(paths, c.Disk...)
	}
	for _, path := range paths {
		if path != agent.AllDisks && !filepath.IsAbs(path) {
			return usageError{fmt.Errorf("%s: want an absolute path: a service has no current folder", path)}
		}
	}
	settings := service.Settings{Args: c.args(), State: c.State, Hooks: c.Hooks != ""}
	place, err := c.check("have whatever starts its services run, as root: " + commandLine(append([]string{"lifeboat", "agent"}, c.args()...)) +
		", with " + c.CACert + " at " + service.Authority + " and LIFEBOAT_TOKEN set at the first start")
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(c.CACert)
	if err != nil {
		return fmt.Errorf("read --ca-cert: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if err := place.Install(ctx, self, settings, ca, c.Token); err != nil {
		return err
	}
	if place.Root != "" {
		fmt.Fprintf(os.Stderr, "Installed below %s. It registers when it starts there.\n", c.Root)
		return nil
	}
	fmt.Fprintf(os.Stderr, "Installed and started: %s\n", service.Name)
	within, cancel := context.WithTimeout(ctx, registeredWithin)
	err = service.Await(within, func(h service.Health) (bool, error) { return h.Connected(), nil }, tellHealth)
	cancel()
	if errors.Is(err, service.ErrNotYet) {
		return fmt.Errorf("the agent has not reached its server; it goes on trying (systemctl status %s): %w", service.Name, err)
	}
	if err != nil || c.NoWait {
		return err
	}
	err = service.Await(ctx, func(h service.Health) (bool, error) { return h.State() == "CONTINUOUS", nil }, tellHealth)
	if errors.Is(err, service.ErrNotYet) {
		return fmt.Errorf("no longer watched; the agent goes on (systemctl status %s): %w", service.Name, err)
	}
	return err
}

func tellHealth(h service.Health) {
	if h.Status != "" {
		fmt.Fprintln(os.Stderr, h.Status)
	}
}

// args are the flags of the agent that the installation starts.
func (c *agentInstallCommand) args() []string {
	args := []string{"--server", c.Server, "--ca-cert", service.Authority, "--token-file", service.TokenFile, "--state", c.State}
	for _, d := range c.Disk {
		args = append(args, "--disk", d)
	}
	args = append(args, "--tracker", c.Tracker, "--audit-days", strconv.Itoa(c.AuditDays), "--disk-grace", c.DiskGrace.String(), "--freeze", c.Freeze.String(), "--log-level", c.LogLevel.String())
	for _, flag := range [][2]string{{"--qmp", c.QMP}, {"--domain", c.Domain}, {"--libvirt", c.Libvirt}, {"--guest-agent", c.GuestAgent}, {"--scratch", c.Scratch}, {"--hooks", c.Hooks}, {"--hostname", c.Hostname}, {"--memory", c.Memory}, {"--boot-mode", c.BootMode}, {"--metrics", c.Metrics}} {
		if flag[1] != "" {
			args = append(args, flag[0], flag[1])
		}
	}
	if c.DropMissing {
		args = append(args, "--drop-missing")
	}
	if c.Epoch > 0 {
		args = append(args, "--epoch", c.Epoch.String())
	}
	if c.CPUs > 0 {
		args = append(args, "--cpus", strconv.Itoa(c.CPUs))
	}
	return args
}

func commandLine(words []string) string {
	line := ""
	for _, w := range words {
		line += quote(w) + " "
	}
	return line[:len(line)-1]
}

type agentUpgradeCommand struct{ placeFlags }

// upgradePatience is how long an upgraded agent is watched.
const upgradePatience = time.Minute

// Run puts this program in place of the installed one.
func (c *agentUpgradeCommand) Run(ctx context.Context) error {
	place, err := c.check("stop the agent, put this program in the place of the one that runs there, and start it again")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if c.Root == "" && self == service.Program {
		return usageError{errors.New("this is the installed program: run `agent upgrade` with the new one")}
	}
	return place.Upgrade(ctx, self, upgradePatience, tellHealth)
}

type agentUninstallCommand struct {
	placeFlags
	Purge bool `help:"Remove the agent's state, too: installed again, the machine must register with a fresh install token."`
}

// Run removes the service.
func (c *agentUninstallCommand) Run(ctx context.Context) error {
	place, err := c.check("stop the agent, and remove what starts it; its --state directory makes it the source server that it is")
	if err != nil {
		return err
	}
	s, err := place.Installed()
	if err != nil {
		return err
	}
	if err := place.Uninstall(ctx, c.Purge); err != nil {
		return err
	}
	if place.Root == "" {
		if err := agent.RemovePins(pins, s.State); err != nil {
			return err
		}
	}
	if !c.Purge {
		fmt.Fprintf(os.Stderr, "Removed. Its state stays in %s: installed again, this machine goes on as the source server that it is.\n", s.State)
	}
	return nil
}
