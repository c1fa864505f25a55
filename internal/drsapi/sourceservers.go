package drsapi

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

type describeSourceServersRequest struct {
	Filters describeSourceServersFilters `json:"filters,omitempty"`
	Paging
}

type describeSourceServersFilters struct {
	SourceServerIDs   []sourceServerID `json:"sourceServerIDs,omitempty" maxItems:"200"`
	HardwareID        boundedString    `json:"hardwareId,omitempty"`
	StagingAccountIDs []accountID      `json:"stagingAccountIDs,omitempty" maxItems:"200"`
}

type describeSourceServersResponse struct {
	Items     []written[sourceServer] `json:"items"`
	NextToken paginationToken         `json:"nextToken,omitempty"`
}

func (r *describeSourceServersResponse) pieces() [][]byte { return piecesOf(r.Items, r.NextToken) }

type sourceServer struct {
	SourceServerID       sourceServerID      `json:"sourceServerID"`
	ARN                  arn                 `json:"arn"`
	Tags                 drs.Tags            `json:"tags"`
	RecoveryInstanceID   recoveryInstanceID  `json:"recoveryInstanceId,omitempty"`
	LastLaunchResult     string              `json:"lastLaunchResult,omitempty" enum:"NOT_STARTED,PENDING,SUCCEEDED,FAILED"`
	DataReplicationInfo  dataReplicationInfo `json:"dataReplicationInfo"`
	LifeCycle            lifeCycle           `json:"lifeCycle"`
	SourceProperties     sourceProperties    `json:"sourceProperties"`
	StagingArea          stagingArea         `json:"stagingArea"`
	ReplicationDirection string              `json:"replicationDirection" enum:"FAILOVER,FAILBACK"`
	SourceNetworkID      sourceNetworkID     `json:"sourceNetworkID,omitempty"`
	AgentVersion         string              `json:"agentVersion,omitempty"`
}

// stagingArea says whether the server is extended from another account.
type stagingArea struct {
	Status                 string `json:"status" enum:"EXTENDED,EXTENSION_ERROR,NOT_EXTENDED"`
	StagingAccountID       string `json:"stagingAccountID,omitempty"`
	StagingSourceServerARN string `json:"stagingSourceServerArn,omitempty"`
	ErrorMessage           string `json:"errorMessage,omitempty"`
}

func stagingAreaOf(s drs.SourceServer) stagingArea {
	if !s.Extended() {
		return stagingArea{Status: "NOT_EXTENDED"}
	}
	out := stagingArea{
		Status: "EXTENDED", StagingAccountID: s.Staging.Account.ID, StagingSourceServerARN: s.Staging.ARN(),
		ErrorMessage: clip(s.Staging.Error, largeBoundedLength),
	}
	if s.Staging.Error != "" {
		out.Status = "EXTENSION_ERROR"
	}
	return out
}

type lifeCycle struct {
	AddedToServiceDateTime     timestamp            `json:"addedToServiceDateTime,omitempty"`
	FirstByteDateTime          timestamp            `json:"firstByteDateTime,omitempty"`
	ElapsedReplicationDuration string               `json:"elapsedReplicationDuration,omitempty"`
	LastSeenByServiceDateTime  timestamp            `json:"lastSeenByServiceDateTime,omitempty"`
	LastLaunch                 *lifeCycleLastLaunch `json:"lastLaunch,omitempty"`
}

type lifeCycleLastLaunch struct {
	Initiated lifeCycleLastLaunchInitiated `json:"initiated"`
	Status    string                       `json:"status" enum:"PENDING,IN_PROGRESS,LAUNCHED,FAILED,TERMINATED"`
}

type lifeCycleLastLaunchInitiated struct {
	APICallDateTime timestamp `json:"apiCallDateTime"`
	JobID           jobID     `json:"jobID"`
	Type            string    `json:"type" enum:"RECOVERY,DRILL"`
}

// describeSourceServers lists the servers of the account, oldest first.
func (c caller) describeSourceServers(ctx context.Context, in *describeSourceServersRequest) (*describeSourceServersResponse, error) {
	filter := db.SourceServerFilter{
		IDs:             mapped(in.Filters.SourceServerIDs, func(id sourceServerID) drs.SourceServerID { return drs.SourceServerID(id) }),
		HardwareID:      string(in.Filters.HardwareID),
		StagingAccounts: mapped(in.Filters.StagingAccountIDs, func(id accountID) string { return string(id) }),
	}
	listed, next, err := listRows(c, in.Paging, []any{"DescribeSourceServers", filter},
		func(page db.Page) ([]*db.Listed[drs.SourceServer], string, error) {
			return c.DB.ListSourceServers(ctx, c.account, filter, page)
		})
	if err != nil {
		return nil, err
	}
	for _, l := range listed { // extended ones are shared with nobody
		if err := c.checkExtension(ctx, &l.V); err != nil {
			return nil, err
		}
	}
	items, err := writeAll(listed, c.Now(), asOf, c.sourceServer)
	if err != nil {
		return nil, err
	}
	return &describeSourceServersResponse{Items: items, NextToken: next}, nil
}

// checkExtension says of an extended server whether its staging account still lets
// it be. How one is replicated that does not is not told any more.
func (c caller) checkExtension(ctx context.Context, s *drs.SourceServer) error {
	if !s.Extended() || s.Staging.Error != "" {
		return nil
	}
	err := c.Protection.MayExtend(ctx, s.Staging.Account, c.account)
	var refused *drs.Error
	if errors.As(err, &refused) {
		s.Staging.Error = refused.Message
		s.Replication = s.Replication.After(drs.ReplicationDisconnected)
		return nil
	}
	return err
}

// agentVersion is the form that clients demand of an agent's version.
var agentVersion = regexp.MustCompile(`^[0-9]{1,5}\.[0-9]{1,5}\.[0-9]{1,5}$`)

func (c caller) sourceServer(s drs.SourceServer) sourceServer {
	now := c.Now()
	out := sourceServer{
		SourceServerID:       sourceServerID(s.ID),
		ARN:                  arn(s.ARN()),
		Tags:                 tagsOf(s.Tags),
		RecoveryInstanceID:   recoveryInstanceID(s.RecoveryInstance),
		LastLaunchResult:     string(s.LastLaunchResult),
		DataReplicationInfo:  dataReplicationInfoOf(s.Replication, now),
		LifeCycle:            lifeCycleOf(s.LifeCycle, now),
		SourceProperties:     sourcePropertiesOf(s.Properties),
		StagingArea:          stagingAreaOf(s),
		ReplicationDirection: "FAILOVER",
	}
	if of := s.Tags[drs.SourceNetworkTag]; strings.HasPrefix(of, "sn-") {
		out.SourceNetworkID = sourceNetworkID(clip(of, 20))
	}
	out.SourceProperties.RecommendedInstanceType = c.InstanceType(s.Properties)
	if agentVersion.MatchString(s.AgentVersion) {
		out.AgentVersion = s.AgentVersion
	}
	return out
}

func lifeCycleOf(l drs.LifeCycle, now time.Time) lifeCycle {
	out := lifeCycle{
		AddedToServiceDateTime:    timestampOf(l.AddedToService),
		FirstByteDateTime:         timestampOf(l.FirstByte),
		LastSeenByServiceDateTime: timestampOf(l.LastSeen),
	}
	if !l.FirstByte.IsZero() {
		out.ElapsedReplicationDuration = durationOf(now.Sub(l.FirstByte))
	}
	if last := l.LastLaunch; last != nil {
		kind := "RECOVERY"
		if last.Drill {
			kind = "DRILL"
		}
		out.LastLaunch = &lifeCycleLastLaunch{
			Initiated: lifeCycleLastLaunchInitiated{APICallDateTime: timestampOf(last.Initiated), JobID: jobID(last.Job), Type: kind},
			Status:    string(last.Status),
		}
	}
	return out
}
