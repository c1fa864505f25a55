package drsapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// Networks is who knows source networks and recovers them. It refuses with
// *drs.Error; a job that it returns is durable and will run.
type Networks interface {
	CreateSourceNetwork(ctx context.Context, account, origin drs.Account, vpc string, tags drs.Tags) (drs.SourceNetwork, error)
	DeleteSourceNetwork(context.Context, drs.Account, drs.SourceNetworkID) error
	ReplicateSourceNetwork(ctx context.Context, account drs.Account, id drs.SourceNetworkID, on bool) (drs.SourceNetwork, error)
	StartSourceNetworkRecovery(context.Context, drs.Account, drs.StartNetworkRecovery) (drs.Job, error)
	AssociateSourceNetwork(ctx context.Context, account drs.Account, id drs.SourceNetworkID, stack string) (drs.Job, error)
	// ExportSourceNetwork makes the network's template readable at TemplatePath.
	ExportSourceNetwork(context.Context, drs.Account, drs.SourceNetworkID) error
}

// TemplatePath is where, beside the API, the exported template of a source network
// is read.
func TemplatePath(id drs.SourceNetworkID) string {
	return "/lifeboat/v1/source-networks/" + string(id) + "/template.json"
}

func (a *API) registerNetworks() {
	one := on(drs.TypeSourceNetwork, "sourceNetworkID")
	add(a, operation{name: "CreateSourceNetwork", status: http.StatusCreated, access: onAnything().creating(drs.TypeSourceNetwork)}, caller.createSourceNetwork)
	add(a, operation{name: "DescribeSourceNetworks", access: onAnything()}, caller.describeSourceNetworks)
	add(a, operation{name: "DeleteSourceNetwork", status: http.StatusNoContent, access: one}, caller.deleteSourceNetwork)
	add(a, operation{name: "StartSourceNetworkReplication", access: one}, caller.startSourceNetworkReplication)
	add(a, operation{name: "StopSourceNetworkReplication", access: one}, caller.stopSourceNetworkReplication)
	add(a, operation{name: "StartSourceNetworkRecovery", status: http.StatusAccepted,
		access: on(drs.TypeSourceNetwork, "sourceNetworks.sourceNetworkID").creating(drs.TypeJob)}, caller.startSourceNetworkRecovery)
	add(a, operation{name: "AssociateSourceNetworkStack", status: http.StatusAccepted, access: one}, caller.associateSourceNetworkStack)
	add(a, operation{name: "ExportSourceNetworkCfnTemplate", access: one}, caller.exportSourceNetworkCfnTemplate)
}

type (
	sourceNetworkID string
	vpcID           string
	regionName      string
	stackName       string
)

func (sourceNetworkID) Schema(huma.Registry) *huma.Schema {
	return text(20, 20, `sn-[0-9a-zA-Z]{17}`)
}
func (vpcID) Schema(huma.Registry) *huma.Schema { return text(12, 21, `vpc-[0-9a-fA-F]{8,}`) }
func (regionName) Schema(huma.Registry) *huma.Schema {
	return text(0, 255, `(us(-gov)?|ap|ca|cn|eu|eusc|sa|af|me|mx|il)-([a-z]{2}-)?(central|north|(north(?:east|west))|south|south(?:east|west)|east|west)-[0-9]`)
}
func (stackName) Schema(huma.Registry) *huma.Schema { return text(1, 128, `[a-zA-Z][-a-zA-Z0-9]*`) }

type createSourceNetworkRequest struct {
	VPCID           vpcID      `json:"vpcID"`
	OriginAccountID accountID  `json:"originAccountID"`
	OriginRegion    regionName `json:"originRegion"`
	Tags            drs.Tags   `json:"tags,omitempty"`
}

type createSourceNetworkResponse struct {
	SourceNetworkID sourceNetworkID `json:"sourceNetworkID"`
}

type sourceNetworkRequest struct {
	SourceNetworkID sourceNetworkID `json:"sourceNetworkID"`
}

type sourceNetworkResponse struct {
	SourceNetwork sourceNetwork `json:"sourceNetwork"`
}

type describeSourceNetworksRequest struct {
	Filters describeSourceNetworksFilters `json:"filters,omitempty"`
	Paging
}

type describeSourceNetworksFilters struct {
	SourceNetworkIDs []sourceNetworkID `json:"sourceNetworkIDs,omitempty" maxItems:"100"`
	OriginAccountID  accountID         `json:"originAccountID,omitempty"`
	OriginRegion     regionName        `json:"originRegion,omitempty"`
}

type describeSourceNetworksResponse struct {
	Items     []sourceNetwork `json:"items"`
	NextToken paginationToken `json:"nextToken,omitempty"`
}

type startSourceNetworkRecoveryRequest struct {
	SourceNetworks []startSourceNetworkRecoveryEntry `json:"sourceNetworks" minItems:"1" maxItems:"100"`
	DeployAsNew    bool                              `json:"deployAsNew,omitempty"`
	Tags           drs.Tags                          `json:"tags,omitempty"`
}

type startSourceNetworkRecoveryEntry struct {
	SourceNetworkID sourceNetworkID `json:"sourceNetworkID"`
	CfnStackName    stackName       `json:"cfnStackName,omitempty"`
}

type associateSourceNetworkStackRequest struct {
	SourceNetworkID sourceNetworkID `json:"sourceNetworkID"`
	CfnStackName    stackName       `json:"cfnStackName"`
}

type networkJobResponse struct {
	Job job `json:"job"`
}

type exportSourceNetworkCfnTemplateResponse struct {
	S3DestinationURL string `json:"s3DestinationUrl"`
}

type sourceNetwork struct {
	SourceNetworkID          sourceNetworkID   `json:"sourceNetworkID"`
	SourceVPCID              vpcID             `json:"sourceVpcID"`
	ARN                      arn               `json:"arn"`
	Tags                     drs.Tags          `json:"tags"`
	ReplicationStatus        string            `json:"replicationStatus" enum:"STOPPED,IN_PROGRESS,PROTECTED,ERROR"`
	ReplicationStatusDetails boundedString     `json:"replicationStatusDetails,omitempty"`
	CfnStackName             stackName         `json:"cfnStackName,omitempty"`
	SourceRegion             regionName        `json:"sourceRegion"`
	SourceAccountID          accountID         `json:"sourceAccountID"`
	LastRecovery             recoveryLifeCycle `json:"lastRecovery"`
	LaunchedVPCID            vpcID             `json:"launchedVpcID,omitempty"`
}

// recoveryLifeCycle is the one place where the model has a real timestamp.
type recoveryLifeCycle struct {
	APICallDateTime    timestamp `json:"apiCallDateTime,omitempty"`
	JobID              jobID     `json:"jobID,omitempty"`
	LastRecoveryResult string    `json:"lastRecoveryResult" enum:"NOT_STARTED,IN_PROGRESS,SUCCESS,FAIL,PARTIAL_SUCCESS,ASSOCIATE_SUCCESS,ASSOCIATE_FAIL"`
}

func sourceNetworkOf(n drs.SourceNetwork) sourceNetwork {
	out := sourceNetwork{
		SourceNetworkID: sourceNetworkID(n.ID), SourceVPCID: vpcID(n.VPC), ARN: arn(n.ARN()), Tags: tagsOf(n.Tags),
		ReplicationStatus: string(n.Status), ReplicationStatusDetails: boundedString(clip(n.StatusDetails, boundedLength)),
		CfnStackName: stackName(n.Stack), SourceRegion: regionName(n.Origin.Region), SourceAccountID: accountID(n.Origin.ID),
		LaunchedVPCID: vpcID(n.LaunchedVPC),
		LastRecovery: recoveryLifeCycle{
			APICallDateTime: timestampOf(n.Last.At), JobID: jobID(n.Last.Job), LastRecoveryResult: string(n.Last.Result),
		},
	}
	if n.Last.Result == "" {
		out.LastRecovery.LastRecoveryResult = string(drs.NetworkNotRecovered)
	}
	return out
}

func (c caller) createSourceNetwork(ctx context.Context, in *createSourceNetworkRequest) (*createSourceNetworkResponse, error) {
	if err := checkTags(in.Tags, drs.MaxTags); err != nil {
		return nil, err
	}
	origin := drs.Account{ID: string(in.OriginAccountID), Region: string(in.OriginRegion)}
	n, err := c.Networks.CreateSourceNetwork(ctx, c.account, origin, string(in.VPCID), tagsOf(in.Tags))
	if err != nil {
		return nil, err
	}
	return &createSourceNetworkResponse{sourceNetworkID(n.ID)}, nil
}

func (c caller) deleteSourceNetwork(ctx context.Context, in *sourceNetworkRequest) (*nothing, error) {
	return nil, c.Networks.DeleteSourceNetwork(ctx, c.account, drs.SourceNetworkID(in.SourceNetworkID))
}

// describeSourceNetworks lists the networks of the account, oldest first.
func (c caller) describeSourceNetworks(ctx context.Context, in *describeSourceNetworksRequest) (*describeSourceNetworksResponse, error) {
	filter := db.SourceNetworkFilter{
		IDs:    mapped(in.Filters.SourceNetworkIDs, func(id sourceNetworkID) drs.SourceNetworkID { return drs.SourceNetworkID(id) }),
		Origin: drs.Account{ID: string(in.Filters.OriginAccountID), Region: string(in.Filters.OriginRegion)},
	}
	items, next, err := list(c, in.Paging, []any{"DescribeSourceNetworks", filter},
		func(page db.Page) ([]drs.SourceNetwork, string, error) {
			return c.DB.SourceNetworks(ctx, c.account, filter, page)
		}, sourceNetworkOf)
	if err != nil {
		return nil, err
	}
	return &describeSourceNetworksResponse{Items: items, NextToken: next}, nil
}

func (c caller) startSourceNetworkReplication(ctx context.Context, in *sourceNetworkRequest) (*sourceNetworkResponse, error) {
	n, err := c.Networks.ReplicateSourceNetwork(ctx, c.account, drs.SourceNetworkID(in.SourceNetworkID), true)
	if err != nil {
		return nil, err
	}
	return &sourceNetworkResponse{sourceNetworkOf(n)}, nil
}

func (c caller) stopSourceNetworkReplication(ctx context.Context, in *sourceNetworkRequest) (*sourceNetworkResponse, error) {
	n, err := c.Networks.ReplicateSourceNetwork(ctx, c.account, drs.SourceNetworkID(in.SourceNetworkID), false)
	if err != nil {
		return nil, err
	}
	return &sourceNetworkResponse{sourceNetworkOf(n)}, nil
}

// startSourceNetworkRecovery gives networks their machine network, by a job.
func (c caller) startSourceNetworkRecovery(ctx context.Context, in *startSourceNetworkRecoveryRequest) (*networkJobResponse, error) {
	if err := checkTags(in.Tags, drs.MaxTags); err != nil {
		return nil, err
	}
	started, err := c.Networks.StartSourceNetworkRecovery(ctx, c.account, drs.StartNetworkRecovery{
		DeployAsNew: in.DeployAsNew, Tags: tagsOf(in.Tags),
		Networks: mapped(in.SourceNetworks, func(e startSourceNetworkRecoveryEntry) drs.ParticipatingNetwork {
			return drs.ParticipatingNetwork{SourceNetwork: drs.SourceNetworkID(e.SourceNetworkID), Stack: string(e.CfnStackName)}
		}),
	})
	if err != nil {
		return nil, err
	}
	return &networkJobResponse{jobOf(started)}, nil
}

func (c caller) associateSourceNetworkStack(ctx context.Context, in *associateSourceNetworkStackRequest) (*networkJobResponse, error) {
	started, err := c.Networks.AssociateSourceNetwork(ctx, c.account, drs.SourceNetworkID(in.SourceNetworkID), string(in.CfnStackName))
	if err != nil {
		return nil, err
	}
	return &networkJobResponse{jobOf(started)}, nil
}

// exportSourceNetworkCfnTemplate answers where the template is read: here, for
// there is no bucket.
func (c caller) exportSourceNetworkCfnTemplate(ctx context.Context, in *sourceNetworkRequest) (*exportSourceNetworkCfnTemplateResponse, error) {
	id := drs.SourceNetworkID(in.SourceNetworkID)
	if err := c.Networks.ExportSourceNetwork(ctx, c.account, id); err != nil {
		return nil, err
	}
	return &exportSourceNetworkCfnTemplateResponse{clip("https://"+c.host+TemplatePath(id), largeBoundedLength)}, nil
}
