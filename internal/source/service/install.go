package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Install puts the program, its settings, its unit and, unless empty, the authority
// (PEM) and the token in place, and starts the service, again if it runs.
func (p Place) Install(ctx context.Context, program string, s Settings, authority []byte, token string) error {
	if err := p.copyProgram(program); err != nil {
		return err
	}
	if len(authority) > 0 {
		if err := p.write(Authority, authority, 0o644); err != nil {
			return err
		}
	}
	if token != "" {
		if err := p.write(TokenFile, []byte(token+"\n"), 0o600); err != nil {
			return err
		}
	}
	if err := p.writeSettings(s); err != nil {
		return err
	}
	return p.start(ctx, s)
}

func (p Place) start(ctx context.Context, s Settings) error {
	if err := p.write(unitFile, []byte(Unit(s)), 0o644); err != nil {
		return err
	}
	if err := p.systemctl(ctx, "daemon-reload"); err != nil {
		return err
	}
	if err := p.systemctl(ctx, "enable", Name); err != nil {
		return err
	}
	if err := p.systemctl(ctx, "stop", Name); err != nil {
		return err
	}
	// Not awaited: a service that must wait for its server is no error.
	return p.systemctl(ctx, "start", "--no-block", Name)
}

// Upgrade puts another program in place of the installed one and starts the
// service with it. Where that one ends with an error within patience, the old one is
// put back and goes on; one that cannot reach its server may stay: neither might the
// old one. The state directory is as before.
func (p Place) Upgrade(ctx context.Context, program string, patience time.Duration, tell func(Health)) error {
	s, err := p.Installed()
	if err != nil {
		return err
	}
	old, err := os.ReadFile(p.path(Program))
	if err != nil {
		return fmt.Errorf("upgrade agent: %w", err)
	}
	fresh, err := os.ReadFile(program)
	if err != nil {
		return fmt.Errorf("upgrade agent: %w", err)
	}
	if !bytes.Equal(old, fresh) {
		if err := p.write(previous, old, 0o755); err != nil {
			return err
		}
	}
	if err := p.write(Program, fresh, 0o755); err != nil {
		return err
	}
	if err := p.start(ctx, s); err != nil {
		return errors.Join(err, p.putBack(ctx, s))
	}
	if p.Root == "" {
		waiting, cancel := context.WithTimeout(ctx, patience)
		err = Await(waiting, func(h Health) (bool, error) {
			if h.Restarts > 0 {
				return false, fmt.Errorf("the new agent ended: %s (see: journalctl -u %s)", h.Status, Name)
			}
			return h.Connected(), nil
		}, tell)
		cancel()
		if err != nil && !errors.Is(err, ErrNotYet) {
			return fmt.Errorf("upgrade agent: %w", errors.Join(err, p.putBack(context.WithoutCancel(ctx), s)))
		}
	}
	return p.remove(previous)
}

// putBack undoes an upgrade that came to nothing.
func (p Place) putBack(ctx context.Context, s Settings) error {
	old, err := os.ReadFile(p.path(previous))
	if errors.Is(err, os.ErrNotExist) {
		return errors.New("the program was the installed one, and stays")
	}
	if err == nil {
		err = p.write(Program, old, 0o755)
	}
	if err == nil {
		err = p.start(ctx, s)
	}
	if err == nil {
		err = p.remove(previous)
	}
	if err != nil {
		return fmt.Errorf("put the old program back (%s): %w", p.path(previous), err)
	}
	return errors.New("the old program is back in its place, and was started")
}

// Uninstall stops the service and removes what Install put in place. The state
// directory stays, unless purge: with it the machine goes on as the source server
// that it is when the agent is installed again.
func (p Place) Uninstall(ctx context.Context, purge bool) error {
	s, err := p.Installed()
	if err != nil {
		return err
	}
	if _, err := os.Stat(p.path(unitFile)); err == nil {
		if err := p.systemctl(ctx, "stop", Name); err != nil {
			return err
		}
		if err := p.systemctl(ctx, "disable", Name); err != nil {
			return err
		}
	}
	if err := p.remove(unitFile, Program, previous, Authority, TokenFile, configDir+"/environment"); err != nil {
		return fmt.Errorf("uninstall agent: %w", err)
	}
	if err := p.systemctl(ctx, "daemon-reload"); err != nil {
		return err
	}
	if purge {
		if err := p.purge(s.State); err != nil {
			return fmt.Errorf("uninstall agent: %w", err)
		}
	}
	// The settings last: while they are there, uninstalling can be done again.
	if err := p.remove(settingsFile); err != nil {
		return fmt.Errorf("uninstall agent: %w", err)
	}
	_ = os.Remove(p.path(configDir)) // where the user keeps something there, it stays
	return nil
}

// stateFiles are what an agent keeps in its state directory. Nothing else is
// removed: the user named the directory.
var stateFiles = []string{"identity.json", "disks.json", "lock"}

func (p Place) purge(state string) error {
	files := slices.Clone(stateFiles)
	tables, _ := filepath.Glob(p.path(filepath.Join(state, "*.digests"))) // of a pattern that is right
	for _, path := range tables {
		files = append(files, filepath.Base(path))
	}
	for _, name := range files {
		if err := p.remove(filepath.Join(state, name)); err != nil {
			return err
		}
	}
	if err := os.Remove(p.path(state)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
