package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/durable"
	"lifeboat/internal/recovery/machine"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/branchlog"
)

// lostError: what the machine of an instance wrote is not on this host any more.
type lostError struct {
	instance drs.RecoveryInstance
	disk     vault.VolumeID
	dir      string
	cause    error
}

func (e *lostError) Error() string {
	next := fmt.Sprintf("make them again from what was shipped to the vault until seconds before: lifeboat start %s --from-vault", e.instance.ID)
	if e.instance.Drill {
		next = "launch the server again, as drills are not shipped to the vault"
	}
	return fmt.Sprintf("disk %d of %s has lost what the machine wrote since it was launched: put %s back; or %s (%v)", e.disk, e.instance.ID, e.dir, next, e.cause)
}

func (e *lostError) Unwrap() error { return e.cause }

// isLost tells whether a log is gone or damaged, and not just out of reach.
func isLost(err error) bool {
	var damage *branchlog.CorruptError
	return errors.Is(err, fs.ErrNotExist) || errors.As(err, &damage)
}

// StartFromVault starts the machine of a recovery whose disks this host has lost, all of
// them or one: they are made again as they were at one moment, that of the last shipment
// to the vault. What is left of the old ones is kept beside. A machine whose disks are
// whole is started on these.
func (s *Service) StartFromVault(ctx context.Context, account drs.Account, id drs.RecoveryInstanceID) (drs.RecoveryInstance, error) {
	instance, err := s.startable(ctx, account, id)
	if err != nil {
		return drs.RecoveryInstance{}, err
	}
	if err := s.remakeDisks(ctx, instance); err != nil {
		return drs.RecoveryInstance{}, err
	}
	return s.StartInstance(ctx, account, id)
}

func (s *Service) remakeDisks(ctx context.Context, instance drs.RecoveryInstance) error {
	release, err := s.holds.hold(ctx, instance.ID)
	if err != nil {
		return err
	}
	defer release()
	var lost *lostError // and not the vault's own trouble
	if _, err := s.exports.open(ctx, instance); err == nil || !errors.As(err, &lost) {
		return err
	}
	refuse := func(format string, a ...any) error {
		return drs.Conflict(drs.TypeRecoveryInstance, string(instance.ID), format, a...)
	}
	if status, err := s.Machines.State(ctx, instance.ID); err != nil {
		return err
	} else if status.State == machine.Running || status.State == machine.Paused {
		return refuse("The machine of %s still runs, on disks that are lost. Stop it first: lifeboat stop %s.", instance.ID, instance.ID)
	}
	if instance.Drill {
		return refuse("%s is a drill, and what drills write is not shipped to the vault. Launch the server again.", instance.ID)
	}
	head, err := s.Vault.OpenHead(ctx, instance.VaultServer, string(instance.ID))
	if errors.Is(err, vault.ErrAbsent) {
		return refuse("Nothing that %s wrote has reached the vault. Launch its server again, from the newest recovery point or from %s.", instance.ID, instance.Point)
	}
	if err != nil {
		return err
	}
	err = s.remakeFrom(ctx, instance, head)
	if err = errors.Join(err, head.Close()); err != nil {
		return fmt.Errorf("make the disks of %s again: %w", instance.ID, err)
	}
	s.Log.Warn("the disks of an instance were made again from the vault; what its machine wrote after the last shipment is lost", "instance", instance.ID)
	return nil
}

// remakeFrom makes logs beside their places, then puts them there. Cut short, some are
// still missing, and all are made again.
func (s *Service) remakeFrom(ctx context.Context, instance drs.RecoveryInstance, head *vault.Image) (err error) {
	key, err := s.LogKey(instance.ID)
	if err != nil {
		return err
	}
	point, err := s.Vault.OpenPoint(ctx, instance.VaultServer, instance.Point)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, point.Close()) }()
	if err := s.exports.makeDir(instance.ID); err != nil {
		return err
	}
	note := shippedNote{Disks: map[vault.VolumeID]shippedDisk{}}
	for _, volume := range point.Volumes() {
		if note.Disks[volume.ID], err = remakeDisk(ctx, s.diskDir(instance.ID, volume.ID)+".new", key, volume, point, head); err != nil {
			return err
		}
	}
	aside := ".before-" + time.Now().UTC().Format("20060102T150405.000000Z")
	for _, volume := range point.Volumes() {
		dir := s.diskDir(instance.ID, volume.ID)
		if err := os.Rename(dir, dir+aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// None is in its place before all old ones are out of theirs: a mixture would be of two moments.
	if err := (durable.Files{}).SyncDir("instance directory", s.dir(instance.ID)); err != nil {
		return err
	}
	for _, volume := range point.Volumes() {
		dir := s.diskDir(instance.ID, volume.ID)
		if err := os.Rename(dir+".new", dir); err != nil {
			return err
		}
	}
	if err := (durable.Files{}).SyncDir("instance directory", s.dir(instance.ID)); err != nil {
		return err
	}
	return writeShippedNote(filepath.Join(s.dir(instance.ID), shippedName), note)
}

// copyPiece is how much is read at a time of what was shipped, in bytes.
const copyPiece = 1 << 20

// remakeDisk makes a log of what the branch has of a disk beyond the point.
func remakeDisk(ctx context.Context, dir string, key []byte, volume vault.Volume, point, head *vault.Image) (note shippedDisk, err error) {
	if err := os.RemoveAll(dir); err != nil { // of a try that was cut short
		return note, err
	}
	base, err := point.Volume(volume.ID)
	if err != nil {
		return note, err
	}
	var own []vault.Span
	shipped, err := head.Volume(volume.ID)
	if err == nil {
		own = shipped.Own()
	} else if !errors.Is(err, vault.ErrAbsent) { // nothing of it was shipped
		return note, err
	}
	if err := branchlog.Create(dir, volume.Size, key); err != nil {
		return note, err
	}
	log, err := branchlog.Open(dir, key, below{base})
	if err != nil {
		return note, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	buffer := make([]byte, copyPiece)
	for _, span := range own {
		if span.Hole {
			if err := log.Zero(ctx, span.Offset, span.Length, true); err != nil {
				return note, err
			}
			continue
		}
		for span.Length > 0 {
			if ctx.Err() != nil {
				return note, context.Cause(ctx)
			}
			p := buffer[:min(span.Length, copyPiece)]
			if _, err := shipped.ReadAt(p, span.Offset); err != nil {
				return note, err
			}
			if _, err := log.WriteAt(p, span.Offset); err != nil {
				return note, err
			}
			span.Offset, span.Length = span.Offset+int64(len(p)), span.Length-int64(len(p))
		}
	}
	if err := log.Flush(ctx); err != nil {
		return note, err
	}
	return shippedDisk{logID(log), log.Sequence()}, nil
}
