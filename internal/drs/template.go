package drs

import "time"

// ReplicationConfigurationTemplate is what source servers that register later are
// configured by. Servers keep the copy that they got.
type ReplicationConfigurationTemplate struct {
	ID      ReplicationTemplateID
	Account Account
	Created time.Time
	Tags    Tags
	// Configuration has no Name and no Disks: those belong to one server.
	Configuration ReplicationConfiguration
}

// ARN names the template.
func (t ReplicationConfigurationTemplate) ARN() string {
	return t.Account.ARN(TypeReplicationTemplate, string(t.ID))
}

// For is the configuration of a new server by the template.
func (t ReplicationConfigurationTemplate) For(server SourceServerID) ReplicationConfiguration {
	c := t.Configuration
	c.Name, c.Disks = DefaultReplicationConfiguration(server).Name, nil
	return c
}

// LaunchConfigurationTemplate is the same for launch configurations, and carries
// launch actions to copy.
type LaunchConfigurationTemplate struct {
	ID       LaunchTemplateID
	Account  Account
	Created  time.Time
	Tags     Tags
	Settings LaunchTemplateSettings
}

// ARN names the template.
func (t LaunchConfigurationTemplate) ARN() string {
	return t.Account.ARN(TypeLaunchTemplate, string(t.ID))
}

// LaunchTemplateSettings are the settings of a launch configuration template.
// Stored as JSON: a field may be added, none renamed.
type LaunchTemplateSettings struct {
	Disposition              LaunchDisposition `json:"disposition"`
	RightSizing              RightSizingMethod `json:"rightSizing"`
	CopyPrivateIP            bool              `json:"copyPrivateIp"`
	CopyTags                 bool              `json:"copyTags"`
	OSByol                   bool              `json:"osByol"`
	PostLaunchEnabled        bool              `json:"postLaunchEnabled"`
	LaunchIntoSourceInstance bool              `json:"launchIntoSourceInstance"`
	ExportBucketARN          string            `json:"exportBucketArn,omitempty"` // of source networks' stacks
	RecoveryMode             RecoveryMode      `json:"recoveryMode"`
}

// DefaultLaunchTemplateSettings are the settings of a template of which nothing
// was said: those that a server gets without any template.
func DefaultLaunchTemplateSettings() LaunchTemplateSettings {
	return LaunchTemplateSettings{Disposition: DispositionStarted, RightSizing: RightSizingBasic, RecoveryMode: RecoveryOptimal}
}

// For is the launch configuration of a new server by the template.
func (t LaunchConfigurationTemplate) For(server SourceServerID) LaunchConfiguration {
	c := DefaultLaunchConfiguration(server)
	s := t.Settings
	c.Disposition, c.RightSizing, c.RecoveryMode = s.Disposition, s.RightSizing, s.RecoveryMode
	c.CopyPrivateIP, c.CopyTags, c.OSByol, c.PostLaunchEnabled = s.CopyPrivateIP, s.CopyTags, s.OSByol, s.PostLaunchEnabled
	return c
}
