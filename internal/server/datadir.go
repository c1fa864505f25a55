package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/durable"
	"lifeboat/internal/iam"
	"lifeboat/internal/vault"
)

// DataDir is the directory that holds everything a server must not lose. It is
// made once, by the first start; after that, what is missing in it is an error
// and never made anew.
type DataDir struct {
	Path      string
	Settings  Settings
	Authority *iam.Authority
	AdminKey  iam.AccessKey
	// keys is the master key, which seals the vault; master is the secret that all other
	// keys of the directory come from.
	keys   *vault.KeyFile
	master []byte
	lock   *os.File // nil when only read
	// restored: its secrets are those of an installation before.
	restored bool
}

// Settings are what the first start fixes for good, and what the latest one was told.
type Settings struct {
	Format  int       `json:"format"`
	Created time.Time `json:"created"`
	Account string    `json:"account"` // 12 digits
	Region  string    `json:"region"`
	// Installation tells this directory from all others, for the vault's owner.
	Installation string `json:"installation,omitempty"`
	Vault        string `json:"vault"` // as --vault takes it
	DB           string `json:"db"`    // as --db takes it
	// Listen and Replication are the addresses of the latest start, for `lifeboat
	// env` and for agents.
	Listen      string `json:"listen"`
	Replication string `json:"replicationListen"`
	// Journal is the journal window of the latest start, such as 72h0m0s; empty: not known.
	Journal string `json:"journal,omitempty"`
}

const (
	settingsFormat = 1
	// settingsFile is written last: a directory without it was never finished.
	settingsFile  = "lifeboat.json"
	masterKeyFile = "master.key"
	adminKeyFile  = "admin-access-key.json"
	databaseFile  = "lifeboat.db"
	vaultDir      = "vault"
	instancesDir  = "instances"
	lockFile      = "server.lock"
)

// Account is whose resources this server keeps.
func (d *DataDir) Account() drs.Account {
	return drs.Account{ID: d.Settings.Account, Region: d.Settings.Region}
}

func (d *DataDir) file(name string) string { return filepath.Join(d.Path, name) }

// key derives a key for one purpose from the master key.
func (d *DataDir) key(purpose string) ([]byte, error) {
	return iam.DeriveKey(d.master, purpose)
}

// InstallTokens returns the issuer of this server's install tokens.
func (d *DataDir) InstallTokens() (*iam.InstallTokens, error) {
	return iam.NewInstallTokens(d.master, nil)
}

// openDataDir opens the directory, or makes it when it is absent or empty. It
// holds the directory's lock until Close.
func openDataDir(ctx context.Context, path string, first Settings) (*DataDir, bool, error) {
	empty, err := isEmpty(path)
	if err != nil {
		return nil, false, err
	}
	holder := &DataDir{Path: path}
	if empty {
		// The likeliest mistakes of a first start must leave nothing behind that stands in
		// the way of the corrected one.
		if err := (&DataDir{Path: path, Settings: first}).vaultFree(ctx); err != nil {
			return nil, false, err
		}
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, false, fmt.Errorf("make data directory: %w", err)
		}
	}
	// The lock comes first, so that others can tell a directory that is being made
	// from one whose making was cut short. It is made in a data directory only.
	if _, err := os.Stat(holder.file(settingsFile)); err == nil || empty {
		if err := holder.takeLock(); err != nil {
			return nil, false, err
		}
	}
	if empty {
		err = createDataDir(ctx, path, first)
	}
	var d *DataDir
	if err == nil {
		d, err = readDataDir(path)
	}
	if err != nil {
		return nil, false, errors.Join(err, holder.Close())
	}
	d.lock = holder.lock
	return d, empty, nil
}

// isEmpty tells whether nothing was ever put there; a file system's own
// lost+found does not count.
func isEmpty(path string) (bool, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look into data directory: %w", err)
	}
	return !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != "lost+found" }), nil
}

// ReadDataDir opens a directory without its lock, to read keys and settings.
// ErrStarting: it is being made.
func ReadDataDir(path string) (*DataDir, error) {
	d := &DataDir{Path: path}
	if _, err := os.Stat(d.file(settingsFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, d.unfinished()
	}
	return readDataDir(path)
}

func readDataDir(path string) (*DataDir, error) {
	d := &DataDir{Path: path}
	text, err := os.ReadFile(d.file(settingsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, d.cutShort()
	}
	if err != nil {
		return nil, fmt.Errorf("read data directory: %w", err)
	}
	if err := json.Unmarshal(text, &d.Settings); err != nil {
		return nil, fmt.Errorf("data directory %s is damaged: %s: %w. Restore it from a copy", path, settingsFile, err)
	}
	if d.Settings.Format != settingsFormat {
		return nil, fmt.Errorf("data directory %s has format %d, this lifeboat knows format %d: run the lifeboat that made it or a newer one",
			path, d.Settings.Format, settingsFormat)
	}
	if err := d.readMaster(context.Background()); err != nil {
		return nil, err
	}
	if d.Authority, err = iam.LoadAuthority(path); err != nil {
		return nil, d.missing("the certificate authority", err)
	}
	if d.AdminKey, err = iam.LoadAdminKey(d.file(adminKeyFile), d.master); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w; or %s is not the master key of this directory: then that file is what to restore", err, d.file(masterKeyFile))
		}
		return nil, d.missing("the admin access key", err)
	}
	return d, nil
}

// ErrStarting: a server is making the data directory right now.
var ErrStarting = errors.New("a server is making this data directory right now: try again in a moment")

func (d *DataDir) unfinished() error {
	if d.locked() {
		return fmt.Errorf("%s: %w", d.Path, ErrStarting)
	}
	if empty, err := isEmpty(d.Path); err != nil {
		return err
	} else if empty {
		return fmt.Errorf("%s is no data directory of a lifeboat server (nothing is there): the first `lifeboat server --data %s` makes one", d.Path, d.Path)
	}
	return d.cutShort()
}

func (d *DataDir) cutShort() error {
	return fmt.Errorf("%s is not empty and has no %s: either it is not a data directory, or its making was cut short. "+
		"Name another directory, or if nothing in it is needed, empty it and start again", d.Path, settingsFile)
}

func (d *DataDir) missing(what string, err error) error {
	return fmt.Errorf("data directory %s is damaged: %s cannot be used, and a new one would not open what is stored: %w. "+
		"Restore it from a copy", d.Path, what, err)
}

// locked tells whether a server holds the directory.
func (d *DataDir) locked() bool {
	lock, err := os.Open(d.file(lockFile))
	if err != nil {
		return false
	}
	defer lock.Close() // and with it what was locked here
	return errors.Is(unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

func (d *DataDir) takeLock() error {
	lock, err := os.OpenFile(d.file(lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock data directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("data directory %s is in use by another lifeboat server: stop that one first", d.Path)
		}
		return fmt.Errorf("lock data directory %s: %w", d.Path, err)
	}
	d.lock = lock
	return nil
}

// lockDataDir opens an existing directory for work that no server may do at the same
// time, and holds its lock until Close.
func lockDataDir(path string) (*DataDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	holder := &DataDir{Path: path}
	if _, err := os.Stat(holder.file(settingsFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, holder.unfinished()
	}
	if err := holder.takeLock(); err != nil {
		return nil, err
	}
	d, err := readDataDir(path)
	if err != nil {
		return nil, errors.Join(err, holder.Close())
	}
	d.lock = holder.lock
	return d, nil
}

// Close gives the lock back.
func (d *DataDir) Close() error {
	if d.lock == nil {
		return nil
	}
	return d.lock.Close()
}

// createDataDir makes everything in place and the settings last.
func createDataDir(ctx context.Context, path string, first Settings) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("make data directory %s: %w", path, err)
		}
	}()
	d := &DataDir{Path: path, Settings: first}
	d.Settings.Format, d.Settings.Created = settingsFormat, time.Now().UTC()
	if d.Settings.Account == "" {
		account, err := randomAccount()
		if err != nil {
			return err
		}
		d.Settings.Account = account
	}
	if _, err := vault.CreateKeyFile(d.file(masterKeyFile)); err != nil {
		return fmt.Errorf("make the master key: %w", err)
	}
	if err := d.createSecrets(ctx); err != nil {
		return err
	}
	if err := d.createVault(ctx, d.keys); err != nil {
		return err
	}
	database, err := db.Create(ctx, d.databasePath())
	if err != nil {
		return err
	}
	if err := database.Close(); err != nil {
		return fmt.Errorf("make the database: %w", err)
	}
	return d.writeSettings()
}

// createSecrets makes what a directory with a master key needs besides, and was not
// restored.
func (d *DataDir) createSecrets(ctx context.Context) error {
	d.Settings.Installation = rand.Text()
	if err := d.readMaster(ctx); err != nil {
		return err
	}
	if _, err := iam.CreateAuthority(d.Path); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the certificate authority: %w", err)
	}
	if _, err := iam.CreateAdminKey(d.file(adminKeyFile), d.master, d.Account()); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the admin access key: %w", err)
	}
	return os.Mkdir(d.file(instancesDir), 0o700)
}

func (d *DataDir) createVault(ctx context.Context, keys vault.KeyWrapper) (err error) {
	store, err := d.createStore(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	v, err := vault.Create(ctx, store, keys, vault.Options{})
	if errors.Is(err, vault.ErrExists) {
		return d.vaultTaken()
	}
	if err != nil {
		return fmt.Errorf("make the vault: %w", err)
	}
	return v.Close()
}

func (d *DataDir) writeSettings() error {
	text, err := json.MarshalIndent(d.Settings, "", "  ")
	if err != nil {
		return err
	}
	return durable.Files{}.WriteFile("settings", d.file(settingsFile), append(text, '\n'), 0o600)
}

// databasePath reads the address of the settings; a place within the data
// directory is kept relative, so that it can be moved.
func (d *DataDir) databasePath() string {
	return d.resolve(strings.TrimPrefix(d.Settings.DB, dbScheme))
}

func (d *DataDir) resolve(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(d.Path, path)
}

const (
	vaultScheme = "file:"
	dbScheme    = "sqlite:"
)

// randomAccount makes up an account number that is nobody's on AWS by intent
// and that two servers hardly share.
func randomAccount() (string, error) {
	n, err := rand.Int(rand.Reader, big.NewInt(900_000_000_000))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%012d", n.Int64()+100_000_000_000), nil
}
