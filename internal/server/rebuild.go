package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/durable"
	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
)

// Rebuild says what to make anew.
type Rebuild struct {
	Data string // the data directory; required
	// MasterKey is a file. With it a new data directory is made over an existing
	// vault; without, only the database of an existing one.
	MasterKey string
	Vault, DB string // of a new data directory, as for a server
	Account   string // of a new data directory; empty: of the servers in the vault
	Region    string // likewise
	// Replace makes the database anew although it is whole.
	Replace bool
	Log     *slog.Logger // nil: nothing is logged
}

// Rebuilt says what came back.
type Rebuilt struct {
	Data       string          `json:"data"`
	NewDataDir bool            `json:"newDataDir"`
	SetAside   string          `json:"setAside,omitempty"` // where the database before lies
	Before     *vault.Owner    `json:"before,omitempty"`   // whose vault it was, when another's
	Servers    []RebuiltServer `json:"servers"`
	// Configuration counts what came back of each table; ConfigurationProblem tells why
	// nothing did.
	Configuration        map[string]int `json:"configuration"`
	ConfigurationProblem string         `json:"configurationProblem,omitempty"`
	// SameIdentity: the certificate authority and the admin's access key are those of before.
	SameIdentity bool `json:"sameIdentity"`
	// Instances came back, as their disks are in the data directory; of those in Lost
	// there are disks, too, but no record. Those in Shipped have no disks here, but what was
	// shipped of them is in the vault.
	Instances []string `json:"instances"`
	Lost      []string `json:"lost"`
	Shipped   []string `json:"shipped"`
}

// RebuiltServer is one source server that came back.
type RebuiltServer struct {
	ID       drs.SourceServerID `json:"id"`
	Hostname string             `json:"hostname"`
	Points   int                `json:"points"`
	// Problem tells what is not as it was; empty: everything is.
	Problem string `json:"problem,omitempty"`
}

// Run makes the database again from the vault's objects. The server must be
// stopped. The new database gets its name when it is complete; cut short, nothing has
// changed, and it is to be called again.
func (r Rebuild) Run(ctx context.Context) (out Rebuilt, err error) {
	if r.Log == nil {
		r.Log = slog.New(slog.DiscardHandler)
	}
	d, err := r.open(ctx)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	out = Rebuilt{Data: d.Path, NewDataDir: r.MasterKey != "", Servers: []RebuiltServer{}, Configuration: map[string]int{}, Instances: []string{}, Lost: []string{}, Shipped: []string{}}
	out.SameIdentity = !out.NewDataDir || d.restored

	if out.SetAside, err = r.whereAside(ctx, d); err != nil {
		return out, err
	}
	store, err := d.openStore(ctx)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	v, err := vault.Open(ctx, store, d.keys, vault.Options{ReadOnly: true})
	if err != nil {
		return out, d.explainKey(ctx, store, fmt.Errorf("open the vault %s: %w", d.Settings.Vault, err))
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if err := r.mayTake(ctx, d, v, &out); err != nil {
		return out, err
	}
	temp := d.databasePath() + ".rebuilding"
	if err := removeDatabase(temp); err != nil {
		return out, err
	}
	if err := r.fill(ctx, d, v, temp, &out); err != nil {
		return out, errors.Join(err, removeDatabase(temp))
	}
	if out.NewDataDir {
		if err := r.takeOver(ctx, d, store); err != nil {
			return out, errors.Join(err, removeDatabase(temp))
		}
		if err := r.catchUp(ctx, d, v, temp, &out); err != nil {
			return out, errors.Join(err, removeDatabase(temp))
		}
	}
	if err := place(temp, d.databasePath(), out.SetAside); err != nil || !out.NewDataDir {
		return out, err
	}
	// The settings come last: they make the directory whole.
	return out, d.writeSettings()
}

// catchUp makes the database once more when the server before wrote records until it
// lost the vault.
func (r Rebuild) catchUp(ctx context.Context, d *DataDir, v *vault.Vault, path string, out *Rebuilt) error {
	database, err := db.Open(ctx, path)
	if err != nil {
		return err
	}
	newer, err := newerRecords(ctx, v, database)
	if err := errors.Join(err, database.Close()); err != nil {
		r.Log.Warn("cannot look whether the vault's records have changed meanwhile", "err", err)
	}
	if len(newer) == 0 {
		return nil
	}
	if err := removeDatabase(path); err != nil {
		return err
	}
	out.Servers, out.Configuration, out.ConfigurationProblem = []RebuiltServer{}, map[string]int{}, ""
	return r.fill(ctx, d, v, path, out)
}

func readRecord(ctx context.Context, v *vault.Vault, id drs.SourceServerID) (db.ServerRecord, error) {
	text, err := v.Record(ctx, id)
	if err != nil {
		return db.ServerRecord{}, err
	}
	record, err := db.DecodeServerRecord(text)
	if err == nil && record.ID != id {
		err = fmt.Errorf("the record of %s is that of %s", id, record.ID)
	}
	return record, err
}

// whereAside says where the database of now goes, if there is one: a damaged one
// simply, a whole one only when it is meant.
func (r Rebuild) whereAside(ctx context.Context, d *DataDir) (string, error) {
	path := d.databasePath()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	database, err := db.Open(ctx, path)
	if err == nil {
		if err := database.Close(); err != nil {
			return "", err
		}
		if !r.Replace {
			return "", fmt.Errorf("the database %s is whole: nothing needs to be rebuilt. To make it anew all the same, and lose what only it knows "+
				"(jobs and their logs, changes of the last seconds), give --replace-database; it is set aside, not deleted", path)
		}
	}
	return path + ".before-" + time.Now().UTC().Format("20060102T150405Z"), nil
}

// fill makes a database of what the vault tells.
func (r Rebuild) fill(ctx context.Context, d *DataDir, v *vault.Vault, path string, out *Rebuilt) (err error) {
	database, err := db.Create(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, database.Close()) }()
	servers, err := v.Servers(ctx)
	if err != nil {
		return err
	}
	accounts := map[drs.Account]bool{d.Account(): len(servers) > 0}
	var inVault []db.InstanceRecord
	for _, id := range servers {
		points, damage := v.Points(ctx, id)
		if damage != nil && len(points) == 0 {
			if errors.Is(damage, vault.ErrAbsent) {
				continue // its creation, or its deletion, was cut short
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		server := RebuiltServer{ID: id, Points: len(points)}
		if damage != nil {
			server.Problem = damage.Error()
		}
		record, err := readRecord(ctx, v, id)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if blob.TroubleOf(err) != nil {
				return err // what is made up would replace it
			}
			record, err = r.placeholder(ctx, d, v, id, points)
			if err != nil {
				return err
			}
			server.Problem = "its record is not in the vault: hostname, hardware, tags and configurations are made up; " +
				"its agent's next connection brings the hardware back. " + server.Problem
		}
		var restored drs.SourceServer
		if err := database.InTx(ctx, func(ctx context.Context, tx db.Tx) (err error) {
			restored, err = tx.RestoreServer(ctx, record)
			return err
		}); err != nil {
			return err
		}
		server.Hostname = restored.Properties.Hostname
		if err := v.MarkRecord(ctx, id, database); err != nil {
			return err
		}
		inVault = append(inVault, record.Instances...)
		if restored.Replication.State.Ended() { // its points are not offered any more
			points, server.Points = nil, 0
			server.Problem = "its replication was ended, and what the vault still holds of it waits to be deleted: delete the source server. " + server.Problem
		}
		accounts[restored.Account] = true
		if err := database.ReplacePoints(ctx, id, points); err != nil {
			return err
		}
		out.Servers = append(out.Servers, server)
	}
	if err := r.restoreConfiguration(ctx, d, v, database, out); err != nil {
		return err
	}
	if out.Instances, out.Lost, err = restoreInstances(ctx, d, database); err != nil {
		return err
	}
	if err := restoreShipped(ctx, v, database, inVault, out); err != nil {
		return err
	}
	for account, used := range accounts {
		if used {
			if err := database.Initialize(ctx, account); err != nil {
				return err
			}
		}
	}
	return nil
}

// restoreConfiguration brings back what people have set up. When that cannot be, the
// machines come back all the same, and what the vault has is laid beside the database.
func (r Rebuild) restoreConfiguration(ctx context.Context, d *DataDir, v *vault.Vault, database *db.DB, out *Rebuilt) error {
	document, err := v.OwnRecord(ctx)
	if errors.Is(err, vault.ErrAbsent) {
		out.ConfigurationProblem = "the vault keeps none: it was written by an earlier version"
		return nil
	}
	var in installation
	if err == nil {
		in, err = decodeInstallation(document)
	}
	if err == nil {
		err = database.InTx(ctx, func(ctx context.Context, tx db.Tx) error { return tx.RestoreConfiguration(ctx, in.Configuration) })
	}
	switch {
	case err == nil:
		if err := v.MarkRecord(ctx, "", database); err != nil {
			return err
		}
		for table, rows := range in.Configuration.Tables {
			if len(rows) > 0 {
				out.Configuration[table] = len(rows)
			}
		}
		if n := len(in.Configuration.Extended); n > 0 {
			out.Configuration["extended_source_servers"] = n
		}
		return nil
	case errors.Is(err, db.ErrNewerConfiguration) || ctx.Err() != nil || blob.TroubleOf(err) != nil:
		return err
	}
	out.ConfigurationProblem = err.Error()
	if document == nil {
		return nil
	}
	beside := d.databasePath() + ".configuration-not-restored.json.gz"
	out.ConfigurationProblem += "; what the vault keeps of it lies in " + beside
	return durable.Files{}.WriteFile("keep the configuration", beside, document, 0o600)
}

// placeholder makes up a record from what the data itself tells.
func (r Rebuild) placeholder(ctx context.Context, d *DataDir, v *vault.Vault, id drs.SourceServerID, points []drs.RecoveryPoint) (db.ServerRecord, error) {
	properties := drs.SourceProperties{Hostname: string(id), CPUs: []drs.CPU{{Cores: 1}}, RAMBytes: 2 << 30, Architecture: "x86_64"}
	if image, err := v.OpenHead(ctx, id, vault.MainBranch); err == nil {
		for _, volume := range image.Volumes() {
			properties.Disks = append(properties.Disks, drs.Disk{Device: volume.Device, Bytes: volume.Size})
		}
		if err := image.Close(); err != nil {
			return db.ServerRecord{}, err
		}
	} else if ctx.Err() != nil {
		return db.ServerRecord{}, ctx.Err()
	}
	record := db.ServerRecord{
		ID: id, Account: d.Settings.Account, Region: d.Settings.Region, HardwareID: "unknown:" + string(id), Added: time.Now().UTC(),
	}
	if len(points) > 0 {
		record.Added = points[0].Taken
	}
	var errs []error
	encode := func(v any) json.RawMessage {
		text, err := json.Marshal(v)
		errs = append(errs, err)
		return text
	}
	record.Properties = encode(properties)
	record.ReplicationConfiguration = encode(drs.DefaultReplicationConfiguration(id))
	record.LaunchConfiguration = encode(drs.DefaultLaunchConfiguration(id))
	record.Tags = encode(drs.Tags{})
	return record, errors.Join(errs...)
}

// restoreInstances brings back the instances whose disks, and a record of them, are in
// the data directory, and returns those without a record.
func restoreInstances(ctx context.Context, d *DataDir, database *db.DB) (back, left []string, err error) {
	back, left = []string{}, []string{}
	entries, err := os.ReadDir(d.file(instancesDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	for _, e := range entries {
		id, err := drs.ParseRecoveryInstanceID(e.Name())
		if err != nil {
			continue // not an instance's
		}
		var record db.InstanceRecord
		text, err := os.ReadFile(filepath.Join(d.file(instancesDir), e.Name(), instanceFile))
		if err == nil {
			record, err = db.DecodeInstanceRecord(text)
		}
		if err != nil || record.ID != id {
			left = append(left, e.Name())
			continue
		}
		if err := database.InTx(ctx, func(ctx context.Context, tx db.Tx) error { return tx.RestoreInstance(ctx, record) }); err != nil {
			return nil, nil, err
		}
		back = append(back, e.Name())
	}
	return back, left, nil
}

// restoreShipped brings back the instances of which the vault has a branch and a record, and
// the data directory has no record: stopped where their disks are not there either.
func restoreShipped(ctx context.Context, v *vault.Vault, database *db.DB, records []db.InstanceRecord, out *Rebuilt) error {
	out.Shipped = []string{}
	for _, record := range records {
		id := string(record.ID)
		if slices.Contains(out.Instances, id) || record.State == drs.InstanceShuttingDown {
			continue
		}
		branches, err := v.Branches(ctx, record.VaultServer)
		if err != nil && len(branches) == 0 {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue // as the server's own problem tells
		}
		if !slices.Contains(branches, id) {
			continue // it was terminated
		}
		disks := slices.Contains(out.Lost, id)
		if !disks {
			record.State, record.Wanted = drs.InstanceStopped, false
		}
		if err := database.InTx(ctx, func(ctx context.Context, tx db.Tx) error { return tx.RestoreInstance(ctx, record) }); err != nil {
			return err
		}
		if disks {
			out.Lost = slices.DeleteFunc(out.Lost, func(lost string) bool { return lost == id })
			out.Instances = append(out.Instances, id)
		} else {
			out.Shipped = append(out.Shipped, id)
		}
	}
	return nil
}
