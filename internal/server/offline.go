package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/vault"
)

// VaultAccess says which vault to look into, without a server.
type VaultAccess struct {
	Data string // a data directory; or else
	// Vault is a location as a server takes it, and MasterKey a file.
	Vault, MasterKey string
	NoKey            bool // look at what needs no key only
	Log              *slog.Logger
}

// OpenVault is a vault that is looked into. It changes nothing, so that a server may
// run on it meanwhile.
type OpenVault struct {
	Store vaultStore
	Keys  vault.KeyWrapper // nil without a key
	Vault *vault.Vault     // nil without a key
	Dir   *DataDir         // nil without a data directory
	place string           // of a vault in a directory
}

// Open opens it.
func (a VaultAccess) Open(ctx context.Context) (o *OpenVault, err error) {
	o = &OpenVault{}
	d := &DataDir{}
	switch {
	case a.Data != "" && a.Vault != "":
		return nil, errors.New("--data and --vault both say where the vault is: give one of them")
	case a.Data != "":
		if o.Dir, err = ReadDataDir(a.Data); err != nil {
			return nil, err
		}
		d = o.Dir
		if d.Path, err = filepath.Abs(d.Path); err != nil {
			return nil, err
		}
	case a.Vault == "":
		return nil, errors.New("name the server's data directory with --data, or a vault with --vault")
	default:
		config := Config{Data: ".", Vault: a.Vault}
		if err := config.Check(); err != nil {
			return nil, err
		}
		if d.Settings, err = config.first(); err != nil {
			return nil, err
		}
	}
	if a.MasterKey != "" {
		if d.keys, err = vault.LoadKeyFile(a.MasterKey); err != nil {
			return nil, err
		}
	}
	if d.keys == nil && !a.NoKey {
		return nil, errors.New("name the master key's file with --master-key, or do without it with --no-key")
	}
	if o.Store, err = d.readStore(ctx); err != nil {
		return nil, err
	}
	if !d.vaultInBucket() {
		o.place = d.vaultPath()
	}
	if a.NoKey {
		return o, nil
	}
	o.Keys = d.keys
	if o.Vault, err = vault.Open(ctx, o.Store, o.Keys, vault.Options{ReadOnly: true, Logger: a.Log}); err != nil {
		return nil, errors.Join(d.explainKey(ctx, o.Store, err), o.Store.Close())
	}
	return o, nil
}

// PointOf looks up in the database which point an epoch became; "" when it does not
// tell, or when there is no database to ask. See vault.VerifyOptions.
func (o *OpenVault) PointOf(ctx context.Context, id drs.SourceServerID, epoch uint64) (_ drs.RecoverySnapshotID, err error) {
	if o.Dir == nil {
		return "", nil
	}
	d, err := db.OpenReader(o.Dir.databasePath())
	if err != nil {
		return "", nil // a vault without its database is verified, too
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	point, err := d.PointOfEpoch(ctx, id, epoch)
	if err != nil && ctx.Err() == nil {
		return "", nil // it knows of none, or cannot be read
	}
	return point, err
}

// Close ends it.
func (o *OpenVault) Close() error {
	if o.Vault != nil {
		return errors.Join(o.Vault.Close(), o.Store.Close())
	}
	return o.Store.Close()
}

// HalfMade tells whether err, which the vault gave about a server, only means that the
// server is being made right now, or that its making or deletion was cut short:
// nothing is kept of it, and nothing is lost.
func (o *OpenVault) HalfMade(ctx context.Context, id drs.SourceServerID, err error) bool {
	if !errors.Is(err, vault.ErrAbsent) {
		return false
	}
	segments, err := o.Store.List(ctx, "servers/"+string(id)+"/segments/")
	return err == nil && len(segments) == 0
}

// Troubles says in plain words what keeps a server from storing more in the vault,
// as far as it can be seen from here: the bucket's are known to the server, at /readyz.
func (o *OpenVault) Troubles() []string {
	if o.place == "" {
		return []string{}
	}
	if text := scarceSpace(o.place); text != "" {
		return []string{text}
	}
	return []string{}
}

// Known is a server of a vault with what its record tells. One without a record
// has its ID for a hostname.
type Known struct {
	ID       drs.SourceServerID
	Hostname string
	Record   *drs.SourceServer // nil: there is none that can be read
}

// Servers returns the servers of the vault, sorted by hostname.
func (o *OpenVault) Servers(ctx context.Context) ([]Known, error) {
	ids, err := o.Vault.Servers(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Known, 0, len(ids))
	for _, id := range ids {
		k := Known{ID: id, Hostname: string(id)}
		record, err := readRecord(ctx, o.Vault, id)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil {
			if server, err := record.Server(); err == nil {
				k.Record, k.Hostname = &server, server.Properties.Hostname
			}
		}
		out = append(out, k)
	}
	slices.SortStableFunc(out, func(a, b Known) int { return strings.Compare(a.Hostname, b.Hostname) })
	return out, nil
}

// NotFoundError refuses a name that means nothing, or several things.
type NotFoundError struct{ Message string }

func (e *NotFoundError) Error() string { return e.Message }

// Refused tells that the request itself was turned down.
func (e *NotFoundError) Refused() bool { return true }

// Server returns the one server that a hostname, an ID or the first part of one means.
func (o *OpenVault) Server(ctx context.Context, name string) (Known, error) {
	all, err := o.Servers(ctx)
	if err != nil {
		return Known{}, err
	}
	var found []Known
	for _, k := range all {
		switch {
		case string(k.ID) == name:
			return k, nil
		case k.Hostname == name || strings.HasPrefix(name, "s-") && strings.HasPrefix(string(k.ID), name):
			found = append(found, k)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Known{}, &NotFoundError{fmt.Sprintf("the vault knows no source server %q: `lifeboat vault ls` lists those it has", name)}
	}
	ids := make([]string, len(found))
	for i, k := range found {
		ids[i] = string(k.ID)
	}
	return Known{}, &NotFoundError{fmt.Sprintf("%q means several source servers: name one by its ID: %s", name, strings.Join(ids, ", "))}
}

// Point returns the one recovery point of a server that an ID, the first part of one, or
// "latest" means: the newest that promises to boot.
func (o *OpenVault) Point(ctx context.Context, server Known, name string) (drs.RecoveryPoint, error) {
	points, err := o.Vault.Points(ctx, server.ID)
	if err != nil && len(points) == 0 {
		return drs.RecoveryPoint{}, err
	}
	if name == "latest" {
		for _, p := range slices.Backward(points) {
			if p.Bootable() {
				return p, nil
			}
		}
		return drs.RecoveryPoint{}, &NotFoundError{fmt.Sprintf("%s has no consistent recovery point: `lifeboat vault ls %s` lists all it has", server.Hostname, server.Hostname)}
	}
	var found []drs.RecoveryPoint
	for _, p := range points {
		if string(p.ID) == name {
			return p, nil
		}
		if strings.HasPrefix(name, "pit-") && strings.HasPrefix(string(p.ID), name) {
			found = append(found, p)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return drs.RecoveryPoint{}, &NotFoundError{fmt.Sprintf("%q means %d recovery points of %s: give more of the ID", name, len(found), server.Hostname)}
	case err != nil: // it may be among those that are lost
		return drs.RecoveryPoint{}, err
	}
	return drs.RecoveryPoint{}, &NotFoundError{fmt.Sprintf("%s has no recovery point %s: `lifeboat vault ls %s` lists those it has", server.Hostname, name, server.Hostname)}
}

// PITPolicy returns the rules by which a server's points are kept.
func (k Known) PITPolicy() []drs.PITRule {
	if k.Record == nil {
		return drs.DefaultPITPolicy()
	}
	return k.Record.ReplicationConfiguration.PITPolicy
}

// Disks lists the server's disks as its record has them.
func (k Known) Disks() []drs.Disk {
	if k.Record == nil {
		return nil
	}
	return k.Record.Properties.Disks
}
