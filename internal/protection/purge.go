package protection

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lifeboat/internal/drs"
)

// purgeEvery is how often data that could not be deleted is tried again: a machine
// that ran on it may be gone, a lock may have run out.
const purgeEvery = 30 * time.Second

// Run deletes the data that orders left without an owner, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	ticker := time.NewTicker(purgeEvery)
	defer ticker.Stop()
	for {
		s.purgeAll(ctx)
		select {
		case <-ticker.C:
		case <-s.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Service) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Service) purgeAll(ctx context.Context) {
	ids, err := s.DB.Purges(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.Log.Error("data to delete is not known", "err", err)
		}
		return
	}
	for _, id := range ids {
		err := s.purge(ctx, id)
		var waits *drs.Error
		switch {
		case ctx.Err() != nil:
			return
		case errors.As(err, &waits):
			s.Log.Debug("data of a server waits to be deleted", "server", id, "reason", waits.Message)
		case err != nil:
			s.Log.Error("data of a server was not deleted and will be tried again", "server", id, "err", err)
		}
	}
}

func (s *Service) purge(ctx context.Context, id drs.SourceServerID) error {
	release, err := s.orders.hold(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	return s.vacate(ctx, id)
}

// vacate deletes a server's data where that was requested, or refuses. The caller
// holds the server's orders.
func (s *Service) vacate(ctx context.Context, id drs.SourceServerID) error {
	requested, inUse, err := s.DB.MayPurge(ctx, id)
	if err != nil || !requested {
		return err
	}
	for _, i := range inUse {
		return conflict(id, "The machine of recovery instance %s runs on the old data of source server %s, which a new start replaces. "+
			"Terminate it first (TerminateRecoveryInstances).", i.ID, id)
	}
	locked, err := s.locked(ctx, id)
	if err != nil {
		return err
	}
	if locked != nil {
		return locked
	}
	if err := s.Vault.DropServer(ctx, id); err != nil {
		return fmt.Errorf("delete the data of %s: %w", id, err)
	}
	s.Log.Info("data of a server is deleted", "server", id)
	return s.DB.Purged(ctx, id)
}
