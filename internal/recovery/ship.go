package recovery

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/durable"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/branchlog"
)

// A recovery goes on being protected: what its machine writes is shipped to the
// vault in the background, as epochs of the instance's branch. Each epoch is a
// moment of all disks together, everything in it was durable in the log before,
// and it is committed whole or not at all; so the branch in the vault is always
// what a power cut could have left, a few seconds old.

const (
	// shipRetry and shipRetryMost are the pauses after failures.
	shipRetry     = time.Second
	shipRetryMost = time.Minute

	shippedName = "shipped.json"
)

// shipper ships one instance's disks. Its fields are for its goroutine.
type shipper struct {
	vault  *vault.Vault
	server drs.SourceServerID
	point  drs.RecoverySnapshotID // the branch begins at
	branch string
	disks  []exportedDisk
	note   string // path of what was shipped
	log    *slog.Logger

	shipped []uint64      // up to which sequence, for each disk
	writer  *vault.Writer // nil until needed, and after a failure
}

// shippedNote is kept beside the logs. It may be older than what the vault has,
// or be lost: changes that are shipped again change nothing.
type shippedNote struct {
	Disks map[vault.VolumeID]shippedDisk `json:"disks"`
}

type shippedDisk struct {
	Log      string `json:"log"` // its ID, so that no other log's numbers are taken for its own
	Sequence uint64 `json:"sequence"`
}

// startShipping ships the instance's writes until stop is called, which waits.
func (s *Service) startShipping(instance drs.RecoveryInstance, disks []exportedDisk) (stop func(), err error) {
	sh := &shipper{
		vault: s.Vault, server: instance.VaultServer, point: instance.Point, branch: string(instance.ID), disks: disks,
		note: filepath.Join(s.dir(instance.ID), shippedName),
		log:  s.Log.With("instance", instance.ID),
	}
	if err := sh.readNote(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		sh.run(ctx, s.ShipEvery)
	}()
	return func() {
		cancel()
		<-done
	}, nil
}

// run ships whatever is new, every so often, until ctx ends.
func (sh *shipper) run(ctx context.Context, every time.Duration) {
	defer sh.closeWriter()
	wait, retry, failed := every, shipRetry, false
	for {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		err := sh.ship(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			if failed {
				sh.log.Info("what the machine writes is shipped to the vault again")
			}
			wait, retry, failed = every, shipRetry, false
		default:
			if !failed {
				sh.log.Error("what the machine writes is not shipped to the vault for now, and lies on this host alone", "err", err)
			}
			wait, retry, failed = retry, min(2*retry, shipRetryMost), true
		}
	}
}

// changed tells whether there is anything to ship.
func (sh *shipper) changed() bool {
	for i, d := range sh.disks {
		if d.log.Sequence() != sh.shipped[i] {
			return true
		}
	}
	return false
}

// ship commits everything up to this moment as one epoch of the branch.
func (sh *shipper) ship(ctx context.Context) error {
	if !sh.changed() {
		return nil
	}
	logs := make([]*branchlog.Log, len(sh.disks))
	volumes := make([]vault.Volume, len(sh.disks))
	for i, d := range sh.disks {
		logs[i], volumes[i] = d.log, d.volume
	}
	if err := sh.openWriter(ctx); err != nil {
		return err
	}
	moment, err := branchlog.Cut(logs...)
	if err != nil {
		return err
	}
	defer moment.Close()
	epoch, err := sh.writer.Begin(ctx, volumes)
	if err != nil {
		sh.closeWriter()
		return err
	}
	defer epoch.Abort() // of no effect once it is committed
	for i, v := range volumes {
		if sh.shipped[i] > moment.Sequence(i) {
			return fmt.Errorf("the log of disk %d is older (%d) than what was shipped of it (%d): it was replaced by a copy; launch the server again to protect it", v.ID, moment.Sequence(i), sh.shipped[i])
		}
		if err := appendRecords(epoch, v.ID, moment.Records(ctx, i, sh.shipped[i])); err != nil {
			return fmt.Errorf("ship disk %d: %w", v.ID, err)
		}
	}
	head, err := epoch.Commit(ctx, nil)
	if err != nil {
		sh.closeWriter() // it is finished; the next one finds out what the vault has
		return err
	}
	for i := range sh.disks {
		sh.shipped[i] = moment.Sequence(i)
	}
	sh.log.Debug("shipped what the machine wrote", "epoch", head.Number)
	return sh.writeNote()
}

// openWriter opens the branch, and makes it first if it could not be made when the
// instance was launched.
func (sh *shipper) openWriter(ctx context.Context) (err error) {
	if sh.writer != nil {
		return nil
	}
	sh.writer, err = sh.vault.Writer(ctx, sh.server, sh.branch)
	if !errors.Is(err, vault.ErrAbsent) {
		return err
	}
	if err := sh.vault.Fork(ctx, sh.server, sh.point, sh.branch); err != nil && !errors.Is(err, vault.ErrExists) {
		return err
	}
	clear(sh.shipped) // of what went to another branch, this one has nothing
	sh.writer, err = sh.vault.Writer(ctx, sh.server, sh.branch)
	return err
}

func (sh *shipper) closeWriter() {
	if sh.writer == nil {
		return
	}
	if err := sh.writer.Close(); err != nil {
		sh.log.Warn("writer of a branch did not close cleanly", "err", err)
	}
	sh.writer = nil
}

func (sh *shipper) readNote() error {
	sh.shipped = make([]uint64, len(sh.disks))
	text, err := os.ReadFile(sh.note)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read what was shipped: %w", err)
	}
	var note shippedNote
	if err := json.Unmarshal(text, &note); err != nil {
		sh.log.Warn("note of what was shipped is damaged; all is shipped again", "err", err)
		return nil
	}
	for i, d := range sh.disks {
		if known := note.Disks[d.volume.ID]; known.Log == logID(d.log) {
			sh.shipped[i] = known.Sequence
		}
	}
	return nil
}

func (sh *shipper) writeNote() error {
	note := shippedNote{Disks: map[vault.VolumeID]shippedDisk{}}
	for i, d := range sh.disks {
		note.Disks[d.volume.ID] = shippedDisk{logID(d.log), sh.shipped[i]}
	}
	return writeShippedNote(sh.note, note)
}

func writeShippedNote(path string, note shippedNote) error {
	text, err := json.Marshal(note)
	if err != nil {
		return err
	}
	return durable.Files{}.WriteFile("note what was shipped", path, text, 0o600)
}

func logID(l *branchlog.Log) string {
	id := l.ID()
	return hex.EncodeToString(id[:])
}
