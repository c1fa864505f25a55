package drsapi

import (
	"context"
	"errors"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

type describeJobsRequest struct {
	Filters describeJobsFilters `json:"filters,omitempty"`
	Paging
}

type describeJobsFilters struct {
	JobIDs   []jobID   `json:"jobIDs,omitempty" maxItems:"1000"`
	FromDate timestamp `json:"fromDate,omitempty"`
	ToDate   timestamp `json:"toDate,omitempty"`
}

type describeJobsResponse struct {
	Items     []written[job]  `json:"items"`
	NextToken paginationToken `json:"nextToken,omitempty"`
}

func (r *describeJobsResponse) pieces() [][]byte { return piecesOf(r.Items, r.NextToken) }

type job struct {
	JobID                  jobID                   `json:"jobID"`
	ARN                    arn                     `json:"arn"`
	Type                   string                  `json:"type" enum:"LAUNCH,TERMINATE,CREATE_CONVERTED_SNAPSHOT"`
	InitiatedBy            string                  `json:"initiatedBy" enum:"START_RECOVERY,START_DRILL,FAILBACK,DIAGNOSTIC,TERMINATE_RECOVERY_INSTANCES,TARGET_ACCOUNT,CREATE_NETWORK_RECOVERY,UPDATE_NETWORK_RECOVERY,ASSOCIATE_NETWORK_RECOVERY"`
	CreationDateTime       timestamp               `json:"creationDateTime"`
	EndDateTime            timestamp               `json:"endDateTime,omitempty"`
	Status                 string                  `json:"status" enum:"PENDING,STARTED,COMPLETED"`
	ParticipatingServers   []participatingServer   `json:"participatingServers"`
	Tags                   drs.Tags                `json:"tags"`
	ParticipatingResources []participatingResource `json:"participatingResources"`
}

type participatingServer struct {
	SourceServerID     sourceServerID     `json:"sourceServerID"`
	RecoveryInstanceID recoveryInstanceID `json:"recoveryInstanceID,omitempty"`
	LaunchStatus       string             `json:"launchStatus" enum:"PENDING,IN_PROGRESS,LAUNCHED,FAILED,TERMINATED"`
	// LaunchActionsStatus is there once the launch got to its actions.
	LaunchActionsStatus *launchActionsStatus `json:"launchActionsStatus,omitempty"`
}

type launchActionsStatus struct {
	Runs []launchActionRun `json:"runs"`
}

type launchActionRun struct {
	Action        launchAction `json:"action"`
	RunID         string       `json:"runId"`
	Status        string       `json:"status" enum:"IN_PROGRESS,SUCCEEDED,FAILED"`
	FailureReason string       `json:"failureReason,omitempty"`
}

// participatingResource is a source network in a job.
type participatingResource struct {
	ParticipatingResourceID participatingResourceID `json:"participatingResourceID"`
	LaunchStatus            string                  `json:"launchStatus" enum:"PENDING,IN_PROGRESS,LAUNCHED,FAILED,TERMINATED"`
}

type participatingResourceID struct {
	SourceNetworkID sourceNetworkID `json:"sourceNetworkID"`
}

// describeJobs lists the jobs of the account, newest first.
func (c caller) describeJobs(ctx context.Context, in *describeJobsRequest) (*describeJobsResponse, error) {
	from, err := in.Filters.FromDate.time("filters.fromDate")
	if err != nil {
		return nil, err
	}
	to, err := in.Filters.ToDate.time("filters.toDate")
	if err != nil {
		return nil, err
	}
	filter := db.JobFilter{
		IDs:  mapped(in.Filters.JobIDs, func(id jobID) drs.JobID { return drs.JobID(id) }),
		From: from, To: to,
	}
	listed, next, err := listRows(c, in.Paging, []any{"DescribeJobs", filter},
		func(page db.Page) ([]*db.Listed[drs.Job], string, error) {
			return c.DB.ListJobs(ctx, c.account, filter, page)
		})
	if err != nil {
		return nil, err
	}
	items, err := writeAll(listed, c.Now(), 0, jobOf)
	if err != nil {
		return nil, err
	}
	return &describeJobsResponse{Items: items, NextToken: next}, nil
}

func jobOf(j drs.Job) job {
	return job{
		JobID:            jobID(j.ID),
		ARN:              arn(j.ARN()),
		Type:             string(j.Type),
		InitiatedBy:      string(j.Initiated),
		CreationDateTime: timestampOf(j.Created),
		EndDateTime:      timestampOf(j.Ended),
		Status:           string(j.Status),
		ParticipatingServers: mapped(j.Servers, func(s drs.ParticipatingServer) participatingServer {
			return participatingServer{
				SourceServerID: sourceServerID(s.SourceServer), RecoveryInstanceID: recoveryInstanceID(s.Instance),
				LaunchStatus: string(s.Status), LaunchActionsStatus: launchActionsStatusOf(s.Actions),
			}
		}),
		Tags: tagsOf(j.Tags),
		ParticipatingResources: mapped(j.Networks, func(n drs.ParticipatingNetwork) participatingResource {
			return participatingResource{participatingResourceID{sourceNetworkID(n.SourceNetwork)}, string(n.Status)}
		}),
	}
}

func launchActionsStatusOf(runs []drs.LaunchActionRun) *launchActionsStatus {
	if len(runs) == 0 {
		return nil
	}
	return &launchActionsStatus{mapped(runs, func(r drs.LaunchActionRun) launchActionRun {
		return launchActionRun{Action: launchActionOf(r.Action), RunID: r.ID, Status: string(r.Status), FailureReason: clip(r.Reason, boundedLength)}
	})}
}

type deleteJobRequest struct {
	JobID jobID `json:"jobID"`
}

// deleteJob forgets a job that has completed, with its log.
func (c caller) deleteJob(ctx context.Context, in *deleteJobRequest) (*nothing, error) {
	err := c.DB.DeleteJob(ctx, c.account, drs.JobID(in.JobID))
	if errors.Is(err, db.ErrAbsent) {
		return nil, drs.NotFound(drs.TypeJob, string(in.JobID))
	}
	return nil, err
}
