package drsapi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"unicode/utf8"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

type tagResourceRequest struct {
	ResourceARN arn      `json:"resourceArn" in:"path"`
	Tags        drs.Tags `json:"tags"`
}

type untagResourceRequest struct {
	ResourceARN arn      `json:"resourceArn" in:"path"`
	TagKeys     []string `json:"tagKeys" in:"query"`
}

type listTagsForResourceRequest struct {
	ResourceARN arn `json:"resourceArn" in:"path"`
}

type listTagsForResourceResponse struct {
	Tags drs.Tags `json:"tags"`
}

// tagResource adds tags to a resource or replaces their values.
func (c caller) tagResource(ctx context.Context, in *tagResourceRequest) (*nothing, error) {
	if err := checkTags(in.Tags, drs.MaxTags); err != nil {
		return nil, err
	}
	return nil, c.changeTags(ctx, in.ResourceARN, func(tags drs.Tags) error {
		maps.Copy(tags, in.Tags)
		if len(tags) > drs.MaxTags {
			return drs.Invalid("tags", "The resource would have %d tags; at most %d are allowed. Remove some first.", len(tags), drs.MaxTags)
		}
		return nil
	})
}

// untagResource removes tags; those that are not there do no harm.
func (c caller) untagResource(ctx context.Context, in *untagResourceRequest) (*nothing, error) {
	for i, key := range in.TagKeys {
		if utf8.RuneCountInString(key) > maxTagText {
			return nil, tooLong(fmt.Sprintf("tagKeys[%d]", i))
		}
	}
	return nil, c.changeTags(ctx, in.ResourceARN, func(tags drs.Tags) error {
		for _, key := range in.TagKeys {
			delete(tags, key)
		}
		return nil
	})
}

func (c caller) listTagsForResource(ctx context.Context, in *listTagsForResourceRequest) (*listTagsForResourceResponse, error) {
	resource, err := c.resource(in.ResourceARN)
	if err != nil {
		return nil, err
	}
	tags, err := c.DB.Tags(ctx, resource)
	if errors.Is(err, db.ErrAbsent) {
		return nil, drs.NotFound(resource.Type, resource.ID)
	}
	if err != nil {
		return nil, err
	}
	return &listTagsForResourceResponse{Tags: tagsOf(tags)}, nil
}

func (c caller) changeTags(ctx context.Context, of arn, change func(drs.Tags) error) error {
	resource, err := c.resource(of)
	if err != nil {
		return err
	}
	err = c.DB.ChangeTags(ctx, resource, change)
	if errors.Is(err, db.ErrAbsent) {
		return drs.NotFound(resource.Type, resource.ID)
	}
	return err
}

// resource reads an ARN. One of another account, region or service names nothing
// that the caller could know of.
func (c caller) resource(of arn) (drs.Resource, error) {
	resource, err := drs.ParseARN(string(of))
	if err != nil {
		return drs.Resource{}, drs.Invalid("resourceArn", "%s.", err)
	}
	if resource.Account != c.account {
		return drs.Resource{}, drs.NotFound(resource.Type, resource.ID)
	}
	return resource, nil
}

const maxTagText = 256 // characters of a tag's key or value

// checkTags holds the tags of a request against what the service allows. The
// schema cannot say it all: it has no bounds for the keys of a map.
func checkTags(tags drs.Tags, most int) error { return checkNamedTags("tags", tags, most) }

// checkNamedTags is checkTags for tags under another name.
func checkNamedTags(member string, tags drs.Tags, most int) error {
	var problems []drs.FieldError
	for _, key := range sortedNames(tags) {
		switch {
		case utf8.RuneCountInString(key) > maxTagText || utf8.RuneCountInString(tags[key]) > maxTagText:
			return tooLong(member)
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			problems = append(problems, drs.FieldError{Name: member, Message: "Tag keys that begin with aws: are reserved."})
		}
	}
	if len(tags) > most {
		problems = append(problems, drs.FieldError{
			Name: member, Message: fmt.Sprintf("Value at '%s' failed to satisfy constraint: Member must have length less than or equal to %d", member, most),
		})
	}
	if len(problems) > 0 {
		return invalidFields(problems)
	}
	return nil
}

func tooLong(member string) error {
	return invalidFields([]drs.FieldError{{
		Name:    member,
		Message: fmt.Sprintf("Value at '%s' failed to satisfy constraint: Member must have keys and values of at most %d characters", member, maxTagText),
	}})
}

// tagsOf is never nil: the API writes no tags as {}.
func tagsOf(tags drs.Tags) drs.Tags {
	if tags == nil {
		return drs.Tags{}
	}
	return tags
}
