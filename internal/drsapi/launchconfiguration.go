package drsapi

import (
	"context"
	"errors"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

type getLaunchConfigurationRequest struct {
	SourceServerID sourceServerID `json:"sourceServerID"`
}

// updateLaunchConfigurationRequest changes the members that it has.
type updateLaunchConfigurationRequest struct {
	SourceServerID         sourceServerID                      `json:"sourceServerID"`
	Name                   *smallBoundedString                 `json:"name,omitempty"`
	LaunchDisposition      *string                             `json:"launchDisposition,omitempty" enum:"STOPPED,STARTED"`
	RightSizingMethod      *string                             `json:"targetInstanceTypeRightSizingMethod,omitempty" enum:"NONE,BASIC,IN_AWS"`
	CopyPrivateIP          *bool                               `json:"copyPrivateIp,omitempty"`
	CopyTags               *bool                               `json:"copyTags,omitempty"`
	Licensing              *licensingUpdate                    `json:"licensing,omitempty"`
	PostLaunchEnabled      *bool                               `json:"postLaunchEnabled,omitempty"`
	LaunchIntoInstanceProp *launchIntoInstancePropertiesUpdate `json:"launchIntoInstanceProperties,omitempty"`
	RecoveryMode           *string                             `json:"recoveryMode,omitempty" enum:"FAST,OPTIMAL"`
}

type licensingUpdate struct {
	OSByol *bool `json:"osByol,omitempty"`
}

type launchIntoInstancePropertiesUpdate struct {
	EC2InstanceID ec2InstanceID `json:"launchIntoEC2InstanceID,omitempty"`
}

type launchConfiguration struct {
	SourceServerID         sourceServerID               `json:"sourceServerID"`
	Name                   string                       `json:"name"`
	EC2LaunchTemplateID    string                       `json:"ec2LaunchTemplateID,omitempty"`
	LaunchDisposition      string                       `json:"launchDisposition" enum:"STOPPED,STARTED"`
	RightSizingMethod      string                       `json:"targetInstanceTypeRightSizingMethod" enum:"NONE,BASIC,IN_AWS"`
	CopyPrivateIP          bool                         `json:"copyPrivateIp"`
	CopyTags               bool                         `json:"copyTags"`
	Licensing              licensing                    `json:"licensing"`
	PostLaunchEnabled      bool                         `json:"postLaunchEnabled"`
	LaunchIntoInstanceProp launchIntoInstanceProperties `json:"launchIntoInstanceProperties"`
	RecoveryMode           string                       `json:"recoveryMode" enum:"FAST,OPTIMAL"`
}

type licensing struct {
	OSByol bool `json:"osByol"`
}

type launchIntoInstanceProperties struct {
	EC2InstanceID string `json:"launchIntoEC2InstanceID,omitempty"`
}

func (c caller) getLaunchConfiguration(ctx context.Context, in *getLaunchConfigurationRequest) (*launchConfiguration, error) {
	server, err := c.existingServer(ctx, in.SourceServerID)
	if err != nil {
		return nil, err
	}
	return launchConfigurationOf(in.SourceServerID, server.LaunchConfiguration), nil
}

// updateLaunchConfiguration takes effect at the server's next launch; a launch
// that is under way must not have its configuration changed beneath it.
func (c caller) updateLaunchConfiguration(ctx context.Context, in *updateLaunchConfigurationRequest) (*launchConfiguration, error) {
	id := drs.SourceServerID(in.SourceServerID)
	if into := in.LaunchIntoInstanceProp; into != nil && into.EC2InstanceID != "" {
		return nil, drs.Invalid("launchIntoInstanceProperties.launchIntoEC2InstanceID",
			"Launching into an existing instance is not supported here: a recovery always makes a machine of its own. Leave the member out.")
	}
	server, err := c.DB.Configure(ctx, c.account, id, func(ctx context.Context, tx db.Tx, s *drs.SourceServer) error {
		busy, err := tx.Busy(ctx, []drs.SourceServerID{id})
		if err != nil {
			return err
		}
		if job, ok := busy[id]; ok {
			return drs.Conflict(drs.TypeSourceServer, string(id),
				"Source server %s is being processed by job %s. Change its launch configuration when the job has completed.", id, job)
		}
		in.apply(&s.LaunchConfiguration)
		return nil
	})
	if errors.Is(err, db.ErrAbsent) {
		return nil, drs.NotFound(drs.TypeSourceServer, string(id))
	}
	if err != nil {
		return nil, err
	}
	return launchConfigurationOf(in.SourceServerID, server.LaunchConfiguration), nil
}

func (in *updateLaunchConfigurationRequest) apply(l *drs.LaunchConfiguration) {
	setText(&l.Name, in.Name)
	setText(&l.Disposition, in.LaunchDisposition)
	setText(&l.RightSizing, in.RightSizingMethod)
	setBool(&l.CopyPrivateIP, in.CopyPrivateIP)
	setBool(&l.CopyTags, in.CopyTags)
	if in.Licensing != nil {
		setBool(&l.OSByol, in.Licensing.OSByol)
	}
	setBool(&l.PostLaunchEnabled, in.PostLaunchEnabled)
	setText(&l.RecoveryMode, in.RecoveryMode)
}

func launchConfigurationOf(id sourceServerID, l drs.LaunchConfiguration) *launchConfiguration {
	return &launchConfiguration{
		SourceServerID:         id,
		Name:                   l.Name,
		EC2LaunchTemplateID:    l.EC2LaunchTemplateID,
		LaunchDisposition:      string(l.Disposition),
		RightSizingMethod:      string(l.RightSizing),
		CopyPrivateIP:          l.CopyPrivateIP,
		CopyTags:               l.CopyTags,
		Licensing:              licensing{OSByol: l.OSByol},
		PostLaunchEnabled:      l.PostLaunchEnabled,
		LaunchIntoInstanceProp: launchIntoInstanceProperties{EC2InstanceID: string(l.LaunchIntoInstance)},
		RecoveryMode:           string(l.RecoveryMode),
	}
}
