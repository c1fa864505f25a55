package drsapi

import (
	"context"
	"errors"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

type createReplicationConfigurationTemplateRequest struct {
	ReplicationCore
	ReplicationOptions
	Tags drs.Tags `json:"tags,omitempty"`
}

type describeReplicationConfigurationTemplatesRequest struct {
	IDs []replicationTemplateID `json:"replicationConfigurationTemplateIDs,omitempty" maxItems:"200"`
	Paging
}

type describeReplicationConfigurationTemplatesResponse struct {
	Items     []replicationConfigurationTemplate `json:"items"`
	NextToken paginationToken                    `json:"nextToken,omitempty"`
}

type updateReplicationConfigurationTemplateRequest struct {
	ID  replicationTemplateID `json:"replicationConfigurationTemplateID"`
	ARN arn                   `json:"arn,omitempty"`
	ReplicationCoreUpdate
	ReplicationOptions
}

type deleteReplicationConfigurationTemplateRequest struct {
	ID replicationTemplateID `json:"replicationConfigurationTemplateID"`
}

type replicationConfigurationTemplate struct {
	ID   replicationTemplateID `json:"replicationConfigurationTemplateID"`
	ARN  arn                   `json:"arn"`
	Tags drs.Tags              `json:"tags"`
	ReplicationSettings
}

// createReplicationConfigurationTemplate adds a template. Source servers that
// register from now on are configured by the oldest one of the account.
func (c caller) createReplicationConfigurationTemplate(ctx context.Context, in *createReplicationConfigurationTemplateRequest) (*replicationConfigurationTemplate, error) {
	if err := checkTags(in.Tags, drs.MaxTags); err != nil {
		return nil, err
	}
	template := drs.ReplicationConfigurationTemplate{
		ID: drs.NewReplicationTemplateID(), Account: c.account, Created: c.Now(), Tags: tagsOf(in.Tags),
		Configuration: drs.DefaultReplicationConfiguration(""),
	}
	template.Configuration.Name = ""
	if err := changeReplication(&template.Configuration, ReplicationCoreUpdate(in.ReplicationCore), in.ReplicationOptions); err != nil {
		return nil, err
	}
	if err := c.DB.InsertReplicationTemplate(ctx, template); err != nil {
		return nil, err
	}
	out := replicationTemplateOf(template)
	return &out, nil
}

// describeReplicationConfigurationTemplates lists templates, oldest first. One
// that is named and not there is a refusal, as the model gives it.
func (c caller) describeReplicationConfigurationTemplates(ctx context.Context, in *describeReplicationConfigurationTemplatesRequest) (*describeReplicationConfigurationTemplatesResponse, error) {
	ids := mapped(in.IDs, func(id replicationTemplateID) drs.ReplicationTemplateID { return drs.ReplicationTemplateID(id) })
	if len(ids) > 0 {
		found, _, err := c.DB.ReplicationTemplates(ctx, c.account, ids, db.Page{Limit: len(ids)})
		if err != nil {
			return nil, err
		}
		known := map[drs.ReplicationTemplateID]bool{}
		for _, t := range found {
			known[t.ID] = true
		}
		for _, id := range ids {
			if !known[id] {
				return nil, drs.NotFound(drs.TypeReplicationTemplate, string(id))
			}
		}
	}
	items, next, err := list(c, in.Paging, []any{"DescribeReplicationConfigurationTemplates", ids},
		func(page db.Page) ([]drs.ReplicationConfigurationTemplate, string, error) {
			return c.DB.ReplicationTemplates(ctx, c.account, ids, page)
		}, replicationTemplateOf)
	if err != nil {
		return nil, err
	}
	return &describeReplicationConfigurationTemplatesResponse{Items: items, NextToken: next}, nil
}

// updateReplicationConfigurationTemplate changes what the request has; servers
// that are there keep their configuration.
func (c caller) updateReplicationConfigurationTemplate(ctx context.Context, in *updateReplicationConfigurationTemplateRequest) (*replicationConfigurationTemplate, error) {
	id := drs.ReplicationTemplateID(in.ID)
	if want := c.account.ARN(drs.TypeReplicationTemplate, string(id)); in.ARN != "" && string(in.ARN) != want {
		return nil, drs.Invalid("arn", "The ARN is not that of template %s, which is %s. Leave the member out, or name the same template.", id, want)
	}
	template, err := c.DB.UpdateReplicationTemplate(ctx, c.account, id, func(r *drs.ReplicationConfiguration) error {
		return changeReplication(r, in.ReplicationCoreUpdate, in.ReplicationOptions)
	})
	if errors.Is(err, db.ErrAbsent) {
		return nil, drs.NotFound(drs.TypeReplicationTemplate, string(id))
	}
	if err != nil {
		return nil, err
	}
	out := replicationTemplateOf(template)
	return &out, nil
}

func (c caller) deleteReplicationConfigurationTemplate(ctx context.Context, in *deleteReplicationConfigurationTemplateRequest) (*nothing, error) {
	err := c.DB.DeleteReplicationTemplate(ctx, c.account, drs.ReplicationTemplateID(in.ID))
	if errors.Is(err, db.ErrAbsent) {
		return nil, drs.NotFound(drs.TypeReplicationTemplate, string(in.ID))
	}
	return nil, err
}

func replicationTemplateOf(t drs.ReplicationConfigurationTemplate) replicationConfigurationTemplate {
	return replicationConfigurationTemplate{
		ID: replicationTemplateID(t.ID), ARN: arn(t.ARN()), Tags: tagsOf(t.Tags),
		ReplicationSettings: replicationSettingsOf(t.Configuration),
	}
}
