package server

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/durable"
	"lifeboat/internal/vault"
)

// installationEvery is how often it is looked whether the configuration has changed.
// A change is in the vault a few seconds after it was made, many in a row together.
const installationEvery = 3 * time.Second

// installation is what a data directory and its tables hold besides source servers and
// history. It is kept in the vault, sealed, so that the vault and the master key are all
// that a new server needs to be the one that was lost. Kept as JSON, compressed:
// a field may be added, none renamed.
type installation struct {
	Format  int    `json:"format"`
	Account string `json:"account"`
	Region  string `json:"region"`
	Journal string `json:"journal,omitempty"`
	// RootSecret is the directory's root secret under the master key whose ID is RootKey;
	// empty: that key was never changed, and is the root secret itself.
	RootKey    string `json:"rootKey"`
	RootSecret []byte `json:"rootSecret,omitempty"`
	// Files of the data directory, by name.
	Files         map[string][]byte `json:"files"`
	Configuration db.Configuration  `json:"configuration"`
}

const (
	installationFormat = 1
	// maxInstallation bounds it before compression, in bytes.
	maxInstallation = 512 << 20
)

// keptFiles are those that others rely on: agents and clients trust the authority, and
// clients hold the access key. One that is not there is left out.
var keptFiles = []string{"ca.pem", "ca-key.pem", adminKeyFile, limitsFile}

// installation collects it from the directory; the configuration is the caller's.
func (d *DataDir) installation() (installation, error) {
	in := installation{
		Format: installationFormat, Account: d.Settings.Account, Region: d.Settings.Region, Journal: d.Settings.Journal, RootKey: d.keys.ID(), Files: map[string][]byte{},
	}
	read := func(path string) ([]byte, error) {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return text, err
	}
	for _, name := range keptFiles {
		text, err := read(d.file(name))
		if err != nil {
			return in, err
		}
		if text != nil {
			in.Files[name] = text
		}
	}
	var err error
	in.RootSecret, err = read(d.rootFile(d.keys.ID()))
	return in, err
}

func (in installation) encode() ([]byte, error) {
	text, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	if len(text) > maxInstallation {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(text), maxInstallation)
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err = w.Write(text)
	err = errors.Join(err, w.Close())
	return b.Bytes(), err
}

func decodeInstallation(document []byte) (in installation, err error) {
	r, err := gzip.NewReader(bytes.NewReader(document))
	if err != nil {
		return in, fmt.Errorf("read the record of the installation: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(r, maxInstallation+1))
	if err == nil && len(text) > maxInstallation {
		err = fmt.Errorf("more than %d bytes", maxInstallation)
	}
	if err == nil {
		err = json.Unmarshal(text, &in)
	}
	if err == nil && in.Format > installationFormat {
		err = db.ErrNewerConfiguration
	}
	if err == nil && in.Format < 1 {
		err = errors.New("it has no format")
	}
	if err != nil {
		return in, fmt.Errorf("read the record of the installation: %w", err)
	}
	return in, nil
}

// readInstallation reads what the vault keeps. vault.ErrAbsent: nothing, as an earlier
// version made it.
func readInstallation(ctx context.Context, v *vault.Vault) (installation, error) {
	document, err := v.OwnRecord(ctx)
	if err != nil {
		return installation{}, err
	}
	return decodeInstallation(document)
}

// installationKeeper keeps the installation in the vault. One goroutine uses it.
type installationKeeper struct {
	dir   *DataDir
	db    *db.DB
	vault *vault.Vault
	// mayPut is asked before each put.
	mayPut func(context.Context) error
	log    *slog.Logger

	kept int64 // generation of the configuration that is known to be there; 0: none
	told bool  // that it cannot be kept
}

// run keeps it until ctx ends, and once more then.
func (k *installationKeeper) run(ctx context.Context) error {
	tick := time.NewTicker(installationEvery)
	defer tick.Stop()
	for {
		k.round(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			k.round(last)
			return nil
		}
	}
}

func (k *installationKeeper) round(ctx context.Context) {
	err := k.keep(ctx)
	switch {
	case err == nil:
		k.told = false
	case ctx.Err() == nil && !k.told:
		k.told = true
		k.log.Warn("the configuration (templates, plans, networks, users) cannot be kept in the vault; trying again", "err", err)
	}
}

func (k *installationKeeper) keep(ctx context.Context) error {
	if now, err := k.db.ConfigurationGeneration(ctx); err != nil || now == k.kept {
		return err
	}
	in, err := k.dir.installation()
	if err != nil {
		return err
	}
	var generation int64
	if in.Configuration, generation, err = k.db.Configuration(ctx); err != nil {
		return err
	}
	document, err := in.encode()
	if err != nil {
		return err
	}
	if err := k.mayPut(ctx); err != nil {
		return err
	}
	if err := k.vault.PutOwnRecord(ctx, document, k.db); err != nil {
		return err
	}
	k.kept = generation
	return nil
}

// rewrapInstallation brings the root secret that the vault keeps under the directory's
// present master key. Until it is done, the vault can be made whole with the key before.
// The rest stays as the vault keeps it; a database that is older than that stays so.
func (d *DataDir) rewrapInstallation(ctx context.Context, store vaultStore) (err error) {
	v, err := vault.Open(ctx, store, d.keys, vault.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	kept, err := readInstallation(ctx, v)
	var corrupt *vault.CorruptError
	if errors.Is(err, vault.ErrAbsent) || errors.As(err, &corrupt) {
		return nil // the next start writes it
	}
	if err != nil {
		return err
	}
	now, err := d.installation()
	if err != nil {
		return err
	}
	kept.RootKey, kept.RootSecret = now.RootKey, now.RootSecret
	document, err := kept.encode()
	if err != nil {
		return err
	}
	if database, openErr := db.Open(ctx, d.databasePath()); openErr == nil {
		defer func() { err = errors.Join(err, database.Close()) }()
		if err = v.PutOwnRecord(ctx, document, database); !errors.Is(err, vault.ErrNewerRecord) {
			return err
		}
	}
	return v.PutOwnRecord(ctx, document, nil)
}

// restoreSecrets puts what the vault keeps of an installation into a new data
// directory that has the master key and nothing else yet.
func (d *DataDir) restoreSecrets(in installation) error {
	if in.RootKey != d.keys.ID() {
		return fmt.Errorf("a change of the master key was cut short: the vault's record of the installation wants master key %s, and the one given is %s: "+
			"give the file of the former, and run `lifeboat vault rotate-key` afterwards", in.RootKey, d.keys.ID())
	}
	var files durable.Files
	if len(in.RootSecret) > 0 {
		if err := files.CreateFile("restore the root secret", d.rootFile(in.RootKey), in.RootSecret, 0o600); err != nil {
			return err
		}
	}
	for _, name := range keptFiles {
		if text, there := in.Files[name]; there {
			if err := files.CreateFile("restore "+name, d.file(name), text, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}
