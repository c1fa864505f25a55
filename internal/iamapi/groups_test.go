package iamapi

import (
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"

	"lifeboat/internal/iam"
	"lifeboat/internal/iam/policy"
)

// may tells whether a user may do something now.
func (s *site) may(key iam.AccessKey, action string) bool {
	s.t.Helper()
	p, err := s.directory.AccessKey(s.t.Context(), key.ID)
	must(s.t, err)
	decision, _ := s.guard.Decide(s.t.Context(), p.Principal, iam.Ask{Action: action, Resource: "*", Context: policy.Context{}})
	return decision == policy.Allowed
}

// A policy of its own speaks of a user from the next request on, and no more once it
// is deleted; what is read is what was written.
func TestInlinePolicies(t *testing.T) {
	s, ctx := newSite(t), t.Context()
	c := s.iam(s.admin, "")
	ann := s.user(home.ID, "ann")
	user, name := aws.String("ann"), aws.String("jobs")
	first, second := allowing(`"drs:DescribeJobs"`, `"*"`), allowing(`"drs:StartRecovery"`, `"*"`)
	for _, text := range []string{first, second} {
		_, err := c.PutUserPolicy(ctx, &awsiam.PutUserPolicyInput{UserName: user, PolicyName: name, PolicyDocument: &text})
		must(t, err)
		got, err := c.GetUserPolicy(ctx, &awsiam.GetUserPolicyInput{UserName: user, PolicyName: name})
		must(t, err)
		if kept, err := url.QueryUnescape(aws.ToString(got.PolicyDocument)); err != nil || kept != text || aws.ToString(got.UserName) != "ann" {
			t.Errorf("read %q, wrote %q", kept, text)
		}
	}
	if s.may(ann, "drs:DescribeJobs") || !s.may(ann, "drs:StartRecovery") {
		t.Error("the second document does not hold, or the first still does")
	}
	if list, err := c.ListUserPolicies(ctx, &awsiam.ListUserPoliciesInput{UserName: user}); err != nil || strings.Join(list.PolicyNames, " ") != "jobs" {
		t.Errorf("%+v, %v", list, err)
	}
	_, err := c.PutUserPolicy(ctx, &awsiam.PutUserPolicyInput{UserName: user, PolicyName: name, PolicyDocument: aws.String("{")})
	wantCode(t, err, "MalformedPolicyDocument")
	_, err = c.PutUserPolicy(ctx, &awsiam.PutUserPolicyInput{UserName: aws.String("bob"), PolicyName: name, PolicyDocument: &first})
	wantCode(t, err, "NoSuchEntity")
	long := allowing(`"drs:`+strings.Repeat("x", 5_500)+`"`, `"*"`)
	_, err = c.PutUserPolicy(ctx, &awsiam.PutUserPolicyInput{UserName: user, PolicyName: aws.String("long"), PolicyDocument: &long})
	must(t, err)
	_, err = c.PutUserPolicy(ctx, &awsiam.PutUserPolicyInput{UserName: user, PolicyName: aws.String("longer"), PolicyDocument: &long})
	wantCode(t, err, "LimitExceeded")
	_, err = c.DeleteUserPolicy(ctx, &awsiam.DeleteUserPolicyInput{UserName: user, PolicyName: aws.String("long")})
	must(t, err)
	_, err = c.DeleteAccessKey(ctx, &awsiam.DeleteAccessKeyInput{UserName: user, AccessKeyId: &ann.ID})
	must(t, err)
	_, err = c.DeleteUser(ctx, &awsiam.DeleteUserInput{UserName: user})
	wantCode(t, err, "DeleteConflict")
	_, err = c.DeleteUserPolicy(ctx, &awsiam.DeleteUserPolicyInput{UserName: user, PolicyName: name})
	must(t, err)
	_, err = c.DeleteUserPolicy(ctx, &awsiam.DeleteUserPolicyInput{UserName: user, PolicyName: name})
	wantCode(t, err, "NoSuchEntity")
	_, err = c.DeleteUser(ctx, &awsiam.DeleteUserInput{UserName: user})
	must(t, err)
}

// What Terraform asks of a role before, between and after: it deletes one only when
// it has found nothing of it.
func TestRolesAsToolsUseThem(t *testing.T) {
	s, ctx := newSite(t), t.Context()
	c := s.iam(s.admin, "")
	role, name, text := aws.String("operator"), aws.String("own"), allowing(`"drs:*"`, `"*"`)
	_, err := c.CreateRole(ctx, &awsiam.CreateRoleInput{RoleName: role, AssumeRolePolicyDocument: aws.String(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + home.ID + `:root"},"Action":"sts:AssumeRole"}]}`)})
	must(t, err)
	_, err = c.PutRolePolicy(ctx, &awsiam.PutRolePolicyInput{RoleName: role, PolicyName: name, PolicyDocument: &text})
	must(t, err)
	_, err = c.UpdateRole(ctx, &awsiam.UpdateRoleInput{RoleName: role, Description: aws.String("runs drills"), MaxSessionDuration: aws.Int32(7200)})
	must(t, err)
	got, err := c.GetRole(ctx, &awsiam.GetRoleInput{RoleName: role})
	must(t, err)
	if aws.ToString(got.Role.Description) != "runs drills" || aws.ToInt32(got.Role.MaxSessionDuration) != 7200 {
		t.Errorf("%+v", got.Role)
	}
	inline, err := c.GetRolePolicy(ctx, &awsiam.GetRolePolicyInput{RoleName: role, PolicyName: name})
	if err != nil || aws.ToString(inline.RoleName) != "operator" {
		t.Errorf("%+v, %v", inline, err)
	}
	if profiles, err := c.ListInstanceProfilesForRole(ctx, &awsiam.ListInstanceProfilesForRoleInput{RoleName: role}); err != nil || len(profiles.InstanceProfiles) != 0 {
		t.Errorf("%+v, %v", profiles, err)
	}
	_, err = c.DeleteRole(ctx, &awsiam.DeleteRoleInput{RoleName: role})
	wantCode(t, err, "DeleteConflict")
	_, err = c.DeleteRolePolicy(ctx, &awsiam.DeleteRolePolicyInput{RoleName: role, PolicyName: name})
	must(t, err)
	_, err = c.DeleteRole(ctx, &awsiam.DeleteRoleInput{RoleName: role})
	must(t, err)
}

// A group's policies, of either kind, speak of its users while they are in it.
func TestGroups(t *testing.T) {
	s, ctx := newSite(t), t.Context()
	c := s.iam(s.admin, "")
	ann, bob := s.user(home.ID, "ann"), s.user(home.ID, "bob")
	group, user := aws.String("operators"), aws.String("ann")
	_, err := c.CreateGroup(ctx, &awsiam.CreateGroupInput{GroupName: group})
	must(t, err)
	_, err = c.CreateGroup(ctx, &awsiam.CreateGroupInput{GroupName: group})
	wantCode(t, err, "EntityAlreadyExists")
	for range 2 {
		_, err = c.AddUserToGroup(ctx, &awsiam.AddUserToGroupInput{GroupName: group, UserName: user})
		must(t, err)
	}
	_, err = c.AttachGroupPolicy(ctx, &awsiam.AttachGroupPolicyInput{GroupName: group, PolicyArn: aws.String("arn:aws:iam::aws:policy/AWSElasticDisasterRecoveryReadOnlyAccess")})
	must(t, err)
	text := allowing(`"drs:StartRecovery"`, `"*"`)
	_, err = c.PutGroupPolicy(ctx, &awsiam.PutGroupPolicyInput{GroupName: group, PolicyName: aws.String("own"), PolicyDocument: &text})
	must(t, err)
	for _, action := range []string{"drs:DescribeJobs", "drs:StartRecovery"} {
		if !s.may(ann, action) || s.may(bob, action) {
			t.Errorf("%s: ann %v, bob %v", action, s.may(ann, action), s.may(bob, action))
		}
	}
	if got, err := c.GetGroup(ctx, &awsiam.GetGroupInput{GroupName: group}); err != nil || len(got.Users) != 1 || aws.ToString(got.Users[0].UserName) != "ann" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := c.ListGroupsForUser(ctx, &awsiam.ListGroupsForUserInput{UserName: user}); err != nil || len(got.Groups) != 1 || aws.ToString(got.Groups[0].Arn) != "arn:aws:iam::"+home.ID+":group/operators" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := c.ListAttachedGroupPolicies(ctx, &awsiam.ListAttachedGroupPoliciesInput{GroupName: group}); err != nil || len(got.AttachedPolicies) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	// An explicit deny of the group's beats what is the user's own, and is named.
	deny := strings.Replace(allowing(`"drs:DescribeJobs"`, `"*"`), "Allow", "Deny", 1)
	_, err = c.PutGroupPolicy(ctx, &awsiam.PutGroupPolicyInput{GroupName: group, PolicyName: aws.String("no"), PolicyDocument: &deny})
	must(t, err)
	p, err := s.directory.AccessKey(ctx, ann.ID)
	must(t, err)
	err = s.guard.Authorize(ctx, p.Principal, iam.Ask{Action: "drs:DescribeJobs", Resource: "*", Context: policy.Context{}})
	if err == nil || !strings.Contains(err.Error(), "no of group/operators") {
		t.Errorf("%v", err)
	}
	_, err = c.DeleteUser(ctx, &awsiam.DeleteUserInput{UserName: user})
	wantCode(t, err, "DeleteConflict")
	_, err = c.DeleteGroup(ctx, &awsiam.DeleteGroupInput{GroupName: group})
	wantCode(t, err, "DeleteConflict")
	_, err = c.RemoveUserFromGroup(ctx, &awsiam.RemoveUserFromGroupInput{GroupName: group, UserName: user})
	must(t, err)
	if s.may(ann, "drs:StartRecovery") {
		t.Error("who left the group may do what it may")
	}
	// Another account has no such group.
	if _, err := s.directory.Group(ctx, "444455556666", "operators"); err == nil {
		t.Error("a group is another account's, too")
	}
	_, err = c.CreateUser(ctx, &awsiam.CreateUserInput{UserName: aws.String("carl"), Tags: nil, Path: aws.String("/")})
	must(t, err)
}
