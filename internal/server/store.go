package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"lifeboat/internal/vault/blob"
)

// vaultStore is where the vault's objects lie, open.
type vaultStore interface {
	blob.Store
	io.Closer
}

// openStore opens the store at the vault location of the settings. It is the one
// place that knows which kinds of locations there are; createStore is its twin.
func (d *DataDir) openStore(_ context.Context) (vaultStore, error) {
	store, err := blob.OpenDir(d.vaultPath())
	if err != nil {
		return nil, fmt.Errorf("open the vault: %w", err)
	}
	return store, nil
}

// createStore makes a new, empty store there and opens it.
func (d *DataDir) createStore(_ context.Context) (vaultStore, error) {
	store, err := blob.CreateDir(d.vaultPath())
	if errors.Is(err, blob.ErrExists) {
		return nil, fmt.Errorf("there is a vault at %s already, and it belongs to another data directory: "+
			"start with that directory, or name another place with --vault; when that directory is lost, "+
			"`lifeboat vault rebuild` makes a new one over the vault", d.vaultPath())
	}
	return store, err
}

// vaultPath reads the location of the settings; one within the data directory is
// kept relative, so that the directory can be moved.
func (d *DataDir) vaultPath() string {
	return d.resolve(strings.TrimPrefix(d.Settings.Vault, vaultScheme))
}
