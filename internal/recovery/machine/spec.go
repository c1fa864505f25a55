package machine

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"lifeboat/internal/drs"
)

// Limits of a Spec.
const (
	MaxCPUs   = 255
	MaxDisks  = 60
	MaxNICs   = 15
	MinMemory = 16 << 20
)

const (
	bridgePrefix  = "bridge="
	segmentPrefix = "segment="
	maxSegment    = 64
	maxInterface  = 15 // a Linux interface name, without its final zero
	maxSerial     = 20 // what virtio, SATA and NVMe all can carry
	maxExportName = 4096
)

// ErrSpec marks a Spec that no driver can run; the text says which part and why.
var ErrSpec = errors.New("machine specification refused")

// Check returns an error that wraps ErrSpec when the machine cannot be made as
// asked. It looks at the values only, not at the host.
func (s Spec) Check() error {
	if _, err := drs.ParseRecoveryInstanceID(string(s.ID)); err != nil {
		return specError("%v", err)
	}
	if strings.ContainsFunc(s.Name, unprintable) || len(s.Name) > 255 {
		return specError("name %q: want up to 255 printable characters", s.Name)
	}
	if s.CPUs < 1 || s.CPUs > MaxCPUs {
		return specError("%d CPUs: want 1 to %d", s.CPUs, MaxCPUs)
	}
	if s.Memory < MinMemory || s.Memory%(1<<20) != 0 {
		return specError("%d bytes of memory: want whole MiB, at least %d", s.Memory, MinMemory>>20)
	}
	if s.Firmware != drs.BootBIOS && s.Firmware != drs.BootUEFI {
		return specError("firmware %q: want %s or %s; set the server's boot mode", s.Firmware, drs.BootBIOS, drs.BootUEFI)
	}
	if len(s.Disks) < 1 || len(s.Disks) > MaxDisks {
		return specError("%d disks: want 1 to %d", len(s.Disks), MaxDisks)
	}
	for i, d := range s.Disks {
		if err := d.check(); err != nil {
			return specError("disk %d: %v", i, err)
		}
	}
	if len(s.NICs) > MaxNICs {
		return specError("%d network interfaces: want at most %d", len(s.NICs), MaxNICs)
	}
	for i, n := range s.NICs {
		if err := n.check(); err != nil {
			return specError("network interface %d: %v", i, err)
		}
	}
	return nil
}

// UEFI tells whether the machine needs UEFI firmware.
func (s Spec) UEFI() bool { return s.Firmware == drs.BootUEFI }

func (d Disk) check() error {
	if !filepath.IsAbs(d.Socket) || strings.ContainsRune(d.Socket, 0) {
		return fmt.Errorf("socket %q: want an absolute path", d.Socket)
	}
	if len(d.Export) > maxExportName || strings.ContainsRune(d.Export, 0) {
		return fmt.Errorf("export name of %d bytes: want up to %d and no zero byte", len(d.Export), maxExportName)
	}
	switch d.Bus {
	case "", drs.BusVirtio, drs.BusNVMe, drs.BusSATA, drs.BusSCSI:
	default:
		return fmt.Errorf("bus %q: want %s, %s, %s or %s", d.Bus, drs.BusVirtio, drs.BusNVMe, drs.BusSATA, drs.BusSCSI)
	}
	if len(d.Serial) > maxSerial || strings.ContainsFunc(d.Serial, unprintable) {
		return fmt.Errorf("serial %q: want up to %d printable characters", d.Serial, maxSerial)
	}
	if d.ReadOnly && d.Bus == drs.BusSATA {
		return fmt.Errorf("bus %s has no read-only disks: choose %s", d.Bus, drs.BusVirtio)
	}
	return nil
}

func (n NIC) check() error {
	if n.MAC != "" {
		mac, err := net.ParseMAC(n.MAC)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return fmt.Errorf("MAC %q: want six bytes of a single machine, like 52:54:00:12:34:56", n.MAC)
		}
	}
	if n.Address != "" {
		if ip, err := netip.ParseAddr(n.Address); err != nil || !ip.Is4() {
			return fmt.Errorf("address %q: want an IPv4 address", n.Address)
		}
	}
	_, err := ParseNetwork(string(n.Network))
	return err
}

// ParseNetwork reads a network's name as users write it.
func ParseNetwork(s string) (Network, error) {
	n := Network(s)
	if n == Isolated || n == UserNAT {
		return n, nil
	}
	if name, ok := n.BridgeName(); ok {
		if name == "" || len(name) > maxInterface || name == "." || name == ".." ||
			strings.ContainsFunc(name, func(r rune) bool { return unprintable(r) || r == ' ' || r == '/' || r == ':' }) {
			return "", fmt.Errorf("network %q: %q is not an interface name", s, name)
		}
		return n, nil
	}
	if name, ok := n.SegmentName(); ok {
		if name == "" || len(name) > maxSegment || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return "", fmt.Errorf("network %q: a segment's name has up to %d lower-case letters, digits and hyphens", s, maxSegment)
		}
		return n, nil
	}
	return "", fmt.Errorf("network %q: want %s, %s, %sNAME or %sNAME", s, Isolated, UserNAT, segmentPrefix, bridgePrefix)
}

// SegmentName returns the name of the segment, and whether n is one.
func (n Network) SegmentName() (string, bool) { return strings.CutPrefix(string(n), segmentPrefix) }

// Leads tells whether the network leads anywhere but to other machines of ours.
func (n Network) Leads() bool {
	_, segment := n.SegmentName()
	return n != Isolated && !segment
}

// BridgeName returns the host's bridge interface, and whether n is one.
func (n Network) BridgeName() (string, bool) { return strings.CutPrefix(string(n), bridgePrefix) }

// UUID returns the machine's identity as its firmware shows it: stable for the
// instance, different for every other.
func UUID(id drs.RecoveryInstanceID) string { return derivedUUID("machine", id) }

// GenerationID identifies the branch of history the machine lives in. Guests
// that know it (Windows domain controllers) learn that they are a copy.
func GenerationID(id drs.RecoveryInstanceID) string { return derivedUUID("generation", id) }

// derivedUUID makes an RFC 9562 version 8 UUID of a hash.
func derivedUUID(what string, id drs.RecoveryInstanceID) string {
	h := sha256.Sum256([]byte("lifeboat " + what + " " + string(id)))
	u := h[:16]
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

// DerivedMAC is the address of interface n of an instance that was given none:
// locally administered, stable for the instance.
func DerivedMAC(id drs.RecoveryInstanceID, n int) string {
	h := sha256.Sum256(fmt.Appendf(nil, "lifeboat mac %s %d", id, n))
	mac := net.HardwareAddr{0x52, 0x54, 0x00, h[0], h[1], h[2]}
	return mac.String()
}

func unprintable(r rune) bool { return r < ' ' || r > '~' }

func specError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSpec, fmt.Sprintf(format, args...))
}
