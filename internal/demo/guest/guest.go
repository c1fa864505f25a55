// Package guest makes small, real Linux machines for demonstrations and
// end-to-end tests: a disk image that boots by itself (BIOS or UEFI, GRUB,
// partition table, ext4), and a QEMU to run it in.
//
// The image is made of the running Debian's or Ubuntu's own kernel and busybox
// packages, without mounting anything and without root, in about a second once
// the packages are in the user's cache directory. A machine keeps a ledger of
// numbered orders, each one durable before its console says so, and checks the
// whole ledger at every boot: so its console is evidence of what survived.
package guest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Firmware says what starts the machine from its disk.
type Firmware string

const (
	BIOS Firmware = "bios" // MBR, GRUB in the gap before the first partition
	UEFI Firmware = "uefi" // GPT, GRUB on an EFI system partition
)

// Spec describes a machine. The zero value of each field has a meaning.
type Spec struct {
	// Hostname of the machine, letters, digits and dashes; empty means "guest".
	Hostname string
	// SizeMiB is the size of the disk; 0 means 128, and 96 is the least.
	SizeMiB int
	// Firmware the disk boots under; empty means BIOS.
	Firmware Firmware
	// Orders is the workload; nil means none.
	Orders *Orders
	// Agent protects the machine from within; nil means none.
	Agent *Agent
	// Files are written to the root filesystem by their absolute path, and
	// printed on the console at every boot between the lines
	// "FILE <path> sha256=<digest>" and "END <path>".
	Files map[string][]byte
}

// Orders is a workload that appends numbered orders to a ledger, each one
// fsynced before the console says "order <n> durable".
type Orders struct {
	// PerSecond is how many orders arrive at most, 1 to 50; 0 means 5. An
	// emulated machine may manage fewer.
	PerSecond int
	// Burst and Rest make customers come in groups: after Burst orders the shop
	// is quiet for Rest. Zero means a steady stream.
	Burst int
	Rest  time.Duration
}

// Agent is a Lifeboat agent that is started before the orders, with the machine's
// disk to replicate. Where it ends, the console says "AGENT ENDED" and why.
type Agent struct {
	Binary string   // path of lifeboat on this host; it is copied into the machine
	Server string   // URL of the API, as the machine sees it: the host is HostAddress
	CAFile string   // path on this host
	Token  string   // install token
	Args   []string // further arguments, none with spaces
}

// HostAddress is the host's loopback address as a machine with a network sees it.
const HostAddress = "10.0.2.2"

const (
	defaultSizeMiB = 128
	minSizeMiB     = 96
)

var hostname = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,62})$`)

func (s Spec) withDefaults() (Spec, error) {
	if s.Hostname == "" {
		s.Hostname = "guest"
	}
	if s.SizeMiB == 0 {
		s.SizeMiB = defaultSizeMiB
	}
	if s.Firmware == "" {
		s.Firmware = BIOS
	}
	switch {
	case !hostname.MatchString(s.Hostname):
		return s, fmt.Errorf("hostname %q: want letters, digits and dashes", s.Hostname)
	case s.SizeMiB < minSizeMiB:
		return s, fmt.Errorf("disk of %d MiB: want at least %d", s.SizeMiB, minSizeMiB)
	case s.Firmware != BIOS && s.Firmware != UEFI:
		return s, fmt.Errorf("firmware %q: want %s or %s", s.Firmware, BIOS, UEFI)
	}
	if s.Orders != nil {
		orders := *s.Orders
		if orders.PerSecond == 0 {
			orders.PerSecond = 5
		}
		if orders.PerSecond < 1 || orders.PerSecond > 50 || orders.Burst < 0 || orders.Rest < 0 {
			return s, fmt.Errorf("workload %+v: want 1 to 50 orders per second and no negative burst or rest", orders)
		}
		s.Orders = &orders
	}
	for path := range s.Files {
		if !strings.HasPrefix(path, "/") || filepath.Clean(path) != path || strings.ContainsAny(path, " \t\n") {
			return s, fmt.Errorf("file %q: want a clean absolute path without spaces", path)
		}
	}
	return s, nil
}

// Build writes the disk image of a machine to path, which must not exist. The
// file is sparse, and the same spec gives the same disk and filesystem IDs. On
// an error nothing is left at path.
func Build(ctx context.Context, spec Spec, path string) (err error) {
	spec, err = spec.withDefaults()
	if err != nil {
		return fmt.Errorf("build guest: %w", err)
	}
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("build guest: %s exists already", path)
	}
	kit, err := openKit(ctx)
	if err != nil {
		return fmt.Errorf("build guest: %w", err)
	}
	work, err := os.MkdirTemp(filepath.Dir(path), ".guest-*")
	if err != nil {
		return fmt.Errorf("build guest: %w", err)
	}
	defer os.RemoveAll(work)

	root := filepath.Join(work, "root")
	if err := writeRoot(root, spec, kit); err != nil {
		return fmt.Errorf("build guest: root filesystem: %w", err)
	}
	image := filepath.Join(work, "disk.img")
	if err := writeDisk(ctx, image, root, spec, identity(spec, kit)); err != nil {
		return fmt.Errorf("build guest: disk: %w", err)
	}
	if err := os.Rename(image, path); err != nil {
		return fmt.Errorf("build guest: %w", err)
	}
	return nil
}

// identity is the digest that disk and filesystem IDs are taken from.
func identity(spec Spec, kit kit) [sha256.Size]byte {
	description, err := json.Marshal(spec)
	if err != nil {
		panic(err) // a Spec holds nothing that JSON cannot
	}
	return sha256.Sum256(append(description, kit.Digest...))
}

func hexDigest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
