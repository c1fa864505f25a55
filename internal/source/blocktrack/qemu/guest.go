package qemu

import (
	"fmt"
	"time"

	"lifeboat/internal/qmp/libvirt"
)

// guest is a connection to the agent of QEMU's own that may run in the guest.
type guest struct{ line agentLine }

// agentLine takes commands for the guest's agent.
type agentLine interface {
	// sync makes sure that an answer is to the command that follows.
	sync(within time.Duration) error
	// run carries out a command without arguments. After an error the next one needs sync.
	run(command string, within time.Duration, result any) error
	close()
}

func (g *guest) close() { g.line.close() }

// freeze holds the guest's filesystems still and returns how many they are.
func (g *guest) freeze(within time.Duration) (n int, err error) {
	err = g.line.run("guest-fsfreeze-freeze", within, &n)
	return n, err
}

// thaw lets them go on, also those that are only being frozen.
func (g *guest) thaw(within time.Duration) error {
	if err := g.line.sync(within); err != nil {
		return fmt.Errorf("thaw: %w", err)
	}
	return g.line.run("guest-fsfreeze-thaw", within, nil)
}

// frozen tells whether somebody has frozen them.
func (g *guest) frozen(within time.Duration) (bool, error) {
	var status string
	err := g.line.run("guest-fsfreeze-status", within, &status)
	return status == "frozen", err
}

// throughLibvirt is the line to a guest's agent that libvirt holds.
type throughLibvirt struct{ conn *libvirt.Conn }

// sync only asks whether somebody answers: libvirt tells answers apart.
func (l throughLibvirt) sync(within time.Duration) error {
	return l.conn.Guest("guest-ping", within, nil)
}

func (l throughLibvirt) run(command string, within time.Duration, result any) error {
	return l.conn.Guest(command, within, result)
}

func (l throughLibvirt) close() { _ = l.conn.Close() } // nothing is on its way
