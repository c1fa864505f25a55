package drsapi

import (
	"context"
	"errors"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

type createLaunchConfigurationTemplateRequest struct {
	Tags drs.Tags `json:"tags,omitempty"`
	LaunchTemplateUpdate
}

type describeLaunchConfigurationTemplatesRequest struct {
	IDs []launchTemplateID `json:"launchConfigurationTemplateIDs,omitempty" maxItems:"1"`
	Paging1000
}

type describeLaunchConfigurationTemplatesResponse struct {
	Items     []launchConfigurationTemplate `json:"items"`
	NextToken paginationToken               `json:"nextToken,omitempty"`
}

type updateLaunchConfigurationTemplateRequest struct {
	ID launchTemplateID `json:"launchConfigurationTemplateID"`
	LaunchTemplateUpdate
}

type deleteLaunchConfigurationTemplateRequest struct {
	ID launchTemplateID `json:"launchConfigurationTemplateID"`
}

// LaunchTemplateUpdate are the settings of a template, of which each may be left
// out.
type LaunchTemplateUpdate struct {
	LaunchDisposition        *string          `json:"launchDisposition,omitempty" enum:"STOPPED,STARTED"`
	RightSizingMethod        *string          `json:"targetInstanceTypeRightSizingMethod,omitempty" enum:"NONE,BASIC,IN_AWS"`
	CopyPrivateIP            *bool            `json:"copyPrivateIp,omitempty"`
	CopyTags                 *bool            `json:"copyTags,omitempty"`
	Licensing                *licensingUpdate `json:"licensing,omitempty"`
	ExportBucketARN          *arn             `json:"exportBucketArn,omitempty"`
	PostLaunchEnabled        *bool            `json:"postLaunchEnabled,omitempty"`
	LaunchIntoSourceInstance *bool            `json:"launchIntoSourceInstance,omitempty"`
	RecoveryMode             *string          `json:"recoveryMode,omitempty" enum:"FAST,OPTIMAL"`
}

type launchConfigurationTemplateReply struct {
	Template launchConfigurationTemplate `json:"launchConfigurationTemplate"`
}

type launchConfigurationTemplate struct {
	ID                       launchTemplateID `json:"launchConfigurationTemplateID"`
	ARN                      arn              `json:"arn"`
	Tags                     drs.Tags         `json:"tags"`
	LaunchDisposition        string           `json:"launchDisposition" enum:"STOPPED,STARTED"`
	RightSizingMethod        string           `json:"targetInstanceTypeRightSizingMethod" enum:"NONE,BASIC,IN_AWS"`
	CopyPrivateIP            bool             `json:"copyPrivateIp"`
	CopyTags                 bool             `json:"copyTags"`
	Licensing                licensing        `json:"licensing"`
	ExportBucketARN          string           `json:"exportBucketArn,omitempty"`
	PostLaunchEnabled        bool             `json:"postLaunchEnabled"`
	LaunchIntoSourceInstance bool             `json:"launchIntoSourceInstance"`
	RecoveryMode             string           `json:"recoveryMode" enum:"FAST,OPTIMAL"`
}

func (in LaunchTemplateUpdate) apply(s *drs.LaunchTemplateSettings) {
	setText(&s.Disposition, in.LaunchDisposition)
	setText(&s.RightSizing, in.RightSizingMethod)
	setBool(&s.CopyPrivateIP, in.CopyPrivateIP)
	setBool(&s.CopyTags, in.CopyTags)
	if in.Licensing != nil {
		setBool(&s.OSByol, in.Licensing.OSByol)
	}
	setText(&s.ExportBucketARN, in.ExportBucketARN)
	setBool(&s.PostLaunchEnabled, in.PostLaunchEnabled)
	setBool(&s.LaunchIntoSourceInstance, in.LaunchIntoSourceInstance)
	setText(&s.RecoveryMode, in.RecoveryMode)
}

// maxLaunchTemplates is the service's quota.
const maxLaunchTemplates = 1

// createLaunchConfigurationTemplate adds the template by which source servers that
// register from now on are launched.
func (c caller) createLaunchConfigurationTemplate(ctx context.Context, in *createLaunchConfigurationTemplateRequest) (*launchConfigurationTemplateReply, error) {
	if err := checkTags(in.Tags, drs.MaxTags); err != nil {
		return nil, err
	}
	template := drs.LaunchConfigurationTemplate{
		ID: drs.NewLaunchTemplateID(), Account: c.account, Created: c.Now(), Tags: tagsOf(in.Tags),
		Settings: drs.DefaultLaunchTemplateSettings(),
	}
	in.apply(&template.Settings)
	if err := c.DB.InsertLaunchTemplate(ctx, template, maxLaunchTemplates); err != nil {
		return nil, err
	}
	return &launchConfigurationTemplateReply{launchTemplateOf(template)}, nil
}

func (c caller) describeLaunchConfigurationTemplates(ctx context.Context, in *describeLaunchConfigurationTemplatesRequest) (*describeLaunchConfigurationTemplatesResponse, error) {
	ids := mapped(in.IDs, func(id launchTemplateID) drs.LaunchTemplateID { return drs.LaunchTemplateID(id) })
	items, next, err := list(c, Paging(in.Paging1000), []any{"DescribeLaunchConfigurationTemplates", ids},
		func(page db.Page) ([]drs.LaunchConfigurationTemplate, string, error) {
			return c.DB.LaunchTemplates(ctx, c.account, ids, page)
		}, launchTemplateOf)
	if err != nil {
		return nil, err
	}
	if len(ids) > 0 && len(items) == 0 && in.NextToken == "" {
		return nil, drs.NotFound(drs.TypeLaunchTemplate, string(ids[0]))
	}
	return &describeLaunchConfigurationTemplatesResponse{Items: items, NextToken: next}, nil
}

// updateLaunchConfigurationTemplate changes what the request has; servers that are
// there keep their configuration.
func (c caller) updateLaunchConfigurationTemplate(ctx context.Context, in *updateLaunchConfigurationTemplateRequest) (*launchConfigurationTemplateReply, error) {
	template, err := c.DB.UpdateLaunchTemplate(ctx, c.account, drs.LaunchTemplateID(in.ID), func(s *drs.LaunchTemplateSettings) error {
		in.apply(s)
		return nil
	})
	if errors.Is(err, db.ErrAbsent) {
		return nil, drs.NotFound(drs.TypeLaunchTemplate, string(in.ID))
	}
	if err != nil {
		return nil, err
	}
	return &launchConfigurationTemplateReply{launchTemplateOf(template)}, nil
}

func (c caller) deleteLaunchConfigurationTemplate(ctx context.Context, in *deleteLaunchConfigurationTemplateRequest) (*nothing, error) {
	err := c.DB.DeleteLaunchTemplate(ctx, c.account, drs.LaunchTemplateID(in.ID))
	if errors.Is(err, db.ErrAbsent) {
		return nil, drs.NotFound(drs.TypeLaunchTemplate, string(in.ID))
	}
	return nil, err
}

func launchTemplateOf(t drs.LaunchConfigurationTemplate) launchConfigurationTemplate {
	s := t.Settings
	return launchConfigurationTemplate{
		ID: launchTemplateID(t.ID), ARN: arn(t.ARN()), Tags: tagsOf(t.Tags),
		LaunchDisposition: string(s.Disposition), RightSizingMethod: string(s.RightSizing),
		CopyPrivateIP: s.CopyPrivateIP, CopyTags: s.CopyTags, Licensing: licensing{OSByol: s.OSByol},
		ExportBucketARN: s.ExportBucketARN, PostLaunchEnabled: s.PostLaunchEnabled,
		LaunchIntoSourceInstance: s.LaunchIntoSourceInstance, RecoveryMode: string(s.RecoveryMode),
	}
}
