package recovery

import (
	"context"
	"errors"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// DisconnectInstance ends what the service has to do with an instance: its machine
// runs on, it stays listed, and its source server may be disconnected. Again does
// nothing.
func (s *Service) DisconnectInstance(ctx context.Context, account drs.Account, id drs.RecoveryInstanceID) error {
	return s.connection(ctx, account, id, func(i drs.RecoveryInstance) (drs.Connection, error) { return drs.Disconnected, nil })
}

// ReleaseInstance takes a disconnected instance off the list. Its machine runs on,
// and its disks are served, until it is terminated or its server is launched again.
func (s *Service) ReleaseInstance(ctx context.Context, account drs.Account, id drs.RecoveryInstanceID) error {
	return s.connection(ctx, account, id, func(i drs.RecoveryInstance) (drs.Connection, error) {
		if i.Connection == drs.Connected {
			return "", drs.Conflict(drs.TypeRecoveryInstance, string(id),
				"Recovery instance %s is connected. Disconnect it (DisconnectRecoveryInstance) before its record is deleted.", id)
		}
		return drs.Released, nil
	})
}

// connection moves an instance on that no job is processing.
func (s *Service) connection(ctx context.Context, account drs.Account, id drs.RecoveryInstanceID, to func(drs.RecoveryInstance) (drs.Connection, error)) error {
	return s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		found, err := tx.InstancesByID(ctx, account, []drs.RecoveryInstanceID{id})
		if err != nil {
			return err
		}
		if len(found) == 0 || found[0].Connection == drs.Released {
			return drs.NotFound(drs.TypeRecoveryInstance, string(id))
		}
		busy, err := tx.Busy(ctx, []drs.SourceServerID{found[0].SourceServer})
		if err != nil {
			return err
		}
		if job, ok := busy[found[0].SourceServer]; ok {
			return drs.Conflict(drs.TypeRecoveryInstance, string(id),
				"The source server of recovery instance %s is being processed by job %s. Try again when the job has completed.", id, job)
		}
		next, err := to(found[0])
		if err != nil {
			return err
		}
		if next == drs.Released {
			server, err := tx.SourceServer(ctx, account, found[0].SourceServer)
			if err != nil && !errors.Is(err, db.ErrAbsent) {
				return err
			}
			if err == nil && server.RecoveryInstance == id {
				if err := tx.SetRecoveryInstance(ctx, server.ID, ""); err != nil {
					return err
				}
			}
		}
		return tx.SetConnection(ctx, id, next)
	})
}
