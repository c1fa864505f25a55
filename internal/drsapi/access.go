package drsapi

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
	"lifeboat/internal/iam/policy"
)

// Authorizer decides whether a principal may do what it asks for, and refuses
// with *drs.Error; *iam.Guard is one.
type Authorizer interface {
	Authorize(ctx context.Context, p iam.Principal, asks ...iam.Ask) error
	// MayAtAll is asked when the request is too broken to name resources.
	MayAtAll(ctx context.Context, p iam.Principal, action string) error
}

// access says what a caller must be allowed to do for an operation, beyond its
// name: on which resources, and what else. Every operation states it; the zero
// value states nothing, which a test reports.
type access struct {
	stated  bool
	targets []target
	// creates is the type of what the tags of the request go to; tagging takes
	// drs:TagResource of its own.
	creates drs.ResourceType
}

// target is where a request names resources. path leads over members to their
// IDs, or to ARNs where kind is empty; lists on the way are walked.
type target struct {
	kind drs.ResourceType
	path string
}

// onAnything is for operations that know no resource-level permissions: they must
// be allowed on *.
func onAnything() access { return access{stated: true} }

// on is for operations on resources of one type that path names by ID, as in
// "sourceServers.sourceServerID".
func on(kind drs.ResourceType, path string) access {
	return access{stated: true, targets: []target{{kind, path}}}
}

// onARN is for operations on resources that path names by ARN.
func onARN(path string) access { return on("", path) }

// creating says what type of resource the operation makes, which the request's
// tags go to.
func (a access) creating(kind drs.ResourceType) access {
	a.creates = kind
	return a
}

// authorize asks for everything that the operation and its input need. Where the
// input is invalid, it is enough that the caller may use the operation at all: an
// unauthorized one must not learn from how a request is refused.
func (a *API) authorize(ctx context.Context, p iam.Principal, op *operation, r *http.Request, input map[string]any, invalid bool) error {
	if a.Access == nil {
		return nil
	}
	action := "drs:" + op.name
	if invalid {
		return a.Access.MayAtAll(ctx, p, action)
	}
	if p.Kind == iam.Root { // saves looking up tags
		return a.Access.Authorize(ctx, p)
	}
	base := a.requestContext(p, r)
	tags := requestTags(base, input)
	asks, err := a.asks(ctx, p, op, action, input, base)
	if err != nil {
		return err
	}
	if op.access.creates != "" && tags > 0 {
		made := maps.Clone(base)
		made.Set("drs:CreateAction", op.name)
		asks = append(asks, iam.Ask{Action: "drs:TagResource", Resource: p.Account.ARN(op.access.creates, "*"), Context: made})
	}
	return a.Access.Authorize(ctx, p, asks...)
}

func (a *API) asks(ctx context.Context, p iam.Principal, op *operation, action string, input map[string]any, base policy.Context) ([]iam.Ask, error) {
	var asks []iam.Ask
	for _, t := range op.access.targets {
		for _, name := range valuesAt(input, strings.Split(t.path, ".")) {
			resource, arn := resourceOf(p.Account, t.kind, name)
			known := maps.Clone(base)
			tags, err := a.DB.Tags(ctx, resource)
			if err != nil && !errors.Is(err, db.ErrAbsent) {
				return nil, err
			}
			if resource.Account == p.Account { // another's tags are none of the caller's business
				for key, value := range tags {
					known["aws:resourcetag/"+strings.ToLower(key)] = append(known["aws:resourcetag/"+strings.ToLower(key)], value)
				}
			}
			known.Set("aws:ResourceAccount", resource.Account.ID)
			if resource.Type == drs.TypeRecoveryInstance { // both have one ID
				known.Set("drs:EC2InstanceARN", "arn:aws:ec2:"+resource.Account.Region+":"+resource.Account.ID+":instance/"+resource.ID)
			}
			asks = append(asks, iam.Ask{Action: action, Resource: arn, Context: known})
		}
	}
	if len(asks) == 0 {
		asks = append(asks, iam.Ask{Action: action, Resource: "*", Context: base})
	}
	return asks, nil
}

// resourceOf names a resource by ID or ARN. What is no ARN of ours stays as it
// is: the handler refuses it.
func resourceOf(account drs.Account, kind drs.ResourceType, name string) (drs.Resource, string) {
	if kind == "" && strings.HasPrefix(name, "arn:") {
		resource, err := drs.ParseARN(name)
		if err != nil {
			return drs.Resource{Account: account}, name
		}
		resource = resource.OfStep()
		return resource, resource.Account.ARN(resource.Type, resource.ID)
	}
	if kind == "" {
		kind = typeOfID(name)
	}
	return drs.Resource{Account: account, Type: kind, ID: name}, account.ARN(kind, name)
}

// typeOfID is for members that take IDs of several types, such as resourceId.
func typeOfID(id string) drs.ResourceType {
	switch prefix, _, _ := strings.Cut(id, "-"); prefix {
	case "s":
		return drs.TypeSourceServer
	case "i":
		return drs.TypeRecoveryInstance
	case "drsjob":
		return drs.TypeJob
	case "lct":
		return "launch-configuration-template"
	case "rct":
		return "replication-configuration-template"
	case "sn":
		return "source-network"
	}
	return "unknown"
}

// valuesAt collects the strings that a path of members leads to.
func valuesAt(v any, path []string) []string {
	switch v := v.(type) {
	case string:
		if len(path) == 0 {
			return []string{v}
		}
	case []any:
		var out []string
		for _, item := range v {
			out = append(out, valuesAt(item, path)...)
		}
		return out
	case map[string]any:
		if len(path) > 0 {
			return valuesAt(v[path[0]], path[1:])
		}
	}
	return nil
}

// requestContext is what conditions may ask about any request.
func (a *API) requestContext(p iam.Principal, r *http.Request) policy.Context {
	c := policy.Context{}
	p.Describe(c)
	iam.Moment(c, a.Now())
	c.Set("aws:RequestedRegion", p.Account.Region)
	c.Set("aws:ViaAWSService", "false")
	c.Set("aws:SecureTransport", strconv.FormatBool(r.TLS != nil))
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		c.Set("aws:SourceIp", host)
	}
	if agent := r.UserAgent(); agent != "" {
		c.Set("aws:UserAgent", agent)
	}
	return c
}

// requestTags sets the keys of the tags that a request brings or takes away, and
// returns how many there are.
func requestTags(c policy.Context, input map[string]any) int {
	var keys []string
	if tags, ok := input["tags"].(map[string]any); ok {
		for _, key := range sortedNames(tags) {
			if text, ok := tags[key].(string); ok {
				name := "aws:requesttag/" + strings.ToLower(key)
				c[name] = append(c[name], text)
				keys = append(keys, key)
			}
		}
	}
	if len(keys) == 0 {
		keys = valuesAt(input, []string{"tagKeys"})
	}
	c.Set("aws:TagKeys", keys...)
	return len(keys)
}
