package drs

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// Consistency says what a recovery point promises about its disks.
type Consistency string

const (
	// Fuzzy points mix moments: blocks were read while others changed. They are
	// not bootable by promise and never offered unless asked for by name.
	Fuzzy Consistency = "fuzzy"
	// CrashConsistent points equal all disks at one instant, as after a power cut.
	CrashConsistent Consistency = "crash"
	// FilesystemConsistent points were cut with all filesystems frozen.
	FilesystemConsistent Consistency = "filesystem"
	// ApplicationConsistent points were cut with applications quiesced too.
	ApplicationConsistent Consistency = "application"
)

// CutMethod says how the agent made sure of a point's consistency.
type CutMethod string

const (
	// QuietPass: nothing changed between two complete reads of the disks, or nothing
	// was written while all that had changed was read.
	QuietPass CutMethod = "quiet-pass"
	// Frozen: all filesystems were held still while the rest was read, and nothing
	// was written.
	Frozen CutMethod = "frozen"
	// CopyBeforeWrite: what was overwritten while the disks were read had been set aside,
	// so that they were read as they were at one instant.
	CopyBeforeWrite CutMethod = "copy-before-write"
	// NoGuarantee: the disks changed while they were read.
	NoGuarantee CutMethod = "none"
)

// RecoveryPoint is a recovery snapshot of the DRS API: one moment of all
// replicated disks of one source server, kept in the vault.
type RecoveryPoint struct {
	ID           RecoverySnapshotID
	SourceServer SourceServerID
	// Expected is the moment the cut was asked for or begun, Taken the moment
	// the disks are equal to.
	Expected    time.Time
	Taken       time.Time
	Consistency Consistency
	Method      CutMethod
	// Freeze is for how long the filesystems were held still; 0: they were not, or
	// it is not known.
	Freeze time.Duration
	// Epoch numbers the commits of the server's main branch, from 1.
	Epoch uint64
}

// Bootable tells whether the point may be chosen without the user naming it.
func (p RecoveryPoint) Bootable() bool { return p.Consistency != Fuzzy }

// VolumeSnapshotID names the image of one disk in a point. The vault keeps the
// images of a point together, so the name is derived from it.
func VolumeSnapshotID(point RecoverySnapshotID, device string) string {
	sum := sha256.Sum256([]byte(string(point) + "\x00" + device))
	return "snap-" + hex.EncodeToString(sum[:])[:idDigits]
}
