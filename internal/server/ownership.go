package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"lifeboat/internal/vault"
)

// ownershipCheck is how often a server looks whether the vault is still its own.
const ownershipCheck = 5 * time.Second

// owner is how this data directory signs the vault.
func (d *DataDir) owner() vault.Owner {
	host, _ := os.Hostname() // it is for people to read
	return vault.Owner{Installation: d.Settings.Installation, Host: host, Since: time.Now().UTC().Truncate(time.Second)}
}

// checkOwner refuses to work on a vault that another data directory owns.
func (d *DataDir) checkOwner(ctx context.Context, store vaultStore) (err error) {
	v, err := vault.Open(ctx, store, d.keys, vault.Options{ReadOnly: true})
	if err != nil {
		return d.explainKey(ctx, store, err)
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	owner, err := v.CurrentOwner(ctx)
	switch {
	case errors.Is(err, vault.ErrAbsent):
		return nil
	case err != nil:
		return err
	case owner.Installation != d.Settings.Installation:
		return &vault.OwnedError{Owner: owner}
	}
	return nil
}

// own takes the vault. One that cannot be written right now must not keep machines
// from being recovered out of it: then ownership is nil, and kept tries again.
func (s *running) own(ctx context.Context) error {
	ownership, err := s.vault.Own(ctx, s.dir.owner(), false)
	var owned *vault.OwnedError
	if errors.As(err, &owned) || errors.Is(err, vault.ErrDisowned) {
		return err
	}
	if err != nil {
		s.Log.Warn("the vault cannot be signed as ours; nothing is folded or deleted until it can", "err", err)
		return nil
	}
	s.ownership.Store(ownership)
	return nil
}

// keepOwnership ends the server when another one took the vault over.
func (s *running) keepOwnership(ctx context.Context) error {
	tick := time.NewTicker(ownershipCheck)
	defer tick.Stop()
	unknown := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := s.checkOwnership(ctx)
		if errors.Is(err, vault.ErrDisowned) {
			return fmt.Errorf("%w: this one stops, so that they do not undo each other's work; to take the vault back, "+
				"stop the other one and start this one again", err)
		}
		if err != nil && !unknown && ctx.Err() == nil {
			s.Log.Warn("cannot look who owns the vault; trying again", "err", err)
		}
		if err == nil && unknown {
			s.Log.Info("the vault is known to be ours again")
		}
		unknown = err != nil
	}
}

// mayRecord is nil while the vault is known to be ours. A server that another one took
// the vault from must not add to the records that the other one began with.
func (s *running) mayRecord(ctx context.Context) error {
	if o := s.ownership.Load(); o != nil {
		return o.Check(ctx)
	}
	return errors.New("the vault is not signed as ours yet")
}

// checkOwnership is nil when the vault is surely ours.
func (s *running) checkOwnership(ctx context.Context) error {
	if o := s.ownership.Load(); o != nil {
		return o.Check(ctx)
	}
	if err := s.own(ctx); err != nil {
		return errors.Join(vault.ErrDisowned, err)
	}
	if s.ownership.Load() == nil {
		return errors.New("the vault cannot be written")
	}
	return nil
}
