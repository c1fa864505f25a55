package protection

import (
	"context"
	"errors"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// Extend adds a source server to the account that stands for one of a staging
// account: it is replicated there and recovered here, from the same recovery
// points.
func (s *Service) Extend(ctx context.Context, account drs.Account, arn string, tags drs.Tags) (drs.SourceServer, error) {
	of, err := drs.ParseARN(arn)
	if err != nil {
		return drs.SourceServer{}, drs.Invalid("sourceServerArn", "%s.", err)
	}
	switch {
	case of.Account == account:
		return drs.SourceServer{}, drs.Invalid("sourceServerArn", "Source server %s is one of this account already. Name one of a staging account.", of.ID)
	case of.Account.Region != account.Region:
		return drs.SourceServer{}, drs.Invalid("sourceServerArn", "Source server %s is in %s. Only those in %s can be extended to here.", of.ID, of.Account.Region, account.Region)
	}
	if err := s.MayExtend(ctx, of.Account, account); err != nil {
		return drs.SourceServer{}, err
	}
	var out drs.SourceServer
	err = s.DB.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
		staging, err := s.server(ctx, tx, of.Account, drs.SourceServerID(of.ID))
		if err != nil {
			return err
		}
		if staging.Extended() {
			return drs.Invalid("sourceServerArn", "Source server %s is extended itself. Name the one in account %s.", staging.ID, staging.Staging.Account.ID)
		}
		out, err = tx.InsertExtended(ctx, drs.SourceServer{
			Account: account, Tags: tags, AgentVersion: staging.AgentVersion, Properties: staging.Properties,
			ReplicationConfiguration: staging.ReplicationConfiguration,
			Staging:                  drs.Staging{Account: of.Account, Server: staging.ID},
		}, s.Quotas.Of(account).SourceServers)
		if errors.Is(err, db.ErrExtended) {
			return drs.Invalid("sourceServerArn", "Source server %s is extended to this account already. DescribeSourceServers with the filter stagingAccountIDs lists it.", staging.ID)
		}
		return err
	})
	return out, err
}

// MayExtend refuses what a staging account has not agreed to.
func (s *Service) MayExtend(ctx context.Context, staging, account drs.Account) error {
	trusted := false
	if s.Trusts != nil {
		var err error
		if trusted, err = s.Trusts(ctx, staging, account); err != nil {
			return err
		}
	}
	if trusted {
		return nil
	}
	return &drs.Error{
		Kind: drs.KindAccessDenied,
		Message: "Account " + staging.ID + " does not let account " + account.ID + " extend its source servers. " +
			"Let its administrator create the role " + StagingRole(account) + ", with a trust policy that lets account " + account.ID + " assume it.",
	}
}

// StagingRole is the role by which a staging account lets another one extend its
// source servers: it must be there and trust that account.
func StagingRole(target drs.Account) string { return "DRSStagingAccountRole_" + target.ID }
