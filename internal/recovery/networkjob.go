package recovery

import (
	"context"
	"errors"
	"fmt"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

func newNetworkJob(account drs.Account, by drs.InitiatedBy, tags drs.Tags) drs.Job {
	return drs.Job{
		ID: drs.NewJobID(), Account: account, Type: drs.JobLaunch, Initiated: by, Status: drs.JobPending, Created: now(), Tags: tags,
	}
}

func (s *Service) submitNetworkJob(ctx context.Context, tx db.Tx, job drs.Job) error {
	if err := s.mayRun(ctx, tx, job); err != nil {
		return err
	}
	if err := tx.InsertJob(ctx, job); err != nil {
		return err
	}
	for _, part := range job.Networks {
		n, err := tx.SourceNetwork(ctx, job.Account, part.SourceNetwork)
		if err != nil {
			return err
		}
		n.Last = drs.NetworkRecovery{Job: job.ID, At: job.Created, Result: drs.NetworkInProgress}
		if err := tx.UpdateSourceNetwork(ctx, n); err != nil {
			return err
		}
	}
	return s.enqueue(ctx, tx, job.ID)
}

// networkRun is one network's part in a running job.
type networkRun struct {
	service *Service
	job     drs.Job
	part    drs.ParticipatingNetwork
}

// recoverNetwork is the part of a job that gives one network its machine network
// and makes its servers' launches go there.
func (s *Service) recoverNetwork(ctx context.Context, job drs.Job, part drs.ParticipatingNetwork) error {
	r := networkRun{s, job, part}
	start, end, failed := drs.EventUpdateNetworkStart, drs.EventUpdateNetworkEnd, drs.EventUpdateNetworkFailed
	if part.New {
		start, end, failed = drs.EventDeployNetworkStart, drs.EventDeployNetworkEnd, drs.EventDeployNetworkFailed
	}
	deploys := job.Initiated != drs.AssociatedNetwork
	err := r.step(ctx, func(ctx context.Context, tx db.Tx, n *drs.SourceNetwork) error {
		if err := tx.SetNetworkStatus(ctx, job.ID, part.SourceNetwork, drs.LaunchInProgress); err != nil || !deploys {
			return err
		}
		return r.log(ctx, tx, *n, start, "", "")
	})
	if err == nil {
		err = r.step(ctx, func(ctx context.Context, tx db.Tx, n *drs.SourceNetwork) error {
			stack, err := s.stackFor(ctx, tx, job, part)
			if errors.Is(err, db.ErrAbsent) {
				return r.fail(ctx, tx, n, failed, deploys, fmt.Errorf(
					"the machine network %s is not there any more: restore it, or recover the network with deployAsNew", part.Stack))
			}
			if err != nil {
				return err
			}
			if err := refreshNetwork(ctx, tx, n); err != nil {
				return err
			}
			n.Stack, n.LaunchedVPC = stack.Name, stack.VPC
			if deploys {
				if err := r.log(ctx, tx, *n, end, "", stackText(stack)); err != nil {
					return err
				}
			}
			return r.updateLaunches(ctx, tx, n, stack)
		})
	}
	if errors.Is(err, db.ErrAbsent) {
		return r.gone(ctx)
	}
	return err
}

// stackFor finds the machine network of the part, or makes it.
func (s *Service) stackFor(ctx context.Context, tx db.Tx, job drs.Job, part drs.ParticipatingNetwork) (drs.NetworkStack, error) {
	if !part.New {
		return s.findStack(ctx, tx, job.Account, part.Stack)
	}
	stack := newStack(job.Account, part.Stack)
	return stack, tx.InsertNetworkStack(ctx, stack)
}

// updateLaunches makes the next launches of the network's servers go to the stack.
func (r networkRun) updateLaunches(ctx context.Context, tx db.Tx, n *drs.SourceNetwork, stack drs.NetworkStack) error {
	members, err := tx.NetworkMembers(ctx, *n)
	if err != nil {
		return err
	}
	ids := make([]drs.SourceServerID, 0, len(members))
	for _, m := range members {
		ids = append(ids, m.ID)
	}
	n.Last.Result = drs.NetworkRecovered
	if r.job.Initiated == drs.AssociatedNetwork {
		n.Last.Result = drs.NetworkAssociated
	}
	note := fmt.Sprintf("%d source servers launch into it from now on.", len(ids))
	if len(ids) == 0 {
		note = fmt.Sprintf("No source server is in the network: tag those that are with %s=%s, and recover the network again.", drs.SourceNetworkTag, n.ID)
	}
	for _, err := range []error{
		r.log(ctx, tx, *n, drs.EventUpdateLaunchStart, "", ""),
		tx.SetLaunchNetwork(ctx, stack.Network, ids...),
		r.log(ctx, tx, *n, drs.EventUpdateLaunchEnd, "", note),
		tx.UpdateSourceNetwork(ctx, *n),
		tx.SetNetworkStatus(ctx, r.job.ID, n.ID, drs.LaunchLaunched),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// fail ends the network's part.
func (r networkRun) fail(ctx context.Context, tx db.Tx, n *drs.SourceNetwork, event drs.JobEvent, deploys bool, cause error) error {
	n.Last.Result = drs.NetworkFailed
	if deploys {
		if err := r.log(ctx, tx, *n, event, cause.Error(), ""); err != nil {
			return err
		}
	} else {
		n.Last.Result = drs.NetworkAssociateFailed
	}
	return errors.Join(
		r.log(ctx, tx, *n, drs.EventNetworkRecoveryFail, cause.Error(), ""),
		tx.UpdateSourceNetwork(ctx, *n),
		tx.SetNetworkStatus(ctx, r.job.ID, n.ID, drs.LaunchFailed))
}

// fault ends the part of a network at which this program failed.
func (r networkRun) fault(ctx context.Context, fault any) error {
	event := drs.EventUpdateNetworkFailed
	if r.part.New {
		event = drs.EventDeployNetworkFailed
	}
	err := r.step(ctx, func(ctx context.Context, tx db.Tx, n *drs.SourceNetwork) error {
		return r.fail(ctx, tx, n, event, r.job.Initiated != drs.AssociatedNetwork,
			fmt.Errorf("an internal fault, which the server's log tells more of: %v", fault))
	})
	if errors.Is(err, db.ErrAbsent) {
		return r.gone(ctx)
	}
	return err
}

// gone ends the part of a network that was deleted after the job was submitted.
func (r networkRun) gone(ctx context.Context) error {
	return r.service.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		return errors.Join(
			r.log(ctx, tx, drs.SourceNetwork{ID: r.part.SourceNetwork}, drs.EventNetworkRecoveryFail, "The source network is not there any more.", ""),
			tx.SetNetworkStatus(ctx, r.job.ID, r.part.SourceNetwork, drs.LaunchFailed))
	})
}

func (r networkRun) step(ctx context.Context, f func(context.Context, db.Tx, *drs.SourceNetwork) error) error {
	return r.service.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		n, err := tx.SourceNetwork(ctx, r.job.Account, r.part.SourceNetwork)
		if err != nil {
			return err
		}
		return f(ctx, tx, &n)
	})
}

// log tells a step in the job's log, once however often the step is repeated.
func (r networkRun) log(ctx context.Context, tx db.Tx, n drs.SourceNetwork, event drs.JobEvent, problem, note string) error {
	return tx.Log(ctx, fmt.Sprintf("%s/%s", r.part.SourceNetwork, event), drs.JobLogItem{
		Job: r.job.ID, Time: now(), Event: event, RawError: problem, Note: note,
		Network: &drs.NetworkEvent{SourceNetwork: r.part.SourceNetwork, SourceVPC: n.VPC, TargetVPC: n.LaunchedVPC, Stack: r.part.Stack},
	})
}
