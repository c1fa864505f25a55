package recovery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/recovery/cfn"
	"lifeboat/internal/recovery/machine"
)

// CreateSourceNetwork makes a network known; its servers say by a tag that they
// are in it, see drs.SourceNetworkTag.
func (s *Service) CreateSourceNetwork(ctx context.Context, account, origin drs.Account, vpc string, tags drs.Tags) (n drs.SourceNetwork, err error) {
	n = drs.SourceNetwork{
		ID: drs.NewSourceNetworkID(), Account: account, Origin: origin, VPC: vpc, Status: drs.NetworkStopped, Created: now(), Tags: tags,
	}
	return n, s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		count, same, err := tx.HaveNetwork(ctx, n)
		switch {
		case err != nil:
			return err
		case same:
			return drs.Conflict(drs.TypeSourceNetwork, vpc, "There is a source network of %s already. DescribeSourceNetworks lists it.", vpc)
		case count >= s.Quotas.Of(account).SourceNetworks:
			return drs.QuotaExceeded(drs.QuotaSourceNetworks, drs.TypeSourceNetwork, vpc,
				"The account has %d source networks, the most it may have. Delete one that is no longer needed.", count)
		}
		return tx.InsertSourceNetwork(ctx, n)
	})
}

// DeleteSourceNetwork forgets a network whose replication is stopped. What was
// launched into its stack stays there.
func (s *Service) DeleteSourceNetwork(ctx context.Context, account drs.Account, id drs.SourceNetworkID) error {
	_, err := s.editNetwork(ctx, account, id, func(ctx context.Context, tx db.Tx, n *drs.SourceNetwork) error {
		if n.Status != drs.NetworkStopped {
			return networkConflict(id, "Source network %s is %s. Stop its replication first, with StopSourceNetworkReplication.", id, n.Status)
		}
		return tx.DeleteSourceNetwork(ctx, id)
	})
	return err
}

// ReplicateSourceNetwork begins or ends that the network's configuration follows
// its servers.
func (s *Service) ReplicateSourceNetwork(ctx context.Context, account drs.Account, id drs.SourceNetworkID, on bool) (drs.SourceNetwork, error) {
	return s.editNetwork(ctx, account, id, func(ctx context.Context, tx db.Tx, n *drs.SourceNetwork) error {
		to, order := drs.NetworkStopped, "stopped"
		if on {
			to, order = drs.NetworkProtected, "running"
		}
		if (n.Status == drs.NetworkStopped) != on {
			return networkConflict(id, "Replication of source network %s is %s already (%s).", id, order, n.Status)
		}
		var err error
		if n.Status, err = n.Status.Next(to); err != nil {
			return err
		}
		n.StatusDetails = ""
		if err := refreshNetwork(ctx, tx, n); err != nil {
			return err
		}
		return tx.UpdateSourceNetwork(ctx, *n)
	})
}

// ExportSourceNetwork writes the network as a CloudFormation template, which
// db.NetworkTemplate reads from then on.
func (s *Service) ExportSourceNetwork(ctx context.Context, account drs.Account, id drs.SourceNetworkID) error {
	_, err := s.editNetwork(ctx, account, id, func(ctx context.Context, tx db.Tx, n *drs.SourceNetwork) error {
		if err := protected(*n); err != nil {
			return err
		}
		if err := refreshNetwork(ctx, tx, n); err != nil {
			return err
		}
		template, err := cfn.Template(*n)
		if err != nil {
			return err
		}
		return errors.Join(tx.UpdateSourceNetwork(ctx, *n), tx.SetNetworkTemplate(ctx, id, template))
	})
	return err
}

// StartSourceNetworkRecovery creates a job that gives each network its machine
// network, or refuses the whole request. A network that has one keeps it, unless
// the request says otherwise.
func (s *Service) StartSourceNetworkRecovery(ctx context.Context, account drs.Account, r drs.StartNetworkRecovery) (drs.Job, error) {
	job := newNetworkJob(account, drs.UpdatedNetwork, r.Tags)
	err := s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		taken := map[string]drs.SourceNetworkID{}
		for _, want := range r.Networks {
			n, err := s.idleNetwork(ctx, tx, account, want.SourceNetwork)
			var refused *drs.Error
			if errors.As(err, &refused) && refused.Kind == drs.KindNotFound { // the operation has no 404
				return networkConflict(want.SourceNetwork, "Source network %s does not exist in this account and region. DescribeSourceNetworks lists those that do.", want.SourceNetwork)
			}
			if err != nil {
				return err
			}
			if err := protected(n); err != nil {
				return err
			}
			part := drs.ParticipatingNetwork{SourceNetwork: n.ID, Stack: want.Stack, New: n.Stack == "" || r.DeployAsNew, Status: drs.LaunchPending}
			switch {
			case part.Stack == "" && !part.New:
				part.Stack = n.Stack
			case part.Stack == "":
				part.Stack = "drs-" + string(n.ID) + "-" + string(job.ID)[len("drsjob-"):]
			case !part.New && part.Stack != n.Stack:
				return networkConflict(n.ID, "Source network %s has the stack %s. Leave cfnStackName out to update it, or set deployAsNew to make %s.", n.ID, n.Stack, part.Stack)
			}
			if part.New {
				job.Initiated = drs.CreatedNetwork
				if _, err := s.findStack(ctx, tx, account, part.Stack); err == nil {
					return networkConflict(n.ID, "There is a stack named %s already. Choose another cfnStackName, or use AssociateSourceNetworkStack.", part.Stack)
				} else if !errors.Is(err, db.ErrAbsent) {
					return err
				}
			}
			if other, twice := taken[part.Stack]; twice {
				return networkConflict(n.ID, "Stack %s is named for source network %s too. Name another.", part.Stack, other)
			}
			for _, other := range taken {
				if other == n.ID {
					return networkConflict(n.ID, "Source network %s is named twice in the request. Name each network once.", n.ID)
				}
			}
			taken[part.Stack] = n.ID
			job.Networks = append(job.Networks, part)
		}
		return s.submitNetworkJob(ctx, tx, job)
	})
	return job, err
}

// AssociateSourceNetwork creates a job that makes the recovery instances of a
// network go to a machine network that is there: a stack, "isolated", "user", or
// a bridge of this host.
func (s *Service) AssociateSourceNetwork(ctx context.Context, account drs.Account, id drs.SourceNetworkID, stack string) (drs.Job, error) {
	job := newNetworkJob(account, drs.AssociatedNetwork, drs.Tags{})
	err := s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		n, err := s.idleNetwork(ctx, tx, account, id)
		if err != nil {
			return err
		}
		if _, err := s.findStack(ctx, tx, account, stack); errors.Is(err, db.ErrAbsent) {
			return drs.Invalid("cfnStackName", "There is no stack named %s that this account may use. Name one that StartSourceNetworkRecovery made, %q, or a network of the server's host "+
				"(%q, a bridge interface) that its operator lets the account use: docs/drs-compatibility.md tells how.",
				stack, machine.Isolated, machine.UserNAT)
		} else if err != nil {
			return err
		}
		job.Networks = []drs.ParticipatingNetwork{{SourceNetwork: n.ID, Stack: stack, Status: drs.LaunchPending}}
		return s.submitNetworkJob(ctx, tx, job)
	})
	return job, err
}

// findStack returns the machine network of that name, or db.ErrAbsent: one that
// was made, or one that is there anyway.
func (s *Service) findStack(ctx context.Context, tx db.Tx, account drs.Account, name string) (drs.NetworkStack, error) {
	stack, err := tx.NetworkStack(ctx, account, name)
	if !errors.Is(err, db.ErrAbsent) {
		return stack, err
	}
	network := machine.Network(name)
	if network != machine.Isolated && network != machine.UserNAT {
		if network = machine.Bridge(name); !isBridge(name) {
			return drs.NetworkStack{}, err
		}
	}
	if !s.mayUse(account, network) {
		return drs.NetworkStack{}, err
	}
	stack = newStack(account, name)
	stack.Network = string(network)
	return stack, nil
}

// mayUse tells whether recoveries of the account may go to a network: its segments
// and the one that reaches nobody are open to all, and so is the one to which
// recoveries go anyway.
func (s *Service) mayUse(account drs.Account, n machine.Network) bool {
	return !n.Leads() || n == s.RecoveryNetwork || s.MayLead != nil && s.MayLead(account, n)
}

// newStack is a segment of the account's own, by the name of the stack. VPC and
// segment follow from account and name, so that making it again makes the same.
func newStack(account drs.Account, name string) drs.NetworkStack {
	sum := sha256.Sum256([]byte("lifeboat stack " + account.ID + "/" + account.Region + "/" + name))
	digits := hex.EncodeToString(sum[:])
	return drs.NetworkStack{
		Account: account, Name: name, VPC: "vpc-" + digits[:17], Network: string(machine.Segment(digits[:32])), Created: now(),
	}
}

func isBridge(name string) bool {
	if _, err := machine.ParseNetwork(string(machine.Bridge(name))); err != nil {
		return false
	}
	if _, err := net.InterfaceByName(name); err != nil {
		return false
	}
	_, err := os.Stat("/sys/class/net/" + name + "/bridge")
	return err == nil
}

func (s *Service) editNetwork(ctx context.Context, account drs.Account, id drs.SourceNetworkID, f func(context.Context, db.Tx, *drs.SourceNetwork) error) (n drs.SourceNetwork, err error) {
	err = s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		if n, err = s.idleNetwork(ctx, tx, account, id); err != nil {
			return err
		}
		return f(ctx, tx, &n)
	})
	return n, err
}

// idleNetwork finds a network that no job works on.
func (s *Service) idleNetwork(ctx context.Context, tx db.Tx, account drs.Account, id drs.SourceNetworkID) (drs.SourceNetwork, error) {
	n, err := tx.SourceNetwork(ctx, account, id)
	if errors.Is(err, db.ErrAbsent) {
		return n, drs.NotFound(drs.TypeSourceNetwork, string(id))
	}
	if err != nil {
		return n, err
	}
	job, err := tx.NetworkBusy(ctx, id)
	if err == nil && job != "" {
		err = networkConflict(id, "Source network %s is being processed by job %s. Wait until it has completed.", id, job)
	}
	return n, err
}

func protected(n drs.SourceNetwork) error {
	if n.Status == drs.NetworkProtected {
		return nil
	}
	return networkConflict(n.ID, "Source network %s is %s, not PROTECTED: nothing is known of it yet. Start its replication with StartSourceNetworkReplication.", n.ID, n.Status)
}

// refreshNetwork brings the configuration of a protected network in line with its
// servers; that of a stopped one stays as it was.
func refreshNetwork(ctx context.Context, tx db.Tx, n *drs.SourceNetwork) error {
	if n.Status != drs.NetworkProtected {
		return nil
	}
	members, err := tx.NetworkMembers(ctx, *n)
	if err != nil {
		return err
	}
	n.Configuration.Servers = nil
	for _, m := range members {
		n.Configuration.Servers = append(n.Configuration.Servers, drs.NetworkServer{
			SourceServer: m.ID, Hostname: m.Properties.Hostname, Interfaces: m.Properties.NetworkInterfaces,
		})
	}
	return nil
}

func networkConflict(id drs.SourceNetworkID, format string, args ...any) error {
	return drs.Conflict(drs.TypeSourceNetwork, string(id), format, args...)
}

// networkOf is what the machine of an instance is plugged into: what the recovery
// of its server's network chose, or else the server's own choice. A drill is
// never let out by the former.
func (s *Service) networkOf(server drs.SourceServer, drill bool) (machine.Network, error) {
	own := s.RecoveryNetwork
	if drill {
		own = s.DrillNetwork
	}
	if server.LaunchConfiguration.Network == "" {
		return own, nil
	}
	chosen, err := machine.ParseNetwork(server.LaunchConfiguration.Network)
	if err != nil {
		return "", fmt.Errorf("%w: recover the server's source network again", err)
	}
	if drill && chosen.Leads() {
		return own, nil
	}
	if !s.mayUse(server.Account, chosen) {
		return "", fmt.Errorf("the account may not use the network %s (any more): associate the server's source network with another stack, or let the account use it", chosen)
	}
	return chosen, nil
}

// stackText is what a log says of a stack.
func stackText(stack drs.NetworkStack) string {
	return fmt.Sprintf("Machines are plugged into the network %s.", strings.TrimSpace(stack.Network))
}
