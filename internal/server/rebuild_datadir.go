package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/durable"
	"lifeboat/internal/vault"
)

// open opens the data directory, or begins a new one around a master key.
func (r Rebuild) open(ctx context.Context) (*DataDir, error) {
	path, err := filepath.Abs(r.Data)
	if err != nil {
		return nil, err
	}
	if r.MasterKey == "" {
		for flag, value := range map[string]string{"--vault": r.Vault, "--db": r.DB, "--account": r.Account, "--region": r.Region} {
			if value != "" {
				return nil, fmt.Errorf("%s is of use only with --master-key, to make a new data directory", flag)
			}
		}
		d, err := lockDataDir(path)
		if err != nil {
			return nil, fmt.Errorf("%w. When the data directory is lost, name a new one and give --master-key FILE and --vault LOCATION", err)
		}
		return d, nil
	}
	return r.begin(ctx, path)
}

// begin makes a new data directory, all but its settings and database.
func (r Rebuild) begin(ctx context.Context, path string) (d *DataDir, err error) {
	keys, err := vault.LoadKeyFile(r.MasterKey)
	if err != nil {
		return nil, err
	}
	config := Config{Data: path, Vault: r.Vault, DB: r.DB, Account: r.Account, Region: r.Region}
	if err := config.Check(); err != nil {
		return nil, err
	}
	first, err := config.first()
	if err != nil {
		return nil, err
	}
	d = &DataDir{Path: path, Settings: first, keys: keys}
	d.Settings.Format, d.Settings.Created = settingsFormat, time.Now().UTC()
	if err := d.onlyVaultThere(); err != nil {
		return nil, err
	}
	before, err := d.lookIntoVault(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	if err := d.takeLock(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make data directory %s: %w", path, err), d.Close())
		}
	}()
	raw, err := os.ReadFile(r.MasterKey)
	if err != nil {
		return nil, err
	}
	if err := (durable.Files{}).CreateFile("copy master key", d.file(masterKeyFile), raw, 0o600); err != nil {
		return nil, err
	}
	if before != nil {
		if err := d.restoreSecrets(*before); err != nil {
			return nil, err
		}
		_, d.restored = before.Files[adminKeyFile]
	}
	return d, d.createSecrets(ctx)
}

// onlyVaultThere refuses a directory that holds anything but, maybe, the vault.
func (d *DataDir) onlyVaultThere() error {
	entries, err := os.ReadDir(d.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look into data directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() != "lost+found" && d.file(e.Name()) != d.vaultPath() {
			return fmt.Errorf("%s is not empty (%s): with --master-key a new data directory is made; name an empty one, "+
				"or leave the flag out if this one is a data directory whose database is lost", d.Path, e.Name())
		}
	}
	return nil
}

// lookIntoVault finds out what the vault keeps of the installation before, and sets
// what was not named. nil: nothing that can be used, and the secrets are made anew.
func (d *DataDir) lookIntoVault(ctx context.Context, r Rebuild) (before *installation, err error) {
	store, err := d.openStore(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w. Name the place of the vault with --vault", err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	v, err := vault.Open(ctx, store, d.keys, vault.Options{ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("open the vault %s with %s: %w", d.Settings.Vault, r.MasterKey, err)
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	in, err := readInstallation(ctx, v)
	switch {
	case err == nil:
		d.Settings.Journal = in.Journal
		if r.Account == "" {
			d.Settings.Account = in.Account
		}
		if r.Region == "" {
			d.Settings.Region = in.Region
		}
		if d.Settings.Account != in.Account || d.Settings.Region != in.Region { // the access key is not of this account
			delete(in.Files, adminKeyFile)
		}
		return &in, nil
	case errors.Is(err, db.ErrNewerConfiguration) || ctx.Err() != nil:
		return nil, err
	case !errors.Is(err, vault.ErrAbsent):
		r.Log.Warn("the record of the installation cannot be used: certificate authority and access key are made anew", "err", err)
	}
	return nil, d.accountFromServers(ctx, v, r)
}

// accountFromServers finds out whose servers the vault keeps, unless that was said.
func (d *DataDir) accountFromServers(ctx context.Context, v *vault.Vault, r Rebuild) error {
	if d.Settings.Account != "" && r.Region != "" {
		return nil
	}
	servers, err := v.Servers(ctx)
	if err != nil {
		return err
	}
	count := map[drs.Account]int{}
	for _, id := range servers {
		if record, err := readRecord(ctx, v, id); err == nil {
			count[drs.Account{ID: record.Account, Region: record.Region}]++
		}
	}
	best := drs.Account{}
	for account, n := range count {
		if best.ID == "" || n > count[best] || n == count[best] && account.ID < best.ID {
			best = account
		}
	}
	switch {
	case best.ID != "":
		if d.Settings.Account == "" {
			d.Settings.Account = best.ID
		}
		if r.Region == "" {
			d.Settings.Region = best.Region
		}
	case d.Settings.Account == "":
		d.Settings.Account, err = randomAccount()
	}
	return err
}

// mayTake looks whose vault it is.
func (r Rebuild) mayTake(ctx context.Context, d *DataDir, v *vault.Vault, out *Rebuilt) error {
	owner, err := v.CurrentOwner(ctx)
	switch {
	case errors.Is(err, vault.ErrAbsent):
		return nil
	case err != nil:
		if out.NewDataDir {
			r.Log.Warn("whose vault it was cannot be read", "err", err)
			return nil
		}
		return err
	case owner.Installation == d.Settings.Installation:
		return nil
	case !out.NewDataDir:
		return &vault.OwnedError{Owner: owner}
	}
	out.Before = &owner
	return nil
}

// takeOver signs the vault, which ends a server that still runs on it.
func (r Rebuild) takeOver(ctx context.Context, d *DataDir, store vaultStore) error {
	v, err := vault.Open(ctx, store, d.keys, vault.Options{})
	if err != nil {
		return err
	}
	_, err = v.Own(ctx, d.owner(), true)
	return errors.Join(err, v.Close())
}
