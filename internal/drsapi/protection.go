package drsapi

import (
	"context"
	"errors"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// sourceServerRequest is the input of the operations that take one server.
type sourceServerRequest struct {
	SourceServerID sourceServerID `json:"sourceServerID"`
}

type sourceServerReply struct {
	SourceServer sourceServer `json:"sourceServer"`
}

// stopReplication deletes the server's recovery points; its agent stays.
func (c caller) stopReplication(ctx context.Context, in *sourceServerRequest) (*sourceServerReply, error) {
	return c.ordered(c.Protection.Stop(ctx, c.account, drs.SourceServerID(in.SourceServerID)))
}

// startReplication begins a full sync.
func (c caller) startReplication(ctx context.Context, in *sourceServerRequest) (*sourceServerReply, error) {
	return c.ordered(c.Protection.Start(ctx, c.account, drs.SourceServerID(in.SourceServerID)))
}

func (c caller) ordered(server drs.SourceServer, err error) (*sourceServerReply, error) {
	if err != nil {
		return nil, err
	}
	return &sourceServerReply{c.sourceServer(server)}, nil
}

// retryDataReplication makes replication that stalled or ended begin again.
func (c caller) retryDataReplication(ctx context.Context, in *sourceServerRequest) (*sourceServer, error) {
	server, err := c.Protection.Retry(ctx, c.account, drs.SourceServerID(in.SourceServerID))
	if err != nil {
		// The operation has no ConflictException.
		var refused *drs.Error
		if errors.As(err, &refused) && refused.Kind == drs.KindConflict {
			return nil, drs.Invalid("sourceServerID", "%s", refused.Message)
		}
		return nil, err
	}
	out := c.sourceServer(server)
	return &out, nil
}

// disconnectSourceServer ends the protection of a server.
func (c caller) disconnectSourceServer(ctx context.Context, in *sourceServerRequest) (*sourceServer, error) {
	server, err := c.Protection.Disconnect(ctx, c.account, drs.SourceServerID(in.SourceServerID))
	if err != nil {
		return nil, err
	}
	out := c.sourceServer(server)
	return &out, nil
}

// deleteSourceServer forgets a server that was disconnected.
func (c caller) deleteSourceServer(ctx context.Context, in *sourceServerRequest) (*nothing, error) {
	return nil, c.Protection.Delete(ctx, c.account, drs.SourceServerID(in.SourceServerID))
}

type createExtendedSourceServerRequest struct {
	SourceServerARN sourceServerARN `json:"sourceServerArn"`
	Tags            drs.Tags        `json:"tags,omitempty"`
}

type listExtensibleSourceServersRequest struct {
	StagingAccountID accountID `json:"stagingAccountID"`
	Paging300
}

type listExtensibleSourceServersResponse struct {
	Items     []stagingSourceServer `json:"items"`
	NextToken paginationToken       `json:"nextToken,omitempty"`
}

type stagingSourceServer struct {
	Hostname string   `json:"hostname"`
	ARN      arn      `json:"arn"`
	Tags     drs.Tags `json:"tags"`
}

type listStagingAccountsRequest struct {
	MaxResults int32           `json:"maxResults,omitempty" in:"query" minimum:"1" maximum:"50"`
	NextToken  paginationToken `json:"nextToken,omitempty" in:"query"`
}

type listStagingAccountsResponse struct {
	Accounts  []stagingAccount `json:"accounts"`
	NextToken paginationToken  `json:"nextToken,omitempty"`
}

type stagingAccount struct {
	AccountID string `json:"accountID"`
}

// createExtendedSourceServer makes a server of another account recoverable in this
// one.
func (c caller) createExtendedSourceServer(ctx context.Context, in *createExtendedSourceServerRequest) (*sourceServerReply, error) {
	if err := checkTags(in.Tags, drs.MaxTags); err != nil {
		return nil, err
	}
	return c.ordered(c.Protection.Extend(ctx, c.account, string(in.SourceServerARN), tagsOf(in.Tags)))
}

// listExtensibleSourceServers lists what createExtendedSourceServer would take of
// an account.
func (c caller) listExtensibleSourceServers(ctx context.Context, in *listExtensibleSourceServersRequest) (*listExtensibleSourceServersResponse, error) {
	staging := drs.Account{ID: string(in.StagingAccountID), Region: c.account.Region}
	if staging == c.account {
		return nil, drs.Invalid("stagingAccountID", "Account %s is this account. Name another one, whose source servers shall be recovered here.", staging.ID)
	}
	if err := c.Protection.MayExtend(ctx, staging, c.account); err != nil {
		return nil, err
	}
	items, next, err := list(c, Paging(in.Paging300), []any{"ListExtensibleSourceServers", staging},
		func(page db.Page) ([]drs.SourceServer, string, error) {
			page.Limit = min(page.Limit, 300)
			return c.DB.Extensible(ctx, staging, c.account, page)
		},
		func(s drs.SourceServer) stagingSourceServer {
			return stagingSourceServer{Hostname: clip(s.Properties.Hostname, boundedLength), ARN: arn(s.ARN()), Tags: tagsOf(s.Tags)}
		})
	if err != nil {
		return nil, err
	}
	return &listExtensibleSourceServersResponse{Items: items, NextToken: next}, nil
}

// listStagingAccounts lists the accounts from which servers are extended to here.
func (c caller) listStagingAccounts(ctx context.Context, in *listStagingAccountsRequest) (*listStagingAccountsResponse, error) {
	items, next, err := list(c, Paging{MaxResults: in.MaxResults, NextToken: in.NextToken}, []any{"ListStagingAccounts"},
		func(page db.Page) ([]string, string, error) {
			page.Limit = min(page.Limit, 50)
			return c.DB.StagingAccounts(ctx, c.account, page)
		},
		func(id string) stagingAccount { return stagingAccount{id} })
	if err != nil {
		return nil, err
	}
	return &listStagingAccountsResponse{Accounts: items, NextToken: next}, nil
}
