package iamapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
	"lifeboat/internal/iam/directory"
)

var (
	home   = drs.Account{ID: "111122223333", Region: "eu-west-1"}
	master = bytes.Repeat([]byte("m"), 32)
)

// site is a served Handler over tables of its own.
type site struct {
	t         *testing.T
	db        *db.DB
	directory *directory.Directory
	guard     *iam.Guard
	server    *httptest.Server
	admin     iam.AccessKey
	calls     []Call
	now       time.Time
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, admin: iam.NewAccessKey(home), now: time.Now()}
	var err error
	s.db, err = db.Create(t.Context(), filepath.Join(t.TempDir(), "lifeboat.db"))
	must(t, err)
	t.Cleanup(func() { s.db.Close() })
	s.directory, err = directory.New(s.db, master, s.admin)
	must(t, err)
	sessions, err := iam.NewSessions(master, func() time.Time { return s.now })
	must(t, err)
	s.guard = &iam.Guard{Policies: s.directory}
	s.server = httptest.NewServer(New(Config{
		Directory: s.directory, Guard: s.guard, Sessions: sessions, Region: home.Region,
		Log: slog.New(slog.DiscardHandler), Record: func(c Call) { s.calls = append(s.calls, c) }, Now: func() time.Time { return s.now },
	}))
	t.Cleanup(s.server.Close)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *site) iam(key iam.AccessKey, token string) *awsiam.Client {
	return awsiam.New(awsiam.Options{
		Region: home.Region, BaseEndpoint: aws.String(s.server.URL), Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(key.ID, key.Secret.Reveal(), token),
	})
}

func (s *site) sts(key iam.AccessKey, token string) *sts.Client {
	return sts.New(sts.Options{
		Region: home.Region, BaseEndpoint: aws.String(s.server.URL), Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(key.ID, key.Secret.Reveal(), token),
	})
}

// code is the error code that a client of the SDK saw.
func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return fmt.Sprint(err)
}

func wantCode(t *testing.T, err error, want string) {
	t.Helper()
	if got := code(err); got != want {
		t.Errorf("%s (%v), want %s", got, err, want)
	}
}

// user makes a user with a key, and policies by document.
func (s *site) user(account, name string, documents ...string) iam.AccessKey {
	s.t.Helper()
	ctx := s.t.Context()
	_, err := s.directory.CreateUser(ctx, account, name, "")
	must(s.t, err)
	for i, text := range documents {
		p, err := s.directory.CreatePolicy(ctx, account, "", fmt.Sprintf("%s-%d", name, i), "", text)
		must(s.t, err)
		must(s.t, s.directory.Attach(ctx, account, directory.Holder{Kind: iam.User, Name: name}, p.ARN))
	}
	key, _, err := s.directory.CreateKey(ctx, account, name)
	must(s.t, err)
	return key
}

func allowing(actions, resources string) string {
	return `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":` + actions + `,"Resource":` + resources + `}}`
}

func TestUsersAndKeys(t *testing.T) {
	s, ctx := newSite(t), t.Context()
	root := s.iam(s.admin, "")
	made, err := root.CreateUser(ctx, &awsiam.CreateUserInput{UserName: aws.String("ann")})
	must(t, err)
	if arn := aws.ToString(made.User.Arn); arn != "arn:aws:iam::111122223333:user/ann" || !strings.HasPrefix(*made.User.UserId, "AIDA") || made.User.CreateDate == nil {
		t.Errorf("made %+v", made.User)
	}
	_, err = root.CreateUser(ctx, &awsiam.CreateUserInput{UserName: aws.String("ann")})
	wantCode(t, err, "EntityAlreadyExists")
	_, err = root.CreateUser(ctx, &awsiam.CreateUserInput{UserName: aws.String("a/b")})
	wantCode(t, err, "ValidationError")
	_, err = root.GetUser(ctx, &awsiam.GetUserInput{UserName: aws.String("bob")})
	wantCode(t, err, "NoSuchEntity")

	// Keys: two at most, listed without their secret, switched off and on.
	first, err := root.CreateAccessKey(ctx, &awsiam.CreateAccessKeyInput{UserName: aws.String("ann")})
	must(t, err)
	second, err := root.CreateAccessKey(ctx, &awsiam.CreateAccessKeyInput{UserName: aws.String("ann")})
	must(t, err)
	_, err = root.CreateAccessKey(ctx, &awsiam.CreateAccessKeyInput{UserName: aws.String("ann")})
	wantCode(t, err, "LimitExceeded")
	listed, err := root.ListAccessKeys(ctx, &awsiam.ListAccessKeysInput{UserName: aws.String("ann")})
	must(t, err)
	if len(listed.AccessKeyMetadata) != 2 || *listed.AccessKeyMetadata[0].AccessKeyId != *first.AccessKey.AccessKeyId {
		t.Errorf("listed %+v", listed.AccessKeyMetadata)
	}
	ann := iam.AccessKey{ID: *first.AccessKey.AccessKeyId, Secret: iam.Secret(*first.AccessKey.SecretAccessKey)}
	me, err := s.sts(ann, "").GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	must(t, err)
	if *me.Arn != *made.User.Arn || *me.Account != home.ID || *me.UserId != *made.User.UserId {
		t.Errorf("caller %v", me)
	}
	set := func(status iamtypes.StatusType) {
		_, err := root.UpdateAccessKey(ctx, &awsiam.UpdateAccessKeyInput{UserName: aws.String("ann"), AccessKeyId: &ann.ID, Status: status})
		must(t, err)
	}
	set(iamtypes.StatusTypeInactive)
	_, err = s.sts(ann, "").GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	wantCode(t, err, "InvalidClientTokenId")
	set(iamtypes.StatusTypeActive)
	_, err = s.sts(ann, "").GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	must(t, err)
	_, err = s.sts(iam.AccessKey{ID: ann.ID, Secret: "wrong"}, "").GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	wantCode(t, err, "SignatureDoesNotMatch")

	// A user in use is not deleted.
	_, err = root.DeleteUser(ctx, &awsiam.DeleteUserInput{UserName: aws.String("ann")})
	wantCode(t, err, "DeleteConflict")
	for _, k := range []*string{first.AccessKey.AccessKeyId, second.AccessKey.AccessKeyId} {
		_, err = root.DeleteAccessKey(ctx, &awsiam.DeleteAccessKeyInput{UserName: aws.String("ann"), AccessKeyId: k})
		must(t, err)
	}
	_, err = root.DeleteUser(ctx, &awsiam.DeleteUserInput{UserName: aws.String("ann")})
	must(t, err)
	_, err = s.sts(ann, "").GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	wantCode(t, err, "InvalidClientTokenId")

	for _, name := range []string{"u1", "u2", "u3"} {
		_, err := root.CreateUser(ctx, &awsiam.CreateUserInput{UserName: &name})
		must(t, err)
	}
	var names []string
	pages := awsiam.NewListUsersPaginator(root, &awsiam.ListUsersInput{MaxItems: aws.Int32(2)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		must(t, err)
		for _, u := range page.Users {
			names = append(names, *u.UserName)
		}
	}
	if strings.Join(names, " ") != "u1 u2 u3" {
		t.Errorf("listed %v", names)
	}
}

func TestPolicies(t *testing.T) {
	s, ctx := newSite(t), t.Context()
	root := s.iam(s.admin, "")
	bob := s.user(home.ID, "bob")
	_, err := s.iam(bob, "").ListUsers(ctx, &awsiam.ListUsersInput{})
	wantCode(t, err, "AccessDenied")
	if !strings.Contains(err.Error(), "User: arn:aws:iam::111122223333:user/bob is not authorized to perform: iam:ListUsers on resource: arn:aws:iam::111122223333:user/") {
		t.Errorf("%v", err)
	}
	made, err := root.CreatePolicy(ctx, &awsiam.CreatePolicyInput{PolicyName: aws.String("look"), PolicyDocument: aws.String(allowing(`"iam:ListUsers"`, `"*"`))})
	must(t, err)
	_, err = root.AttachUserPolicy(ctx, &awsiam.AttachUserPolicyInput{UserName: aws.String("bob"), PolicyArn: made.Policy.Arn})
	must(t, err)
	_, err = s.iam(bob, "").ListUsers(ctx, &awsiam.ListUsersInput{})
	must(t, err)

	got, err := root.GetPolicy(ctx, &awsiam.GetPolicyInput{PolicyArn: made.Policy.Arn})
	must(t, err)
	if *got.Policy.AttachmentCount != 1 || *got.Policy.DefaultVersionId != "v1" {
		t.Errorf("policy %+v", got.Policy)
	}
	version, err := root.GetPolicyVersion(ctx, &awsiam.GetPolicyVersionInput{PolicyArn: made.Policy.Arn, VersionId: aws.String("v1")})
	must(t, err)
	if text, err := url.QueryUnescape(*version.PolicyVersion.Document); err != nil || text != allowing(`"iam:ListUsers"`, `"*"`) {
		t.Errorf("document %q, %v", *version.PolicyVersion.Document, err)
	}
	_, err = root.CreatePolicyVersion(ctx, &awsiam.CreatePolicyVersionInput{PolicyArn: made.Policy.Arn, PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":{"Effect":"Allow"}}`), SetAsDefault: true})
	wantCode(t, err, "MalformedPolicyDocument")
	if !strings.Contains(fmt.Sprint(err), "Statement (line 1, column") {
		t.Errorf("%v does not name the place", err)
	}
	_, err = root.CreatePolicyVersion(ctx, &awsiam.CreatePolicyVersionInput{PolicyArn: made.Policy.Arn, PolicyDocument: aws.String(allowing(`"iam:GetUser"`, `"*"`)), SetAsDefault: true})
	must(t, err)
	_, err = s.iam(bob, "").ListUsers(ctx, &awsiam.ListUsersInput{})
	wantCode(t, err, "AccessDenied")
	_, err = root.DeletePolicy(ctx, &awsiam.DeletePolicyInput{PolicyArn: made.Policy.Arn})
	wantCode(t, err, "DeleteConflict")
	_, err = root.DetachUserPolicy(ctx, &awsiam.DetachUserPolicyInput{UserName: aws.String("bob"), PolicyArn: made.Policy.Arn})
	must(t, err)
	_, err = root.DeletePolicy(ctx, &awsiam.DeletePolicyInput{PolicyArn: made.Policy.Arn})
	must(t, err)

	// The managed policies of AWS are there, and cannot be changed.
	const readOnly = "arn:aws:iam::aws:policy/AWSElasticDisasterRecoveryReadOnlyAccess"
	_, err = root.AttachUserPolicy(ctx, &awsiam.AttachUserPolicyInput{UserName: aws.String("bob"), PolicyArn: aws.String(readOnly)})
	must(t, err)
	_, err = root.DeletePolicy(ctx, &awsiam.DeletePolicyInput{PolicyArn: aws.String(readOnly)})
	wantCode(t, err, "AccessDenied")
	attached, err := root.ListAttachedUserPolicies(ctx, &awsiam.ListAttachedUserPoliciesInput{UserName: aws.String("bob")})
	must(t, err)
	if len(attached.AttachedPolicies) != 1 || *attached.AttachedPolicies[0].PolicyName != "AWSElasticDisasterRecoveryReadOnlyAccess" {
		t.Errorf("attached %+v", attached.AttachedPolicies)
	}
	_, err = root.AttachUserPolicy(ctx, &awsiam.AttachUserPolicyInput{UserName: aws.String("bob"), PolicyArn: aws.String("arn:aws:iam::111122223333:policy/none")})
	wantCode(t, err, "NoSuchEntity")
	count := 0
	pages := awsiam.NewListPoliciesPaginator(root, &awsiam.ListPoliciesInput{Scope: iamtypes.PolicyScopeTypeAws, MaxItems: aws.Int32(2)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		must(t, err)
		count += len(page.Policies)
	}
	if count < 5 {
		t.Errorf("%d managed policies are listed", count)
	}
}

const trustAccount = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"111122223333"}}}`

func TestAssumeRole(t *testing.T) {
	s, ctx := newSite(t), t.Context()
	root := s.iam(s.admin, "")
	_, err := root.CreateRole(ctx, &awsiam.CreateRoleInput{RoleName: aws.String("bad"), AssumeRolePolicyDocument: aws.String("{}")})
	wantCode(t, err, "MalformedPolicyDocument")
	role, err := root.CreateRole(ctx, &awsiam.CreateRoleInput{RoleName: aws.String("operator"), AssumeRolePolicyDocument: aws.String(trustAccount)})
	must(t, err)
	must(t, s.directory.Attach(ctx, home.ID, directory.Holder{Kind: iam.Role, Name: "operator"}, "arn:aws:iam::aws:policy/IAMFullAccess"))

	assume := func(key iam.AccessKey, token string, change func(*sts.AssumeRoleInput)) (*sts.AssumeRoleOutput, error) {
		in := &sts.AssumeRoleInput{RoleArn: role.Role.Arn, RoleSessionName: aws.String("night")}
		if change != nil {
			change(in)
		}
		return s.sts(key, token).AssumeRole(ctx, in)
	}
	// The account is trusted, so the user's own policies decide.
	nobody := s.user(home.ID, "nobody")
	_, err = assume(nobody, "", nil)
	wantCode(t, err, "AccessDenied")
	may := s.user(home.ID, "may", allowing(`"sts:AssumeRole"`, `"arn:aws:iam::111122223333:role/oper*"`))
	out, err := assume(may, "", nil)
	must(t, err)
	if *out.AssumedRoleUser.Arn != "arn:aws:sts::111122223333:assumed-role/operator/night" || !strings.HasPrefix(*out.Credentials.AccessKeyId, "ASIA") ||
		out.Credentials.Expiration.Sub(s.now).Round(time.Minute) != time.Hour {
		t.Errorf("assumed %+v until %s", out.AssumedRoleUser, out.Credentials.Expiration)
	}
	session := iam.AccessKey{ID: *out.Credentials.AccessKeyId, Secret: iam.Secret(*out.Credentials.SecretAccessKey)}
	token := *out.Credentials.SessionToken
	_, err = s.iam(session, token).ListUsers(ctx, &awsiam.ListUsersInput{})
	must(t, err)
	_, err = s.iam(may, "").ListUsers(ctx, &awsiam.ListUsersInput{}) // the role's rights are not the user's
	wantCode(t, err, "AccessDenied")
	_, err = s.iam(session, "").ListUsers(ctx, &awsiam.ListUsersInput{})
	wantCode(t, err, "InvalidClientTokenId")

	// A role has no access keys, and those of the account's root are not its own.
	rootKey, err := s.directory.CreateRootKey(ctx, home.ID)
	must(t, err)
	_, err = s.iam(session, token).ListAccessKeys(ctx, &awsiam.ListAccessKeysInput{})
	wantCode(t, err, "ValidationError")
	_, err = s.iam(session, token).CreateAccessKey(ctx, &awsiam.CreateAccessKeyInput{})
	wantCode(t, err, "ValidationError")
	_, err = s.iam(session, token).UpdateAccessKey(ctx, &awsiam.UpdateAccessKeyInput{AccessKeyId: &rootKey.ID, Status: iamtypes.StatusTypeInactive})
	wantCode(t, err, "ValidationError")
	_, err = s.iam(session, token).DeleteAccessKey(ctx, &awsiam.DeleteAccessKeyInput{AccessKeyId: &rootKey.ID})
	wantCode(t, err, "ValidationError")
	_, err = s.iam(rootKey, "").DeleteAccessKey(ctx, &awsiam.DeleteAccessKeyInput{AccessKeyId: &rootKey.ID})
	must(t, err)

	me, err := s.sts(session, token).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	must(t, err)
	if *me.Arn != *out.AssumedRoleUser.Arn || *me.UserId != *out.AssumedRoleUser.AssumedRoleId {
		t.Errorf("caller %v", me)
	}

	// A session policy takes away, and never adds.
	limited, err := assume(may, "", func(in *sts.AssumeRoleInput) {
		in.Policy = aws.String(allowing(`["iam:ListRoles","drs:*"]`, `"*"`))
	})
	must(t, err)
	less := iam.AccessKey{ID: *limited.Credentials.AccessKeyId, Secret: iam.Secret(*limited.Credentials.SecretAccessKey)}
	_, err = s.iam(less, *limited.Credentials.SessionToken).ListRoles(ctx, &awsiam.ListRolesInput{})
	must(t, err)
	_, err = s.iam(less, *limited.Credentials.SessionToken).ListUsers(ctx, &awsiam.ListUsersInput{})
	wantCode(t, err, "AccessDenied")

	for change, want := range map[string]func(*sts.AssumeRoleInput){
		"ValidationError":         func(in *sts.AssumeRoleInput) { in.DurationSeconds = aws.Int32(3601) },
		"MalformedPolicyDocument": func(in *sts.AssumeRoleInput) { in.Policy = aws.String("{}") },
		"AccessDenied":            func(in *sts.AssumeRoleInput) { in.RoleArn = aws.String("arn:aws:iam::111122223333:role/none") },
	} {
		_, err := assume(may, "", want)
		wantCode(t, err, change)
	}

	// A trust that names the user is enough in the same account; conditions hold.
	direct := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::111122223333:user/nobody"},
		"Condition":{"StringEquals":{"sts:ExternalId":"7"}}}}`
	_, err = root.UpdateAssumeRolePolicy(ctx, &awsiam.UpdateAssumeRolePolicyInput{RoleName: aws.String("operator"), PolicyDocument: &direct})
	must(t, err)
	_, err = assume(nobody, "", nil)
	wantCode(t, err, "AccessDenied")
	_, err = assume(nobody, "", func(in *sts.AssumeRoleInput) { in.ExternalId = aws.String("7") })
	must(t, err)
	_, err = assume(may, "", func(in *sts.AssumeRoleInput) { in.ExternalId = aws.String("7") })
	wantCode(t, err, "AccessDenied") // no longer trusted, whatever its policies say

	// Sessions end by themselves, and with their role.
	s.now = s.now.Add(61 * time.Minute)
	_, err = s.iam(session, token).ListUsers(ctx, &awsiam.ListUsersInput{})
	if got := code(err); got != "ExpiredToken" && got != "SignatureDoesNotMatch" { // the client's clock did not move
		t.Errorf("an hour later: %v", err)
	}
	s.now = s.now.Add(-61 * time.Minute)
	must(t, s.directory.Detach(ctx, home.ID, directory.Holder{Kind: iam.Role, Name: "operator"}, "arn:aws:iam::aws:policy/IAMFullAccess"))
	_, err = s.iam(session, token).ListUsers(ctx, &awsiam.ListUsersInput{})
	wantCode(t, err, "AccessDenied")
	_, err = root.DeleteRole(ctx, &awsiam.DeleteRoleInput{RoleName: aws.String("operator")})
	must(t, err)
	_, err = s.iam(session, token).ListUsers(ctx, &awsiam.ListUsersInput{})
	wantCode(t, err, "InvalidClientTokenId")
}

func TestSessionToken(t *testing.T) {
	s, ctx := newSite(t), t.Context()
	ann := s.user(home.ID, "ann", allowing(`"iam:ListUsers"`, `"*"`))
	out, err := s.sts(ann, "").GetSessionToken(ctx, &sts.GetSessionTokenInput{DurationSeconds: aws.Int32(900)})
	must(t, err)
	session, token := iam.AccessKey{ID: *out.Credentials.AccessKeyId, Secret: iam.Secret(*out.Credentials.SecretAccessKey)}, *out.Credentials.SessionToken
	_, err = s.iam(session, token).ListUsers(ctx, &awsiam.ListUsersInput{})
	must(t, err)
	me, err := s.sts(session, token).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	must(t, err)
	if *me.Arn != "arn:aws:iam::111122223333:user/ann" {
		t.Errorf("caller %s", *me.Arn)
	}
	_, err = s.sts(session, token).GetSessionToken(ctx, &sts.GetSessionTokenInput{})
	wantCode(t, err, "AccessDenied")
	_, err = s.sts(ann, "").GetSessionToken(ctx, &sts.GetSessionTokenInput{DurationSeconds: aws.Int32(60)})
	wantCode(t, err, "ValidationError")
}

// Accounts see nothing of each other: what one names of the other's is absent.
func TestAccounts(t *testing.T) {
	s, ctx := newSite(t), t.Context()
	must(t, second(s.directory.CreateUser(ctx, home.ID, "ann", "")))
	other, key, err := s.directory.CreateAccount(ctx, "", "acme")
	must(t, err)
	acme := s.iam(key, "")
	me, err := s.sts(key, "").GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	must(t, err)
	if *me.Arn != "arn:aws:iam::"+other.ID+":root" {
		t.Errorf("caller %s", *me.Arn)
	}
	users, err := acme.ListUsers(ctx, &awsiam.ListUsersInput{})
	must(t, err)
	if len(users.Users) != 0 {
		t.Errorf("the other account sees %+v", users.Users)
	}
	_, err = acme.CreateAccessKey(ctx, &awsiam.CreateAccessKeyInput{UserName: aws.String("ann")})
	wantCode(t, err, "NoSuchEntity")
	policy, err := s.directory.CreatePolicy(ctx, home.ID, "", "p", "", allowing(`"*"`, `"*"`))
	must(t, err)
	_, err = acme.GetPolicy(ctx, &awsiam.GetPolicyInput{PolicyArn: &policy.ARN})
	wantCode(t, err, "NoSuchEntity")
	must(t, second(s.directory.CreateUser(ctx, other.ID, "eve", "")))
	_, err = acme.AttachUserPolicy(ctx, &awsiam.AttachUserPolicyInput{UserName: aws.String("eve"), PolicyArn: &policy.ARN})
	wantCode(t, err, "NoSuchEntity")

	// A role is assumed across accounts when both sides agree.
	trust := strings.Replace(trustAccount, home.ID, other.ID, 1)
	must(t, second(s.directory.CreateRole(ctx, home.ID, "", directory.Role{Name: "shared", Trust: trust})))
	eve, _, err := s.directory.CreateKey(ctx, other.ID, "eve")
	must(t, err)
	in := &sts.AssumeRoleInput{RoleArn: aws.String(iam.RoleARN(home.ID, "shared")), RoleSessionName: aws.String("eve")}
	_, err = s.sts(eve, "").AssumeRole(ctx, in)
	wantCode(t, err, "AccessDenied")
	absent := &sts.AssumeRoleInput{RoleArn: aws.String(iam.RoleARN(home.ID, "none")), RoleSessionName: aws.String("eve")}
	_, noRole := s.sts(key, "").AssumeRole(ctx, absent)
	wantCode(t, noRole, "AccessDenied")
	must(t, s.directory.Attach(ctx, other.ID, directory.Holder{Kind: iam.User, Name: "eve"}, "arn:aws:iam::aws:policy/AdministratorAccess"))
	out, err := s.sts(eve, "").AssumeRole(ctx, in)
	must(t, err)
	if *out.AssumedRoleUser.Arn != "arn:aws:sts::111122223333:assumed-role/shared/eve" {
		t.Errorf("assumed %s", *out.AssumedRoleUser.Arn)
	}

	if _, _, err := s.directory.CreateAccount(ctx, home.ID, "again"); err == nil {
		t.Error("the default account was made again")
	}
	list, err := s.directory.Accounts(ctx)
	must(t, err)
	if len(list) != 2 {
		t.Errorf("accounts %+v", list)
	}
}

func second[T any](_ T, err error) error { return err }

// Secrets are sealed at rest; a directory with another master key opens none.
func TestSecretsAtRest(t *testing.T) {
	s, ctx := newSite(t), t.Context()
	key := s.user(home.ID, "ann")
	rows, _, err := s.db.Identities(ctx)
	must(t, err)
	for _, row := range rows {
		if bytes.Contains(row.Body, []byte(key.Secret.Reveal())) {
			t.Errorf("%s %s holds the secret: %s", row.Kind, row.Name, row.Body)
		}
	}
	foreign, err := directory.New(s.db, bytes.Repeat([]byte("x"), 32), s.admin)
	must(t, err)
	if _, err := foreign.AccessKey(ctx, key.ID); !errors.Is(err, iam.ErrSealed) {
		t.Errorf("with another master key: %v", err)
	}
	// Two directories over the same tables agree at once.
	twin, err := directory.New(s.db, master, s.admin)
	must(t, err)
	if _, err := twin.AccessKey(ctx, key.ID); err != nil {
		t.Error(err)
	}
	must(t, s.directory.DeleteKey(ctx, home.ID, "ann", key.ID))
	if _, err := twin.AccessKey(ctx, key.ID); !errors.Is(err, iam.ErrUnknownKey) {
		t.Errorf("a key that the other directory deleted: %v", err)
	}
}

// Whatever comes is answered in the form of the protocol, and recorded.
func TestMalformed(t *testing.T) {
	s := newSite(t)
	post := func(body string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "POST", s.server.URL+"/", strings.NewReader(body))
		must(t, err)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		answer, err := http.DefaultClient.Do(r)
		must(t, err)
		defer answer.Body.Close()
		var text bytes.Buffer
		_, err = text.ReadFrom(answer.Body)
		must(t, err)
		return answer.StatusCode, text.String()
	}
	status, text := post("Action=ListUsers")
	if status != 403 || !strings.Contains(text, "<Code>MissingAuthenticationToken</Code>") {
		t.Errorf("unsigned: %d %s", status, text)
	}
	if c := s.calls[len(s.calls)-1]; c.Code != "MissingAuthenticationToken" || c.Key.ID != "" {
		t.Errorf("recorded %+v", c)
	}
	if status, text := post(strings.Repeat("x", maxBody+1)); status != 400 || !strings.Contains(text, "MalformedInput") {
		t.Errorf("too large: %d %s", status, text)
	}
	_, err := s.iam(s.admin, "").ListVirtualMFADevices(t.Context(), &awsiam.ListVirtualMFADevicesInput{})
	wantCode(t, err, "InvalidAction")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.iam(s.admin, "").ListUsers(ctx, &awsiam.ListUsersInput{}); err == nil {
		t.Error("a cancelled request succeeded")
	}
}
