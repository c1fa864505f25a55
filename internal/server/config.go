package server

import (
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"lifeboat/internal/recovery/machine"
)

// Config is what `lifeboat server` is started with. Empty fields take the value
// of the data directory or, on its first start, the default.
type Config struct {
	Data string // the data directory; required
	// Listen is the address of the API, ReplicationListen the one agents send to.
	Listen            string
	ReplicationListen string
	// NBDListen is the address at which disks of recovery points are served over
	// NBD with TLS; empty: nowhere.
	NBDListen string
	// Vault is file:DIR or s3://BUCKET[/PREFIX]?… and DB is sqlite:FILE; within the data
	// directory by default. They are fixed by the first start.
	Vault string
	DB    string
	// CacheSize bounds the local cache of a vault in a bucket, in bytes; 0:
	// DefaultCacheSize; below zero: there is none.
	CacheSize int64
	// Machines says where recovered machines run: qemu.
	Machines string
	// DrillNetwork and RecoveryNetwork are isolated, user or bridge=NAME.
	DrillNetwork    machine.Network
	RecoveryNetwork machine.Network
	// Epoch is the spacing of recovery points that agents are asked for.
	Epoch time.Duration
	// Journal is for how long every recovery point is kept, before the rules of the
	// source server's replication configuration apply; nil: as long as the data directory says.
	Journal *time.Duration
	// LockDays is for how many days a recovery point of each hour is locked; 0: not at all.
	LockDays int
	// ScrubDays is in how many days everything in the vault is read and verified once,
	// a share each day; 0: never.
	ScrubDays int
	// Account and Region are given to a new data directory only.
	Account string
	Region  string
	Version string
	Log     *slog.Logger
}

// Defaults of a first start.
const (
	DefaultListen      = "127.0.0.1:7443"
	DefaultReplication = "127.0.0.1:1500"
	DefaultRegion      = "us-east-1"
)

const (
	maxJournal  = 90 * 24 * time.Hour
	maxLockDays = 3650
)

// Check refuses what no start could make sense of, before anything is touched.
func (c *Config) Check() error {
	if c.Data == "" {
		return fmt.Errorf("name a data directory with --data")
	}
	for flag, address := range map[string]string{"--listen": c.Listen, "--replication-listen": c.ReplicationListen, "--nbd-listen": c.NBDListen} {
		if address == "" {
			continue
		}
		_, port, err := net.SplitHostPort(address)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return fmt.Errorf("%s %s: want HOST:PORT, the port a number up to 65535", flag, address)
		}
	}
	if c.Vault != "" {
		if err := checkVault(c.Vault); err != nil {
			return fmt.Errorf("--vault: %w", err)
		}
	}
	if c.DB != "" {
		if strings.HasPrefix(c.DB, "postgres") {
			return fmt.Errorf("--db %s: this version keeps its tables in SQLite only: want sqlite:FILE", c.DB)
		}
		if !strings.HasPrefix(c.DB, dbScheme) || c.DB == dbScheme {
			return fmt.Errorf("--db %s: want sqlite:FILE", c.DB)
		}
	}
	if c.Machines != "" && c.Machines != "qemu" {
		return fmt.Errorf("--machines %s: this version runs machines with QEMU only: want qemu", c.Machines)
	}
	if err := CheckJournal(c.Journal); err != nil {
		return err
	}
	if c.LockDays < 0 || c.LockDays > maxLockDays {
		return fmt.Errorf("--lock-days %d: want 0 to %d", c.LockDays, maxLockDays)
	}
	if c.ScrubDays < 0 || c.ScrubDays > 1000 {
		return fmt.Errorf("--scrub-days %d: want 1 to 1000, or 0 for never", c.ScrubDays)
	}
	if c.Epoch < 0 || c.Epoch > 0 && c.Epoch < 100*time.Millisecond || c.Epoch > time.Hour {
		return fmt.Errorf("--epoch %s: want 100ms to 1h", c.Epoch)
	}
	return nil
}

// first is what a new data directory is made with.
func (c *Config) first() (Settings, error) {
	s := Settings{
		Account: c.Account, Region: c.Region, Vault: vaultScheme + vaultDir, DB: dbScheme + databaseFile,
	}
	if s.Region == "" {
		s.Region = DefaultRegion
	}
	var err error
	if c.Vault != "" {
		s.Vault, err = vaultLocation(c.Vault)
	}
	if c.DB != "" && err == nil {
		s.DB, err = absolute(dbScheme, c.DB)
	}
	return s, err
}

// agree refuses flags that contradict what the first start fixed.
func (c *Config) agree(d *DataDir) error {
	fixedVault := d.Settings.Vault
	if !d.vaultInBucket() {
		fixedVault = vaultScheme + d.vaultPath()
	}
	for _, f := range []struct {
		flag, given, fixed string
		canonical          func(string) (string, error)
	}{
		{"--vault", c.Vault, fixedVault, vaultLocation},
		{"--db", c.DB, dbScheme + d.databasePath(), func(s string) (string, error) { return absolute(dbScheme, s) }},
	} {
		if f.given == "" {
			continue
		}
		given, err := f.canonical(f.given)
		if err != nil {
			return err
		}
		fixed, err := f.canonical(f.fixed)
		if err != nil {
			return err
		}
		if given != fixed {
			return fmt.Errorf("%s %s: data directory %s was made with %s, and a server does not change it: leave the flag out, or name another data directory",
				f.flag, f.given, d.Path, fixed)
		}
	}
	if c.Region != "" && c.Region != d.Settings.Region {
		return fmt.Errorf("--region %s: data directory %s belongs to region %s", c.Region, d.Path, d.Settings.Region)
	}
	if c.Account != "" && c.Account != d.Settings.Account {
		return fmt.Errorf("--account %s: data directory %s belongs to account %s", c.Account, d.Path, d.Settings.Account)
	}
	return nil
}

func absolute(scheme, address string) (string, error) {
	path, err := filepath.Abs(strings.TrimPrefix(address, scheme))
	return scheme + path, err
}
