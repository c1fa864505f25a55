package inventory

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"lifeboat/internal/drs"
)

// Identity is what makes a machine that registers again the same source server.
//
// A machine that the agent runs on is its machine ID and the UUID of its
// firmware; where it has neither, its network cards and its name. A clone that
// kept both is the same server by design: give the clone its own machine ID.
// A name that the user gives belongs to it, too: so a machine can become a new
// source server on purpose.
//
// Image files are not the machine that the agent runs on, and one host may hold
// those of many machines. They are told apart by the name the user gives, the
// host, and the paths of the images. So two agents with different images on one
// host are two servers, and one that lost its state directory is still the
// same. An image that moves elsewhere is a new server, unless the state
// directory is kept and its disks are named as before.
//
// A machine that is protected from outside is the UUID that its hypervisor gives
// it, wherever it runs. One that has none is known by its images.
type Identity struct {
	Image     bool
	GuestUUID string // of a machine protected from outside
	Hostname  string // the source server's, after overrides
	Named     bool   // the user gave the Hostname
	MachineID string // of the host
	DMIUUID   string // of the host
	MACs      []string
	Disks     []string // absolute paths; part of the identity of images only
}

// Identify returns the identity that goes with properties collected under o.
func (c Collector) Identify(p drs.SourceProperties, disks []Disk, o Overrides) Identity {
	id := Identity{
		Image:     OnlyImages(disks),
		Hostname:  p.Hostname,
		Named:     o.Hostname != "",
		MachineID: c.machineID(),
		DMIUUID:   c.DMIUUID(),
	}
	for _, n := range p.NetworkInterfaces {
		id.MACs = append(id.MACs, n.MAC)
	}
	for _, d := range disks {
		id.Disks = append(id.Disks, d.Device)
	}
	return id
}

// Guest returns the identity of a machine that is protected from outside, with
// properties p under o: that of its UUID, or where that is empty of its images.
func (c Collector) Guest(p drs.SourceProperties, uuid string, images []string, o Overrides) Identity {
	id := Identity{Image: uuid == "", GuestUUID: uuid, Hostname: p.Hostname, Named: o.Hostname != "", MachineID: c.machineID(), Disks: images}
	if uuid != "" {
		id.Disks = nil
		for _, d := range p.Disks {
			id.Disks = append(id.Disks, d.Device)
		}
	}
	return id
}

// HardwareID is the identity as one string: its kind and a hash. Two machines
// are the same source server when their hardware IDs are equal.
func (id Identity) HardwareID() string {
	if id.GuestUUID != "" {
		parts := []string{strings.ToLower(id.GuestUUID)}
		if id.Named {
			parts = append(parts, id.Hostname)
		}
		return hashed("guest", parts)
	}
	if id.Image {
		disks := slices.Sorted(slices.Values(id.Disks))
		return hashed("image", append([]string{id.Hostname, id.MachineID}, disks...))
	}
	if id.MachineID != "" || id.DMIUUID != "" {
		parts := []string{id.MachineID, id.DMIUUID}
		if id.Named {
			parts = append(parts, id.Hostname)
		}
		return hashed("machine", parts)
	}
	macs := slices.Sorted(slices.Values(id.MACs))
	return hashed("cards", append([]string{id.Hostname}, macs...))
}

// hashed keeps the parts apart by their lengths.
func hashed(kind string, parts []string) string {
	var b strings.Builder
	for _, p := range parts {
		fmt.Fprintf(&b, "%d:%s,", len(p), p)
	}
	sum := sha256.Sum256([]byte(b.String()))
	return kind + ":" + hex.EncodeToString(sum[:16])
}
