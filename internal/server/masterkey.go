package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"lifeboat/internal/durable"
	"lifeboat/internal/vault"
)

// The master key seals the vault. The data directory's own keys (of access keys,
// tokens, instances' logs) come from a root secret, which at first is the master key
// itself. When that is changed, the root secret stays and lies sealed under the
// new one, in a file named after it.

const (
	nextKeyFile   = masterKeyFile + ".next" // while the master key is being changed
	retiredPrefix = "retired-"              // and the ID: a former master key
	rootPrefix    = "root-secret-"          // and the ID: the root secret under that master key
	keySuffix     = ".key"
)

// rootBinding says what a wrapped root secret is for.
var rootBinding = []byte("lifeboat data directory\x00root secret")

// readMaster reads the master key and the secret that all other keys of the directory
// come from.
func (d *DataDir) readMaster(ctx context.Context) (err error) {
	if d.keys, err = vault.LoadKeyFile(d.file(masterKeyFile)); err != nil {
		return d.missing("the master key", err)
	}
	sealed, err := os.ReadFile(d.rootFile(d.keys.ID()))
	switch {
	case err == nil:
		if d.master, err = d.keys.Unwrap(ctx, sealed, rootBinding); err != nil {
			return d.missing("the root secret", err)
		}
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return d.missing("the root secret", err)
	}
	// It was never changed, unless this is the file of another time.
	others, err := filepath.Glob(d.file(rootPrefix + "*" + keySuffix))
	if err != nil || len(others) > 0 && !d.changing() {
		return errors.Join(err, fmt.Errorf("data directory %s: %s is not its master key: it is key %s, and %s is sealed with another one. "+
			"Put the right %s there from your copy", d.Path, d.file(masterKeyFile), d.keys.ID(), strings.Join(others, ", "), masterKeyFile))
	}
	d.master, err = os.ReadFile(d.file(masterKeyFile))
	if err != nil {
		return d.missing("the master key", err)
	}
	return nil
}

func (d *DataDir) rootFile(keyID string) string { return d.file(rootPrefix + keyID + keySuffix) }

func (d *DataDir) retiredFile(keyID string) string {
	return d.file(retiredPrefix + keyID + keySuffix)
}

// changing tells whether a change of the master key was begun and did not get to
// where the new one counts.
func (d *DataDir) changing() bool {
	_, err := os.Stat(d.file(nextKeyFile))
	return err == nil
}

// Rotation says what a change of the master key did.
type Rotation struct {
	From    string `json:"from,omitempty"` // ID of the master key before; empty when a change was only completed
	To      string `json:"to"`
	Servers int    `json:"servers"` // whose keys were wrapped anew
	Retired string `json:"retired"` // file with the key before
	Resumed bool   `json:"resumed"` // it was cut short before
}

// RotateKey gives the vault of a data directory a new master key. The server must
// be stopped. Cut short anywhere, it is to be called again: until then the server
// starts as before, with the old key or the new one.
func RotateKey(ctx context.Context, data string) (r Rotation, err error) {
	d, err := lockDataDir(data)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	store, err := d.openStore(ctx)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := d.checkOwner(ctx, store); err != nil {
		return r, err
	}

	sealedWith, err := vault.MasterKeys(ctx, store)
	if err != nil {
		return r, err
	}
	r.To = d.keys.ID()
	if d.changing() || len(sealedWith) < 2 {
		r.Resumed = d.changing()
		if err := d.switchKey(ctx, store, &r); err != nil {
			return r, err
		}
	} else {
		r.Resumed = true
	}
	if err := d.rewrapInstallation(ctx, store); err != nil {
		return r, err
	}
	if _, err := vault.Retire(ctx, store, d.keys); err != nil {
		return r, err
	}
	if r.From != "" {
		r.Retired = d.retiredFile(r.From)
	}
	return r, d.forgetOldSecrets()
}

// switchKey makes a new master key, wraps everything under it as well, and puts its
// file in the place of the old one's.
func (d *DataDir) switchKey(ctx context.Context, store vaultStore, r *Rotation) error {
	next, err := vault.LoadKeyFile(d.file(nextKeyFile))
	if errors.Is(err, vault.ErrAbsent) {
		next, err = vault.CreateKeyFile(d.file(nextKeyFile))
	}
	if err != nil {
		return err
	}
	r.From, r.To = d.keys.ID(), next.ID()
	if r.Servers, err = vault.Rewrap(ctx, store, d.keys, next); err != nil {
		return err
	}
	sealed, err := next.Wrap(ctx, d.master, rootBinding)
	if err != nil {
		return err
	}
	var files durable.Files
	if err := files.WriteFile("change master key: root secret", d.rootFile(next.ID()), sealed, 0o600); err != nil {
		return err
	}
	// The old key stays under a name of its own; the rename is the moment from which on
	// the new one counts.
	err = files.Link("change master key: keep the old one", d.file(masterKeyFile), d.retiredFile(d.keys.ID()))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := files.SyncDir("change master key", d.Path); err != nil {
		return err
	}
	if err := files.Rename("change master key: switch", d.file(nextKeyFile), d.file(masterKeyFile)); err != nil {
		return err
	}
	if err := files.SyncDir("change master key", d.Path); err != nil {
		return err
	}
	return d.readMaster(ctx)
}

// forgetOldSecrets removes what is sealed under former master keys.
func (d *DataDir) forgetOldSecrets() error {
	all, err := filepath.Glob(d.file(rootPrefix + "*" + keySuffix))
	if err != nil {
		return err
	}
	for _, path := range all {
		if path == d.rootFile(d.keys.ID()) {
			continue
		}
		if err := (durable.Files{}).Remove("change master key: forget", path); err != nil {
			return err
		}
	}
	return nil
}

// explainKey adds to an error about a wrong key what the files of the directory tell.
func (d *DataDir) explainKey(ctx context.Context, store vaultStore, err error) error {
	if !errors.Is(err, vault.ErrWrongKey) {
		return err
	}
	ids, readErr := vault.MasterKeys(ctx, store)
	if readErr != nil {
		return err
	}
	for _, id := range ids {
		if _, statErr := os.Stat(d.retiredFile(id)); statErr == nil {
			return fmt.Errorf("%w. The key that it wants is %s: the vault seems to be an older copy, or a change of the master key was undone",
				err, d.retiredFile(id))
		}
	}
	return fmt.Errorf("%w. Put the right %s into %s from your copy", err, masterKeyFile, d.Path)
}
