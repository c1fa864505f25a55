package protection

import (
	"context"
	"fmt"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// Stop ends the replication of a server and deletes its recovery points. The agent
// stays installed and asks again now and then.
func (s *Service) Stop(ctx context.Context, account drs.Account, id drs.SourceServerID) (drs.SourceServer, error) {
	server, err := s.end(ctx, account, id, drs.OrderStop, nil)
	if err == nil {
		s.Agents.Pause(id, "replication was stopped by StopReplication; StartReplication starts it again")
		s.kick()
	}
	return server, err
}

// Disconnect ends the protection of a server and deletes its recovery points. Its
// agent is told to end for good, now or when it next asks.
func (s *Service) Disconnect(ctx context.Context, account drs.Account, id drs.SourceServerID) (drs.SourceServer, error) {
	server, err := s.end(ctx, account, id, drs.OrderDisconnect, func(ctx context.Context, tx db.Tx, _ drs.SourceServer) error {
		instances, err := tx.InstancesOf(ctx, id)
		if err != nil {
			return err
		}
		for _, i := range instances {
			if i.Connection == drs.Connected {
				return conflict(id, "Source server %s has the recovery instance %s. Terminate it (TerminateRecoveryInstances), or let it go (DisconnectRecoveryInstance), first.", id, i.ID)
			}
		}
		return nil
	})
	if err == nil {
		s.Agents.Forget(id, Disconnected(id))
		s.kick()
	}
	return server, err
}

// Disconnected tells an agent that its server was disconnected.
func Disconnected(id drs.SourceServerID) string {
	return fmt.Sprintf("source server %s was disconnected from this Lifeboat server; uninstall the agent, or, to protect the machine again, "+
		"start it with an empty --state directory and a fresh install token", id)
}

// end is what Stop and Disconnect have in common. may, if not nil, refuses more.
func (s *Service) end(ctx context.Context, account drs.Account, id drs.SourceServerID, order drs.ReplicationOrder,
	may func(context.Context, db.Tx, drs.SourceServer) error,
) (server drs.SourceServer, err error) {
	release, err := s.orders.hold(ctx, id)
	if err != nil {
		return server, err
	}
	defer release()
	locked, err := s.locked(ctx, id)
	if err != nil {
		return server, err
	}
	err = s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		if server, err = s.server(ctx, tx, account, id); err != nil {
			return err
		}
		if err := s.mayOrder(ctx, tx, server, order); err != nil {
			return err
		}
		if locked != nil && !server.Replication.State.Ended() {
			return locked
		}
		if may != nil {
			if err := may(ctx, tx, server); err != nil {
				return err
			}
		}
		return s.apply(ctx, tx, &server, order, true)
	})
	return server, err
}

// Start begins replication anew, with a full sync.
func (s *Service) Start(ctx context.Context, account drs.Account, id drs.SourceServerID) (drs.SourceServer, error) {
	return s.begin(ctx, account, id, drs.OrderStart)
}

// Retry makes an agent that stalled begin again at once, and replication that was
// ended begin anew.
func (s *Service) Retry(ctx context.Context, account drs.Account, id drs.SourceServerID) (drs.SourceServer, error) {
	return s.begin(ctx, account, id, drs.OrderRetry)
}

// begin is what Start and Retry have in common.
func (s *Service) begin(ctx context.Context, account drs.Account, id drs.SourceServerID, order drs.ReplicationOrder) (server drs.SourceServer, err error) {
	release, err := s.orders.hold(ctx, id)
	if err != nil {
		return server, err
	}
	defer release()
	// Refuse before anything is deleted; the state of an ended server changes by
	// orders alone, and those wait.
	var anew bool
	err = s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		if server, err = s.server(ctx, tx, account, id); err != nil {
			return err
		}
		anew = server.Replication.State.Ended()
		return s.mayOrder(ctx, tx, server, order)
	})
	if err != nil {
		return server, err
	}
	if anew {
		if err := s.vacate(ctx, id); err != nil {
			return server, err
		}
		if err := s.Vault.CreateServer(ctx, id); err != nil {
			return server, fmt.Errorf("make room for %s in the vault: %w", id, err)
		}
	}
	err = s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		if server, err = s.server(ctx, tx, account, id); err != nil {
			return err
		}
		if err := s.mayOrder(ctx, tx, server, order); err != nil {
			return err
		}
		return s.apply(ctx, tx, &server, order, false)
	})
	if err != nil {
		return server, err
	}
	if anew {
		s.Agents.Expect(id, server.Replication)
	} else {
		s.Agents.Restart(id, "RetryDataReplication was called")
	}
	return server, nil
}

// Delete forgets a server that was disconnected, with everything of it. One that
// is extended from another account may go in any state, and its data stays there.
func (s *Service) Delete(ctx context.Context, account drs.Account, id drs.SourceServerID) error {
	release, err := s.orders.hold(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	locked, err := s.locked(ctx, id)
	if err != nil {
		return err
	}
	err = s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		server, err := s.server(ctx, tx, account, id)
		if err != nil {
			return err
		}
		if err := s.idle(ctx, tx, id); err != nil {
			return err
		}
		if !server.Extended() {
			if _, err := drs.OrderDelete.Of(id, server.Replication.State); err != nil {
				return err
			}
			if locked != nil {
				return locked
			}
		}
		instances, err := tx.InstancesOf(ctx, id)
		if err != nil {
			return err
		}
		if len(instances) == 0 && !server.Extended() {
			instances, err = tx.MachinesOn(ctx, id)
		}
		if err != nil {
			return err
		}
		for _, i := range instances {
			return conflict(id, "The machine of recovery instance %s runs on the data of source server %s. Terminate it first (TerminateRecoveryInstances).", i.ID, id)
		}
		plans, err := tx.PlansWith(ctx, id)
		if err != nil {
			return err
		}
		if len(plans) > 0 {
			return conflict(id, "Source server %s is in recovery plan %s. Take it out of the plan first (UpdateRecoveryPlanStep, DeleteRecoveryPlanStep).", id, plans[0])
		}
		return tx.DeleteServer(ctx, server)
	})
	if err != nil {
		return err
	}
	s.Agents.Forget(id, Deleted(id))
	s.kick()
	return nil
}

// Deleted tells an agent that its server was deleted.
func Deleted(id drs.SourceServerID) string {
	return fmt.Sprintf("source server %s does not exist any more; to protect the machine again, start the agent with an empty --state directory and a fresh install token", id)
}

// mayOrder holds what all orders need.
func (s *Service) mayOrder(ctx context.Context, tx db.Tx, server drs.SourceServer, order drs.ReplicationOrder) error {
	if server.Extended() {
		err := drs.Conflict(drs.TypeSourceServer, string(server.ID), "Source server %s is extended from account %s. Its replication is controlled there, as source server %s.",
			server.ID, server.Staging.Account.ID, server.Staging.Server)
		if order == drs.OrderRetry { // the operation has no ConflictException
			return drs.Invalid("sourceServerID", "%s", err.Message)
		}
		return err
	}
	if _, err := order.Of(server.ID, server.Replication.State); err != nil {
		return err
	}
	if order == drs.OrderRetry {
		return nil
	}
	return s.idle(ctx, tx, server.ID)
}

// idle refuses an order about a server that a job is processing.
func (s *Service) idle(ctx context.Context, tx db.Tx, id drs.SourceServerID) error {
	busy, err := tx.Busy(ctx, []drs.SourceServerID{id})
	if job, ok := busy[id]; ok && err == nil {
		return conflict(id, "Source server %s is being processed by job %s. Try again when the job has completed.", id, job)
	}
	return err
}

// apply records the order.
func (s *Service) apply(ctx context.Context, tx db.Tx, server *drs.SourceServer, order drs.ReplicationOrder, emptied bool) error {
	was := server.Replication
	to, err := order.Of(server.ID, was.State)
	if err != nil {
		return err
	}
	if _, err := was.State.Next(to); err != nil {
		return fmt.Errorf("order %s: %w", order, err)
	}
	info := was
	info.State, info.ETA, info.Error = to, time.Time{}, nil
	if to.Ended() || was.State.Ended() {
		info = was.After(to)
	}
	if to == drs.ReplicationInitiating {
		info.Begun, info.Steps = time.Now().UTC(), nil
	}
	server.Replication = info
	s.Log.Info("replication ordered", "server", server.ID, "order", string(order), "from", string(was.State), "to", string(to))
	return tx.OrderReplication(ctx, server.ID, db.Replication{Info: info, Emptied: emptied})
}

// locked returns the refusal to delete a server's points, or nil.
func (s *Service) locked(ctx context.Context, id drs.SourceServerID) (refusal, err error) {
	until, err := s.Vault.LockedUntil(ctx, id)
	if err != nil || !until.After(time.Now()) {
		return nil, err
	}
	return conflict(id, "Recovery snapshots of source server %s are locked until %s and cannot be deleted before.", id, until.UTC().Format(time.RFC3339)), nil
}
