// Package machine says what a recovery instance is as a running machine, and
// what every place that can run one promises. It holds the words and the
// contract only; package qemu is the implementation that is always there.
//
// A machine owns no data. Its disks are network block devices served by
// somebody else, so that a machine may die at any moment, be started again and
// find everything it has flushed.
package machine

import (
	"context"
	"time"

	"lifeboat/internal/drs"
)

// Driver is a place where machines run.
//
// All methods are safe for concurrent use; calls for one instance are carried
// out one after another. Every method may be repeated after a crash of this
// process at any point: the machines outlive the process that started them.
type Driver interface {
	// Start brings the machine to its first instruction. A machine of that ID
	// that already runs is adopted as it is, whatever spec says; one that was
	// stopped starts again with spec.
	Start(ctx context.Context, spec Spec) (Started, error)
	// State tells how the machine stands now. A machine never started, or
	// destroyed, is Absent and no error.
	State(ctx context.Context, id drs.RecoveryInstanceID) (Status, error)
	// Stop asks the guest to power off, and after grace takes the power away.
	// Data that the guest wrote is flushed to its disks unless the machine had to
	// be killed. Stopping a machine that does not run does nothing.
	Stop(ctx context.Context, id drs.RecoveryInstanceID, grace time.Duration) error
	// Destroy takes the power away at once and removes every process, socket and
	// file of the machine. Destroying an absent machine does nothing.
	Destroy(ctx context.Context, id drs.RecoveryInstanceID) error
	// ConsolePath names the file that holds the serial console's output. It
	// exists once the machine was started, and grows over restarts.
	ConsolePath(id drs.RecoveryInstanceID) string
}

// Spec is all a driver must know to run a machine.
type Spec struct {
	ID drs.RecoveryInstanceID `json:"id"`
	// Name is for people who look at the host's process list. Optional.
	Name string `json:"name,omitempty"`
	// CPUs is the number of virtual processors, 1 to MaxCPUs.
	CPUs int `json:"cpus"`
	// Memory in bytes, a multiple of 1 MiB, at least MinMemory.
	Memory int64 `json:"memory"`
	// Firmware is drs.BootBIOS or drs.BootUEFI.
	Firmware drs.BootMode `json:"firmware"`
	// Disks in the order the source had them; the first is booted from.
	Disks []Disk `json:"disks"`
	NICs  []NIC  `json:"nics,omitempty"`
}

// Disk is a network block device reached over a unix socket. The machine waits
// through a restart of its server, see ReconnectDelay.
type Disk struct {
	Socket string      `json:"socket"` // path of the unix socket, of any length
	Export string      `json:"export"` // export name
	Bus    drs.DiskBus `json:"bus,omitempty"`
	// Serial is what the guest sees as the disk's serial number, up to 20
	// printable characters. Empty means the driver's choice, unique in the machine.
	Serial   string `json:"serial,omitempty"`
	ReadOnly bool   `json:"readOnly,omitempty"`
}

// ReconnectDelay is how long a guest's requests wait for a disk server that went
// away before the guest sees an I/O error.
const ReconnectDelay = time.Hour

// NIC is a virtio network interface.
type NIC struct {
	// MAC like 52:54:00:12:34:56. Empty means one derived from the instance ID.
	MAC     string  `json:"mac,omitempty"`
	Network Network `json:"network"`
	// Address is the IPv4 address that a network of our own (Isolated, UserNAT) gives
	// the guest that asks by DHCP; elsewhere it is not ours to give. Empty: any.
	Address string `json:"address,omitempty"`
}

// Network is what an interface is plugged into: Isolated, UserNAT, Segment(name)
// or Bridge(name).
type Network string

const (
	// Isolated networks answer DHCP and lead nowhere: a drill's machine can reach
	// neither the host nor anybody else.
	Isolated Network = "isolated"
	// UserNAT lets the machine call out through the host; nobody can call in.
	UserNAT Network = "user"
)

// Bridge is the network behind a bridge interface of the host.
func Bridge(name string) Network { return Network(bridgePrefix + name) }

// Segment is a network of its own for the machines of this host that are plugged
// into the same one: they reach each other and nobody else, and nothing in it
// answers DHCP. name is of lower-case letters, digits and hyphens.
func Segment(name string) Network { return Network(segmentPrefix + name) }

// State is how a machine stands.
type State string

const (
	Absent  State = "absent"  // never started, or destroyed
	Running State = "running" // the guest executes
	// Paused machines exist but do not execute: not yet begun, or halted until
	// their disk accepts writes again. Status.Reason tells.
	Paused State = "paused"
	// Stopped machines were powered off, by the guest or by Stop.
	Stopped State = "stopped"
	// Failed machines ended without a power-off: killed, or the host went down.
	// Nothing that the guest flushed is lost; Start brings them back.
	Failed State = "failed"
)

// Status is a machine's state with a sentence for people.
type Status struct {
	ID     drs.RecoveryInstanceID
	State  State
	Reason string
}

// Change is a state that a machine entered by itself or on request.
type Change struct {
	Status
	At time.Time
}

// Started describes a machine that has executed its first instruction.
type Started struct {
	// FirstInstruction is when the processors were let go. Zero when the machine
	// was adopted and the moment was not recorded.
	FirstInstruction time.Time
	// Adopted tells that the machine was already there.
	Adopted bool
	// Accelerator is what executes the guest: kvm, or tcg (emulation).
	Accelerator string
	// Notes are sentences for the job's log, such as why emulation is used.
	Notes []string
	// Steps is how long each part of the start took, in order.
	Steps []Step
}

// Step is a timed part of a start.
type Step struct {
	Name string
	Took time.Duration
}
