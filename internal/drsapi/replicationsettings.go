package drsapi

import (
	"math"

	"lifeboat/internal/drs"
)

// ReplicationCore are the settings that every new template must state
// (exported, as all structs that are embedded: the schema generator sees only
// those).
type ReplicationCore struct {
	StagingAreaSubnetID *subnetID         `json:"stagingAreaSubnetId"`
	SecurityGroupIDs    []securityGroupID `json:"replicationServersSecurityGroupsIDs" maxItems:"32"`
	EBSEncryption       *string           `json:"ebsEncryption" enum:"DEFAULT,CUSTOM,NONE"`
	BandwidthThrottling *int64            `json:"bandwidthThrottling" minimum:"0"`
	StagingAreaTags     drs.Tags          `json:"stagingAreaTags"`
	PITPolicy           []pitPolicyRule   `json:"pitPolicy" minItems:"3" maxItems:"3"`
}

// ReplicationCoreUpdate are the same settings where each may be left out.
type ReplicationCoreUpdate struct {
	StagingAreaSubnetID *subnetID         `json:"stagingAreaSubnetId,omitempty"`
	SecurityGroupIDs    []securityGroupID `json:"replicationServersSecurityGroupsIDs,omitempty" maxItems:"32"`
	EBSEncryption       *string           `json:"ebsEncryption,omitempty" enum:"DEFAULT,CUSTOM,NONE"`
	BandwidthThrottling *int64            `json:"bandwidthThrottling,omitempty" minimum:"0"`
	StagingAreaTags     drs.Tags          `json:"stagingAreaTags,omitempty"`
	PITPolicy           []pitPolicyRule   `json:"pitPolicy,omitempty" minItems:"3" maxItems:"3"`
}

// ReplicationOptions are the settings that may always be left out.
type ReplicationOptions struct {
	AssociateDefaultSecurityGroup *bool            `json:"associateDefaultSecurityGroup,omitempty"`
	ReplicationServerInstanceType *ec2InstanceType `json:"replicationServerInstanceType,omitempty"`
	UseDedicatedReplicationServer *bool            `json:"useDedicatedReplicationServer,omitempty"`
	DefaultLargeStagingDiskType   *string          `json:"defaultLargeStagingDiskType,omitempty" enum:"GP2,GP3,ST1,AUTO"`
	EBSEncryptionKeyARN           *arn             `json:"ebsEncryptionKeyArn,omitempty"`
	DataPlaneRouting              *string          `json:"dataPlaneRouting,omitempty" enum:"PRIVATE_IP,PUBLIC_IP"`
	CreatePublicIP                *bool            `json:"createPublicIP,omitempty"`
	AutoReplicateNewDisks         *bool            `json:"autoReplicateNewDisks,omitempty"`
	InternetProtocol              *string          `json:"internetProtocol,omitempty" enum:"IPV4,IPV6"`
}

type pitPolicyRule struct {
	RuleID            int64  `json:"ruleID,omitempty" minimum:"0"`
	Units             string `json:"units" enum:"MINUTE,HOUR,DAY"`
	Interval          int32  `json:"interval" minimum:"1" maximum:"2147483647"`
	RetentionDuration int32  `json:"retentionDuration" minimum:"1" maximum:"2147483647"`
	Enabled           *bool  `json:"enabled,omitempty"` // absent: true
}

// maxThrottlingMbps is a terabit per second: more limits nothing.
const maxThrottlingMbps = 1_000_000

// apply changes the settings that are there.
func (in ReplicationCoreUpdate) apply(c *drs.ReplicationConfiguration) error {
	setText(&c.StagingAreaSubnetID, in.StagingAreaSubnetID)
	if in.SecurityGroupIDs != nil {
		c.SecurityGroupIDs = mapped(in.SecurityGroupIDs, func(id securityGroupID) string { return string(id) })
	}
	setText(&c.EBSEncryption, in.EBSEncryption)
	if in.BandwidthThrottling != nil {
		if *in.BandwidthThrottling > maxThrottlingMbps {
			return drs.Invalid("bandwidthThrottling", "The throttle is in Mbit/s and at most %d; 0 means none.", maxThrottlingMbps)
		}
		c.BandwidthThrottlingMbps = *in.BandwidthThrottling
	}
	if in.StagingAreaTags != nil {
		if err := checkNamedTags("stagingAreaTags", in.StagingAreaTags, math.MaxInt); err != nil {
			return err
		}
		c.StagingAreaTags = in.StagingAreaTags
	}
	if in.PITPolicy != nil {
		policy, err := drs.CheckPITPolicy(mapped(in.PITPolicy, func(r pitPolicyRule) drs.PITRule {
			return drs.PITRule{
				ID: r.RuleID, Units: drs.PITUnits(r.Units), Interval: int64(r.Interval), Retention: int64(r.RetentionDuration),
				Enabled: r.Enabled == nil || *r.Enabled,
			}
		}))
		if err != nil {
			return err
		}
		c.PITPolicy = policy
	}
	return nil
}

// apply changes the settings that are there.
func (in ReplicationOptions) apply(c *drs.ReplicationConfiguration) {
	setBool(&c.AssociateDefaultSecurityGroup, in.AssociateDefaultSecurityGroup)
	setText(&c.ReplicationServerInstanceType, in.ReplicationServerInstanceType)
	setBool(&c.UseDedicatedReplicationServer, in.UseDedicatedReplicationServer)
	setText(&c.DefaultLargeStagingDiskType, in.DefaultLargeStagingDiskType)
	setText(&c.EBSEncryptionKeyARN, in.EBSEncryptionKeyARN)
	setText(&c.DataPlaneRouting, in.DataPlaneRouting)
	setBool(&c.CreatePublicIP, in.CreatePublicIP)
	setBool(&c.AutoReplicateNewDisks, in.AutoReplicateNewDisks)
	setText(&c.InternetProtocol, in.InternetProtocol)
}

// changeReplication makes the changes of a request, or refuses what they amount to.
func changeReplication(c *drs.ReplicationConfiguration, core ReplicationCoreUpdate, options ReplicationOptions) error {
	if err := core.apply(c); err != nil {
		return err
	}
	options.apply(c)
	if c.EBSEncryption == "CUSTOM" && c.EBSEncryptionKeyARN == "" {
		return drs.Invalid("ebsEncryptionKeyArn", "The ebsEncryption CUSTOM needs a key: give its ARN.")
	}
	return nil
}

// setText changes what the request has a text for.
func setText[T, V ~string](to *T, v *V) {
	if v != nil {
		*to = T(*v)
	}
}

// setBool changes what the request has a truth for.
func setBool(to, v *bool) {
	if v != nil {
		*to = *v
	}
}
