package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"lifeboat/internal/vault"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/blob/s3"
)

// vaultStore is where the vault's objects lie, open.
type vaultStore interface {
	blob.Store
	io.Closer
}

// openStore opens the store at the vault location of the settings. It is the one
// place that knows which kinds of locations there are; createStore is its twin.
func (d *DataDir) openStore(ctx context.Context) (vaultStore, error) {
	if d.vaultInBucket() {
		return d.openBucket(ctx, s3.Options{})
	}
	store, err := blob.OpenDir(d.vaultPath())
	if err != nil {
		return nil, fmt.Errorf("open the vault: %w", err)
	}
	return store, nil
}

// readStore opens it for looking only: a bucket that may not be written will do.
func (d *DataDir) readStore(ctx context.Context) (vaultStore, error) {
	if d.vaultInBucket() {
		return d.openBucket(ctx, s3.Options{ReadOnly: true})
	}
	return d.openStore(ctx)
}

func (d *DataDir) vaultInBucket() bool { return strings.HasPrefix(d.Settings.Vault, s3.Scheme) }

func (d *DataDir) openBucket(ctx context.Context, opt s3.Options) (vaultStore, error) {
	location, err := s3.ParseLocation(d.Settings.Vault)
	if err != nil {
		return nil, fmt.Errorf("open the vault: %w", err)
	}
	store, err := s3.Open(ctx, location, opt)
	if err != nil {
		return nil, fmt.Errorf("open the vault: %w", err)
	}
	return store, nil
}

// createStore makes a new, empty store there and opens it.
func (d *DataDir) createStore(ctx context.Context) (vaultStore, error) {
	if d.vaultInBucket() { // the bucket is there, what lies in it is the vault's to judge
		return d.openStore(ctx)
	}
	store, err := blob.CreateDir(d.vaultPath())
	if errors.Is(err, blob.ErrExists) {
		return nil, d.vaultTaken()
	}
	return store, err
}

// vaultFree tells, without making anything, whether a new vault can be made there.
func (d *DataDir) vaultFree(ctx context.Context) (err error) {
	if !d.vaultInBucket() {
		_, err := os.ReadDir(d.vaultPath())
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("make the vault: %w: name another place with --vault", err)
		}
		store, err := blob.OpenDir(d.vaultPath())
		if err == nil {
			return errors.Join(d.vaultTaken(), store.Close())
		}
		return d.onlyUnfinished()
	}
	store, err := d.openStore(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	names, err := store.List(ctx, "")
	if err != nil || len(names) == 0 {
		return err
	}
	if _, err := vault.MasterKeys(ctx, store); err == nil {
		return d.vaultTaken()
	}
	return fmt.Errorf("make the vault: %s holds other objects, such as %s: name an empty place with --vault", d.Settings.Vault, names[0])
}

// onlyUnfinished refuses a directory that holds anything but a store whose making was
// cut short, which CreateDir takes up again.
func (d *DataDir) onlyUnfinished() error {
	entries, err := os.ReadDir(d.vaultPath())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != ".tmp" { // which CreateDir makes first
			return fmt.Errorf("make the vault: %s holds other files, such as %s: name an empty place with --vault", d.vaultPath(), e.Name())
		}
	}
	return nil
}

// vaultTaken refuses to make a vault where one is.
func (d *DataDir) vaultTaken() error {
	where := d.Settings.Vault
	if !d.vaultInBucket() {
		where = d.vaultPath()
	}
	return fmt.Errorf("there is a vault at %s already, and it belongs to another data directory: "+
		"start with that directory, or name another place with --vault; when that directory is lost, "+
		"`lifeboat vault rebuild` makes a new one over the vault", where)
}

// vaultPath reads the location of a vault in a directory; one within the data
// directory is kept relative, so that the directory can be moved.
func (d *DataDir) vaultPath() string {
	return d.resolve(strings.TrimPrefix(d.Settings.Vault, vaultScheme))
}

// checkVault refuses a location that no start could make sense of.
func checkVault(location string) error {
	switch {
	case strings.HasPrefix(location, "s3:"):
		_, err := s3.ParseLocation(location)
		return err
	case !strings.HasPrefix(location, vaultScheme) || location == vaultScheme:
		return fmt.Errorf("location %s: want file:DIR or s3://BUCKET[/PREFIX]?endpoint=…", s3.Redacted(location))
	}
	return nil
}

// vaultLocation is a location in the form that is kept and compared.
func vaultLocation(location string) (string, error) {
	if !strings.HasPrefix(location, s3.Scheme) {
		return absolute(vaultScheme, location)
	}
	parsed, err := s3.ParseLocation(location)
	return parsed.String(), err
}
