package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"lifeboat/internal/demo/rig"
)

// row is a part of the table that can be measured by itself.
type row struct {
	name  string // by which it is chosen
	about string
	needs []string // programs
	run   func(ctx context.Context, b *bench) ([]measurement, error)
}

// rows are all there is to measure, in the order of the table.
var rows = []row{
	{"sync", "initial sync of 4 GiB: zeros, text, noise", []string{"zstd", "restic", "borg"}, syncRow},
	{"lag", "age of the newest point under a steady load", []string{"fio", "losetup", "mkfs.ext4"}, lagRow},
	{"overhead", "what tracking and replication cost the source", []string{"fio", "losetup"}, overheadRow},
	{"vault", "commits, the opening of a point, and branches, on disks of up to 1 TiB", nil, vaultRow},
	{"fold", "write amplification of a steady day", nil, foldRow},
	{"nbd-warm", "NBD read from a warm cache", []string{"fio", "nbdkit"}, nbdWarmRow},
	{"nbd-cold", "NBD read, cold, sequential", []string{"fio", "qemu-nbd", "qemu-img"}, nbdColdRow},
	{"nbd-write", "NBD write with flush", []string{"fio", "qemu-nbd", "qemu-img"}, nbdWriteRow},
	{"launch", "StartRecovery to the first instruction, 1 GiB and 1 TiB", []string{"qemu-img"}, launchRow},
	{"boot", "boot from the vault after one drill", []string{"qemu-system-x86_64"}, bootRow},
	{"fleet", "200 servers in one job, machines faked", nil, fleetRow},
	{"history", "4,000 source servers and 100,000 jobs: listings, StartRecovery, memory", nil, historyRow},
	{"guest-lag", "age of the newest point of a busy machine, and its freezes beside its own sync", []string{"qemu-system-x86_64", "mkfs.xfs", "lvm"}, guestLagRow},
	{"guest-overhead", "random writes of a machine with and without the agent", []string{"qemu-system-x86_64", "mkfs.xfs", "lvm"}, guestOverheadRow},
	{"idle", "memory with 300 idle source servers", nil, idleRow},
}

// bench is what the rows share.
type bench struct {
	binary string
	dir    string
	keep   string // where prepared data is kept from run to run; empty: nowhere
}

// measure runs the row with a limit of time.
func (r row) measure(ctx context.Context, b *bench) ([]measurement, error) {
	for _, program := range r.needs {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%s is not installed: scripts/setup.sh bench installs it on Debian and Ubuntu", program)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the row took more than %s", limit))
	defer cancel()
	measures, err := r.run(ctx, b)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return measures, err
}

// choose finds the rows that a list of names means.
func choose(all []row, only string) ([]row, error) {
	if only == "" {
		return all, nil
	}
	var chosen []row
	wanted := strings.FieldsFunc(only, func(r rune) bool { return r == ',' || r == ' ' })
	met := map[string]bool{}
	for _, r := range all {
		for _, w := range wanted {
			if strings.HasPrefix(r.name, w) {
				met[w] = true
				chosen = append(chosen, r)
				break
			}
		}
	}
	for _, w := range wanted {
		if !met[w] {
			return nil, fmt.Errorf("no row is called %q; -list lists them", w)
		}
	}
	return chosen, nil
}

// place gives a row a directory of its own, which remove clears again.
func (b *bench) place(name string) (dir string, remove func() error, err error) {
	dir = filepath.Join(b.dir, name)
	if err := os.RemoveAll(dir); err != nil {
		return "", nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, err
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}

// prepared puts at a place what fill makes there: a copy of what an earlier run has
// kept under the name, if data is kept at all.
func (b *bench) prepared(ctx context.Context, name, at string, fill func(at string) error) error {
	if b.keep == "" {
		return fill(at)
	}
	kept := filepath.Join(b.keep, name)
	if _, err := os.Stat(kept); errors.Is(err, os.ErrNotExist) {
		making := kept + ".making"
		if err := errors.Join(os.RemoveAll(making), os.MkdirAll(b.keep, 0o700)); err != nil {
			return err
		}
		if err := fill(making); err != nil {
			return err
		}
		if err := os.Rename(making, kept); err != nil {
			return err
		}
	}
	_, err := output(ctx, "cp", "-a", kept, at) // with all modes, which a server checks
	return err
}

// site is a Lifeboat of a row's own.
type site struct {
	*rig.Rig
	server *rig.Server
}

// newSite starts a server with an initialized account in a directory of the row.
func (b *bench) newSite(ctx context.Context, dir string, args ...string) (*site, error) {
	lab, err := rig.New(b.binary, dir)
	if err != nil {
		return nil, err
	}
	server, err := lab.StartServer(ctx, args...)
	if err != nil {
		return nil, err
	}
	s := &site{lab, server}
	if err := errors.Join(server.Initialize(ctx), s.settled(ctx)); err != nil {
		return nil, errors.Join(err, s.close(ctx))
	}
	return s, nil
}

// settled waits until a new server has found out how machines run on this host. Where
// hardware virtualization is there and does not work, that takes a whole processor for
// the first five seconds of its life, and once.
func (s *site) settled(ctx context.Context) error {
	for {
		_, err := os.Stat(filepath.Join(s.Data(), "instances", "accelerator.json"))
		if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := errors.Join(s.server.Ended(), rig.Pause(ctx, 20*time.Millisecond)); err != nil {
			return err
		}
	}
}

// restart ends the server and starts it again, with nothing in its memory.
func (s *site) restart(ctx context.Context) error {
	if err := s.server.Stop(ctx); err != nil {
		return err
	}
	server, err := s.StartServer(ctx)
	if err != nil {
		return err
	}
	s.server = server
	return nil
}

// close ends everything that runs there.
func (s *site) close(ctx context.Context) error {
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUp)
	defer cancel()
	return errors.Join(s.QuitMachines(), s.server.Stop(stop))
}
