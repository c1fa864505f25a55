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

// updateReplicationConfigurationRequest changes the members that it has.
type updateReplicationConfigurationRequest struct {
	SourceServerID  sourceServerID      `json:"sourceServerID"`
	Name            *smallBoundedString `json:"name,omitempty"`
	ReplicatedDisks []configuredDisk    `json:"replicatedDisks,omitempty" maxItems:"60"`
	ReplicationCoreUpdate
	ReplicationOptions
}

type replicationConfiguration struct {
	SourceServerID  sourceServerID   `json:"sourceServerID"`
	Name            string           `json:"name"`
	ReplicatedDisks []configuredDisk `json:"replicatedDisks"`
	ReplicationSettings
}

// ReplicationSettings are what a configuration and a template both show.
type ReplicationSettings struct {
	StagingAreaSubnetID           string          `json:"stagingAreaSubnetId,omitempty"`
	AssociateDefaultSecurityGroup bool            `json:"associateDefaultSecurityGroup"`
	SecurityGroupIDs              []string        `json:"replicationServersSecurityGroupsIDs"`
	ReplicationServerInstanceType string          `json:"replicationServerInstanceType"`
	UseDedicatedReplicationServer bool            `json:"useDedicatedReplicationServer"`
	DefaultLargeStagingDiskType   string          `json:"defaultLargeStagingDiskType" enum:"GP2,GP3,ST1,AUTO"`
	EBSEncryption                 string          `json:"ebsEncryption" enum:"DEFAULT,CUSTOM,NONE"`
	EBSEncryptionKeyARN           string          `json:"ebsEncryptionKeyArn,omitempty"`
	BandwidthThrottling           int64           `json:"bandwidthThrottling"`
	DataPlaneRouting              string          `json:"dataPlaneRouting" enum:"PRIVATE_IP,PUBLIC_IP"`
	CreatePublicIP                bool            `json:"createPublicIP"`
	StagingAreaTags               drs.Tags        `json:"stagingAreaTags"`
	PITPolicy                     []pitPolicyRule `json:"pitPolicy"`
	AutoReplicateNewDisks         bool            `json:"autoReplicateNewDisks"`
	InternetProtocol              string          `json:"internetProtocol" enum:"IPV4,IPV6"`
}

type configuredDisk struct {
	DeviceName               boundedString `json:"deviceName,omitempty"`
	IsBootDisk               bool          `json:"isBootDisk,omitempty"`
	StagingDiskType          string        `json:"stagingDiskType,omitempty" enum:"AUTO,GP2,GP3,IO1,SC1,ST1,STANDARD"`
	IOPS                     int64         `json:"iops,omitempty" minimum:"0"`
	Throughput               int64         `json:"throughput,omitempty" minimum:"0"`
	OptimizedStagingDiskType string        `json:"optimizedStagingDiskType,omitempty" enum:"AUTO,GP2,GP3,IO1,SC1,ST1,STANDARD"`
}

func (c caller) getReplicationConfiguration(ctx context.Context, in *getReplicationConfigurationRequest) (*replicationConfiguration, error) {
	server, err := c.existingServer(ctx, in.SourceServerID)
	if err != nil {
		return nil, err
	}
	return replicationConfigurationOf(server), nil
}

// updateReplicationConfiguration takes effect at once: a connected agent is told
// its throttle, the next launch boots from the disk that is named, and the next
// round of retention goes by the policy.
func (c caller) updateReplicationConfiguration(ctx context.Context, in *updateReplicationConfigurationRequest) (*replicationConfiguration, error) {
	server, err := c.DB.Configure(ctx, c.account, drs.SourceServerID(in.SourceServerID), func(_ context.Context, _ db.Tx, s *drs.SourceServer) error {
		if s.Extended() {
			return drs.Conflict(drs.TypeSourceServer, string(s.ID),
				"Source server %s is extended from account %s: its replication is configured there.", s.ID, s.Staging.Account)
		}
		config := &s.ReplicationConfiguration
		setText(&config.Name, in.Name)
		if err := configureDisks(s, in.ReplicatedDisks); err != nil {
			return err
		}
		return changeReplication(config, in.ReplicationCoreUpdate, in.ReplicationOptions)
	})
	if errors.Is(err, db.ErrAbsent) {
		return nil, drs.NotFound(drs.TypeSourceServer, string(in.SourceServerID))
	}
	if err != nil {
		return nil, err
	}
	c.Protection.Reconfigured(server)
	return replicationConfigurationOf(server), nil
}

// configureDisks keeps what a request says of some of the server's disks. Which
// disks are replicated is the agent's to say.
func configureDisks(s *drs.SourceServer, disks []configuredDisk) error {
	for _, d := range disks {
		if !s.Properties.HasDisk(string(d.DeviceName)) {
			return drs.Invalid("replicatedDisks", "Source server %s has no replicated disk %s. GetReplicationConfiguration lists its disks; "+
				"another one is added by the agent's --disk.", s.ID, d.DeviceName)
		}
	}
	boot := 0
	all := s.ConfiguredDisks()
	for i := range all {
		for _, d := range disks {
			if string(d.DeviceName) != all[i].Device {
				continue
			}
			all[i] = drs.ConfiguredDisk{Device: all[i].Device, Identity: all[i].Identity, Boot: d.IsBootDisk, StagingType: "AUTO", IOPS: d.IOPS, Throughput: d.Throughput}
			if d.StagingDiskType != "" {
				all[i].StagingType = d.StagingDiskType
			}
		}
		if all[i].Boot {
			boot++
		}
	}
	if len(disks) > 0 && boot != 1 {
		return drs.Invalid("replicatedDisks", "With this change %d disks of source server %s would be boot disks. Set isBootDisk for one, and list the one that it was before without.", boot, s.ID)
	}
	s.ReplicationConfiguration.Disks = all
	return nil
}

func replicationConfigurationOf(s drs.SourceServer) *replicationConfiguration {
	return &replicationConfiguration{
		SourceServerID: sourceServerID(s.ID),
		Name:           s.ReplicationConfiguration.Name,
		ReplicatedDisks: mapped(s.ConfiguredDisks(), func(d drs.ConfiguredDisk) configuredDisk {
			return configuredDisk{
				DeviceName: boundedString(clip(d.Device, boundedLength)), IsBootDisk: d.Boot, StagingDiskType: d.StagingType,
				IOPS: d.IOPS, Throughput: d.Throughput,
			}
		}),
		ReplicationSettings: replicationSettingsOf(s.ReplicationConfiguration),
	}
}

func replicationSettingsOf(r drs.ReplicationConfiguration) ReplicationSettings {
	return ReplicationSettings{
		StagingAreaSubnetID:           r.StagingAreaSubnetID,
		AssociateDefaultSecurityGroup: r.AssociateDefaultSecurityGroup,
		SecurityGroupIDs:              mapped(r.SecurityGroupIDs, func(id string) string { return id }),
		ReplicationServerInstanceType: r.ReplicationServerInstanceType,
		UseDedicatedReplicationServer: r.UseDedicatedReplicationServer,
		DefaultLargeStagingDiskType:   r.DefaultLargeStagingDiskType,
		EBSEncryption:                 r.EBSEncryption,
		EBSEncryptionKeyARN:           r.EBSEncryptionKeyARN,
		BandwidthThrottling:           r.BandwidthThrottlingMbps,
		DataPlaneRouting:              r.DataPlaneRouting,
		CreatePublicIP:                r.CreatePublicIP,
		StagingAreaTags:               tagsOf(r.StagingAreaTags),
		PITPolicy: mapped(r.PITPolicy, func(p drs.PITRule) pitPolicyRule {
			return pitPolicyRule{
				RuleID: p.ID, Units: string(p.Units), Interval: int32(p.Interval), RetentionDuration: int32(p.Retention), Enabled: &p.Enabled,
			}
		}),
		AutoReplicateNewDisks: r.AutoReplicateNewDisks,
		InternetProtocol:      r.InternetProtocol,
	}
}

// existingServer is for operations that refuse a server the account lacks.
func (c caller) existingServer(ctx context.Context, id sourceServerID) (drs.SourceServer, error) {
	server, err := c.DB.SourceServer(ctx, c.account, drs.SourceServerID(id))
	if errors.Is(err, db.ErrAbsent) {
		return drs.SourceServer{}, drs.NotFound(drs.TypeSourceServer, string(id))
	}
	return server, err
}
