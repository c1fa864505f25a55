package drsapi

import (
	"context"

	"lifeboat/internal/drs"
)

type startRecoveryRequest struct {
	SourceServers []startRecoverySourceServer `json:"sourceServers" minItems:"1" maxItems:"200"`
	IsDrill       bool                        `json:"isDrill,omitempty"`
	Tags          drs.Tags                    `json:"tags,omitempty"`
}

type startRecoverySourceServer struct {
	SourceServerID     sourceServerID     `json:"sourceServerID"`
	RecoverySnapshotID recoverySnapshotID `json:"recoverySnapshotID,omitempty"`
}

type startRecoveryResponse struct {
	Job job `json:"job"`
}

// startRecovery launches recovery instances of all servers, or of none when one
// cannot be: the job that it answers is durable and goes on without the caller.
func (c caller) startRecovery(ctx context.Context, in *startRecoveryRequest) (*startRecoveryResponse, error) {
	if err := checkTags(in.Tags, drs.MaxTags); err != nil {
		return nil, err
	}
	started, err := c.Recovery.StartRecovery(ctx, c.account, drs.StartRecovery{
		Drill: in.IsDrill,
		Tags:  tagsOf(in.Tags),
		Servers: mapped(in.SourceServers, func(s startRecoverySourceServer) drs.StartRecoveryServer {
			return drs.StartRecoveryServer{
				SourceServer: drs.SourceServerID(s.SourceServerID), Snapshot: drs.RecoverySnapshotID(s.RecoverySnapshotID),
			}
		}),
	})
	if err != nil {
		return nil, err
	}
	return &startRecoveryResponse{Job: jobOf(started)}, nil
}
