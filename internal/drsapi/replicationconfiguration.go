package drsapi

import (
	"context"
	"errors"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

type getReplicationConfigurationRequest struct {
	SourceServerID sourceServerID `json:"sourceServerID"`
}

type replicationConfiguration struct {
	SourceServerID                     sourceServerID   `json:"sourceServerID"`
	Name                               string           `json:"name"`
	StagingAreaSubnetID                string           `json:"stagingAreaSubnetId,omitempty"`
	AssociateDefaultSecurityGroup      bool             `json:"associateDefaultSecurityGroup"`
	ReplicationServersSecurityGroupIDs []string         `json:"replicationServersSecurityGroupsIDs"`
	ReplicationServerInstanceType      string           `json:"replicationServerInstanceType"`
	UseDedicatedReplicationServer      bool             `json:"useDedicatedReplicationServer"`
	DefaultLargeStagingDiskType        string           `json:"defaultLargeStagingDiskType" enum:"GP2,GP3,ST1,AUTO"`
	ReplicatedDisks                    []configuredDisk `json:"replicatedDisks"`
	EBSEncryption                      string           `json:"ebsEncryption" enum:"DEFAULT,CUSTOM,NONE"`
	EBSEncryptionKeyARN                string           `json:"ebsEncryptionKeyArn,omitempty"`
	BandwidthThrottling                int64            `json:"bandwidthThrottling"`
	DataPlaneRouting                   string           `json:"dataPlaneRouting" enum:"PRIVATE_IP,PUBLIC_IP"`
	CreatePublicIP                     bool             `json:"createPublicIP"`
	StagingAreaTags                    drs.Tags         `json:"stagingAreaTags"`
	PITPolicy                          []pitPolicyRule  `json:"pitPolicy"`
	AutoReplicateNewDisks              bool             `json:"autoReplicateNewDisks"`
	InternetProtocol                   string           `json:"internetProtocol" enum:"IPV4,IPV6"`
}

type configuredDisk struct {
	DeviceName      string `json:"deviceName"`
	IsBootDisk      bool   `json:"isBootDisk"`
	StagingDiskType string `json:"stagingDiskType" enum:"AUTO,GP2,GP3,IO1,SC1,ST1,STANDARD"`
}

type pitPolicyRule struct {
	RuleID            int64  `json:"ruleID"`
	Units             string `json:"units" enum:"MINUTE,HOUR,DAY"`
	Interval          int64  `json:"interval"`
	RetentionDuration int64  `json:"retentionDuration"`
	Enabled           bool   `json:"enabled"`
}

func (c caller) getReplicationConfiguration(ctx context.Context, in *getReplicationConfigurationRequest) (*replicationConfiguration, error) {
	server, err := c.existingServer(ctx, in.SourceServerID)
	if err != nil {
		return nil, err
	}
	r := server.ReplicationConfiguration
	out := &replicationConfiguration{
		SourceServerID:                     in.SourceServerID,
		Name:                               r.Name,
		StagingAreaSubnetID:                r.StagingAreaSubnetID,
		AssociateDefaultSecurityGroup:      r.AssociateDefaultSecurityGroup,
		ReplicationServersSecurityGroupIDs: mapped(r.SecurityGroupIDs, func(id string) string { return id }),
		ReplicationServerInstanceType:      r.ReplicationServerInstanceType,
		UseDedicatedReplicationServer:      r.UseDedicatedReplicationServer,
		DefaultLargeStagingDiskType:        r.DefaultLargeStagingDiskType,
		EBSEncryption:                      r.EBSEncryption,
		EBSEncryptionKeyARN:                r.EBSEncryptionKeyARN,
		BandwidthThrottling:                r.BandwidthThrottlingMbps,
		DataPlaneRouting:                   r.DataPlaneRouting,
		CreatePublicIP:                     r.CreatePublicIP,
		StagingAreaTags:                    tagsOf(r.StagingAreaTags),
		PITPolicy: mapped(r.PITPolicy, func(p drs.PITRule) pitPolicyRule {
			return pitPolicyRule{RuleID: p.ID, Units: string(p.Units), Interval: p.Interval, RetentionDuration: p.Retention, Enabled: p.Enabled}
		}),
		AutoReplicateNewDisks: r.AutoReplicateNewDisks,
		InternetProtocol:      r.InternetProtocol,
		ReplicatedDisks:       []configuredDisk{},
	}
	for i, d := range server.Properties.Disks {
		out.ReplicatedDisks = append(out.ReplicatedDisks, configuredDisk{
			DeviceName: clip(d.Device, boundedLength), IsBootDisk: i == 0, StagingDiskType: "AUTO",
		})
	}
	return out, nil
}

// existingServer is for operations that refuse a server the account lacks.
func (c caller) existingServer(ctx context.Context, id sourceServerID) (drs.SourceServer, error) {
	server, err := c.DB.SourceServer(ctx, c.account, drs.SourceServerID(id))
	if errors.Is(err, db.ErrAbsent) {
		return drs.SourceServer{}, drs.NotFound(drs.TypeSourceServer, string(id))
	}
	return server, err
}
