package client

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/smithy-go"
)

// User is somebody with access keys.
type User struct {
	Name     string    `json:"name"`
	ARN      string    `json:"arn"`
	Created  time.Time `json:"created"`
	Policies []string  `json:"policies"`
}

// AccessKey is an access key; its secret is there only where it was just made.
type AccessKey struct {
	ID      string    `json:"accessKeyId"`
	Secret  string    `json:"secretAccessKey,omitempty"`
	User    string    `json:"user,omitempty"`
	Active  bool      `json:"active"`
	Created time.Time `json:"created"`
}

// Policy says what whoever it is attached to may do.
type Policy struct {
	Name     string `json:"name"`
	ARN      string `json:"arn"`
	BuiltIn  bool   `json:"builtIn"`
	Attached int    `json:"attached"`
	Document string `json:"document,omitempty"`
}

// Role is what somebody may become for a while.
type Role struct {
	Name     string    `json:"name"`
	ARN      string    `json:"arn"`
	Created  time.Time `json:"created"`
	Trust    string    `json:"trust"`
	Policies []string  `json:"policies"`
}

func (c *Client) iam() *awsiam.Client {
	o := c.api.Options()
	return awsiam.New(awsiam.Options{
		Region: o.Region, BaseEndpoint: aws.String(c.endpoint), Credentials: o.Credentials, HTTPClient: c.http,
	})
}

// CreateUser makes a user who may do nothing yet.
func (c *Client) CreateUser(ctx context.Context, name string) (User, error) {
	out, err := c.iam().CreateUser(ctx, &awsiam.CreateUserInput{UserName: &name})
	if err != nil {
		return User{}, c.explain(err)
	}
	return User{Name: deref(out.User.UserName), ARN: deref(out.User.Arn), Created: deref(out.User.CreateDate), Policies: []string{}}, nil
}

// Users lists the account's users and their policies.
func (c *Client) Users(ctx context.Context) ([]User, error) {
	users := []User{}
	pages := awsiam.NewListUsersPaginator(c.iam(), &awsiam.ListUsersInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, c.explain(err)
		}
		for _, u := range page.Users {
			attached, err := c.iam().ListAttachedUserPolicies(ctx, &awsiam.ListAttachedUserPoliciesInput{UserName: u.UserName})
			if err != nil {
				return nil, c.explain(err)
			}
			users = append(users, User{Name: deref(u.UserName), ARN: deref(u.Arn), Created: deref(u.CreateDate), Policies: policyNames(attached.AttachedPolicies)})
		}
	}
	return users, nil
}

func policyNames(attached []types.AttachedPolicy) []string {
	names := []string{}
	for _, p := range attached {
		names = append(names, deref(p.PolicyName))
	}
	return names
}

// DeleteUser removes a user with neither access keys nor policies.
func (c *Client) DeleteUser(ctx context.Context, name string) error {
	_, err := c.iam().DeleteUser(ctx, &awsiam.DeleteUserInput{UserName: &name})
	return c.explain(err)
}

// CreateAccessKey makes an access key of a user, with its secret.
func (c *Client) CreateAccessKey(ctx context.Context, user string) (AccessKey, error) {
	out, err := c.iam().CreateAccessKey(ctx, &awsiam.CreateAccessKeyInput{UserName: &user})
	if err != nil {
		return AccessKey{}, c.explain(err)
	}
	k := out.AccessKey
	return AccessKey{ID: deref(k.AccessKeyId), Secret: deref(k.SecretAccessKey), User: user, Active: true, Created: deref(k.CreateDate)}, nil
}

// AccessKeys lists the access keys of a user.
func (c *Client) AccessKeys(ctx context.Context, user string) ([]AccessKey, error) {
	out, err := c.iam().ListAccessKeys(ctx, &awsiam.ListAccessKeysInput{UserName: &user})
	if err != nil {
		return nil, c.explain(err)
	}
	keys := []AccessKey{}
	for _, k := range out.AccessKeyMetadata {
		keys = append(keys, AccessKey{ID: deref(k.AccessKeyId), User: user, Active: k.Status == types.StatusTypeActive, Created: deref(k.CreateDate)})
	}
	return keys, nil
}

// SetAccessKeyActive lets an access key sign, or not.
func (c *Client) SetAccessKeyActive(ctx context.Context, user, id string, active bool) error {
	status := types.StatusTypeInactive
	if active {
		status = types.StatusTypeActive
	}
	_, err := c.iam().UpdateAccessKey(ctx, &awsiam.UpdateAccessKeyInput{UserName: &user, AccessKeyId: &id, Status: status})
	return c.explain(err)
}

// DeleteAccessKey removes an access key for good.
func (c *Client) DeleteAccessKey(ctx context.Context, user, id string) error {
	_, err := c.iam().DeleteAccessKey(ctx, &awsiam.DeleteAccessKeyInput{UserName: &user, AccessKeyId: &id})
	return c.explain(err)
}

// Policies lists the account's policies, then those that are built in.
func (c *Client) Policies(ctx context.Context) ([]Policy, error) {
	policies := []Policy{}
	pages := awsiam.NewListPoliciesPaginator(c.iam(), &awsiam.ListPoliciesInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, c.explain(err)
		}
		for _, p := range page.Policies {
			policies = append(policies, Policy{
				Name: deref(p.PolicyName), ARN: deref(p.Arn), BuiltIn: strings.Contains(deref(p.Arn), "::aws:"), Attached: int(deref(p.AttachmentCount)),
			})
		}
	}
	return policies, nil
}

// Policy finds a policy by name or ARN, with its document. One of the account's
// goes before one that is built in.
func (c *Client) Policy(ctx context.Context, name string) (Policy, error) {
	all, err := c.Policies(ctx)
	if err != nil {
		return Policy{}, err
	}
	for _, p := range all {
		if p.Name != name && p.ARN != name {
			continue
		}
		found, err := c.iam().GetPolicy(ctx, &awsiam.GetPolicyInput{PolicyArn: &p.ARN})
		if err != nil {
			return Policy{}, c.explain(err)
		}
		version, err := c.iam().GetPolicyVersion(ctx, &awsiam.GetPolicyVersionInput{PolicyArn: &p.ARN, VersionId: found.Policy.DefaultVersionId})
		if err != nil {
			return Policy{}, c.explain(err)
		}
		p.Document, err = url.QueryUnescape(deref(version.PolicyVersion.Document))
		return p, err
	}
	return Policy{}, refuse("there is no policy %q: `lifeboat iam policy list` lists those there are", name)
}

// PutPolicy makes a policy, or gives the one of this name a new document.
func (c *Client) PutPolicy(ctx context.Context, name, document string) (Policy, error) {
	made, err := c.iam().CreatePolicy(ctx, &awsiam.CreatePolicyInput{PolicyName: &name, PolicyDocument: &document})
	var api smithy.APIError
	if errors.As(err, &api) && api.ErrorCode() == "EntityAlreadyExists" {
		known, err := c.Policy(ctx, name)
		if err != nil {
			return Policy{}, err
		}
		_, err = c.iam().CreatePolicyVersion(ctx, &awsiam.CreatePolicyVersionInput{PolicyArn: &known.ARN, PolicyDocument: &document, SetAsDefault: true})
		known.Document = document
		return known, c.explain(err)
	}
	if err != nil {
		return Policy{}, c.explain(err)
	}
	return Policy{Name: name, ARN: deref(made.Policy.Arn), Document: document}, nil
}

// DeletePolicy removes a policy that is attached to nobody.
func (c *Client) DeletePolicy(ctx context.Context, name string) error {
	p, err := c.Policy(ctx, name)
	if err != nil {
		return err
	}
	_, err = c.iam().DeletePolicy(ctx, &awsiam.DeletePolicyInput{PolicyArn: &p.ARN})
	return c.explain(err)
}

// AttachPolicy lets a policy speak of a user or, where that is empty, of a role.
func (c *Client) AttachPolicy(ctx context.Context, policy, user, role string) error {
	p, err := c.Policy(ctx, policy)
	if err != nil {
		return err
	}
	if user != "" {
		_, err = c.iam().AttachUserPolicy(ctx, &awsiam.AttachUserPolicyInput{UserName: &user, PolicyArn: &p.ARN})
	} else {
		_, err = c.iam().AttachRolePolicy(ctx, &awsiam.AttachRolePolicyInput{RoleName: &role, PolicyArn: &p.ARN})
	}
	return c.explain(err)
}

// DetachPolicy ends what AttachPolicy began.
func (c *Client) DetachPolicy(ctx context.Context, policy, user, role string) error {
	p, err := c.Policy(ctx, policy)
	if err != nil {
		return err
	}
	if user != "" {
		_, err = c.iam().DetachUserPolicy(ctx, &awsiam.DetachUserPolicyInput{UserName: &user, PolicyArn: &p.ARN})
	} else {
		_, err = c.iam().DetachRolePolicy(ctx, &awsiam.DetachRolePolicyInput{RoleName: &role, PolicyArn: &p.ARN})
	}
	return c.explain(err)
}

// CreateRole makes a role that may do nothing yet.
func (c *Client) CreateRole(ctx context.Context, name, trust string) (Role, error) {
	out, err := c.iam().CreateRole(ctx, &awsiam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: &trust})
	if err != nil {
		return Role{}, c.explain(err)
	}
	return Role{Name: name, ARN: deref(out.Role.Arn), Created: deref(out.Role.CreateDate), Trust: trust, Policies: []string{}}, nil
}

// Roles lists the account's roles and their policies.
func (c *Client) Roles(ctx context.Context) ([]Role, error) {
	roles := []Role{}
	pages := awsiam.NewListRolesPaginator(c.iam(), &awsiam.ListRolesInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, c.explain(err)
		}
		for _, r := range page.Roles {
			attached, err := c.iam().ListAttachedRolePolicies(ctx, &awsiam.ListAttachedRolePoliciesInput{RoleName: r.RoleName})
			if err != nil {
				return nil, c.explain(err)
			}
			trust, err := url.QueryUnescape(deref(r.AssumeRolePolicyDocument))
			if err != nil {
				return nil, err
			}
			roles = append(roles, Role{Name: deref(r.RoleName), ARN: deref(r.Arn), Created: deref(r.CreateDate), Trust: trust, Policies: policyNames(attached.AttachedPolicies)})
		}
	}
	return roles, nil
}

// DeleteRole removes a role without policies; its sessions end with it.
func (c *Client) DeleteRole(ctx context.Context, name string) error {
	_, err := c.iam().DeleteRole(ctx, &awsiam.DeleteRoleInput{RoleName: &name})
	return c.explain(err)
}
