package iamapi

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
	"lifeboat/internal/iam/directory"
	"lifeboat/internal/iam/policy"
)

type credentialsShape struct {
	AccessKeyID     string `xml:"AccessKeyId"`
	SecretAccessKey string
	SessionToken    string
	Expiration      string
}

// getCallerIdentity needs no permission: it tells callers who they are.
func getCallerIdentity(q *request) (any, error) {
	return struct {
		ARN     string `xml:"Arn"`
		UserID  string `xml:"UserId"`
		Account string
	}{q.Key.ARN(), q.Key.UserID(), q.account}, nil
}

// duration reads DurationSeconds.
func (q *request) duration(most, otherwise time.Duration) (time.Duration, error) {
	text := q.form.Get("DurationSeconds")
	if text == "" {
		return min(otherwise, most), nil
	}
	seconds, err := strconv.Atoi(text)
	if d := time.Duration(seconds) * time.Second; err == nil && seconds < 1<<20 && d >= directory.MinSession && d <= most {
		return d, nil
	}
	return 0, invalid("The requested DurationSeconds must be %d to %d here.", int(directory.MinSession.Seconds()), int(most.Seconds()))
}

func invalid(format string, args ...any) error {
	return &refusal{status: http.StatusBadRequest, Code: "ValidationError", Message: fmt.Sprintf(format, args...)}
}

func forbidden(format string, args ...any) error {
	return &drs.Error{Kind: drs.KindAccessDenied, Message: fmt.Sprintf(format, args...)}
}

func (q *request) issue(p iam.Principal) (credentialsShape, error) {
	key, token, err := q.Sessions.Issue(p)
	return credentialsShape{key.ID, key.Secret.Reveal(), token.Reveal(), stampOf(p.Session.Expires)}, err
}

// getSessionToken gives a user, or root, temporary credentials of its own.
func getSessionToken(q *request) (any, error) {
	const most, otherwise = 36 * time.Hour, 12 * time.Hour
	if q.Key.Session != nil {
		return nil, forbidden("Cannot call GetSessionToken with session credentials")
	}
	life, err := q.duration(most, otherwise)
	if err != nil {
		return nil, err
	}
	now := q.Now().UTC().Truncate(time.Second)
	p := q.Key.Principal
	p.Session = &iam.Session{Issued: now, Expires: now.Add(life)}
	credentials, err := q.issue(p)
	return struct{ Credentials credentialsShape }{credentials}, err
}

var (
	roleForm    = regexp.MustCompile(`^arn:aws:iam::([0-9]{12}):role/([\w+=,.@-]{1,64})$`)
	sessionForm = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)
)

const maxSessionPolicy = 2048

// assumeRole makes the caller a role for a while. It takes the role's trust, and,
// unless the trust names the caller and they share an account, a policy of the
// caller's.
func assumeRole(q *request) (any, error) {
	arn, err := q.need("RoleArn")
	if err != nil {
		return nil, err
	}
	name, err := q.need("RoleSessionName")
	if err != nil {
		return nil, err
	}
	form := roleForm.FindStringSubmatch(arn)
	if form == nil {
		return nil, invalid("%.200s is invalid: want arn:aws:iam::ACCOUNT:role/NAME", arn)
	}
	identity := q.form.Get("SourceIdentity")
	if !sessionForm.MatchString(name) || identity != "" && !sessionForm.MatchString(identity) {
		return nil, invalid("RoleSessionName and SourceIdentity have 2 to 64 letters, digits and characters of +=,.@_-.")
	}
	limit := q.form.Get("Policy")
	if err := checkSessionPolicy(limit); err != nil {
		return nil, err
	}
	for parameter := range q.form {
		if strings.HasPrefix(parameter, "PolicyArns.") || strings.HasPrefix(parameter, "Tags.") || strings.HasPrefix(parameter, "TransitiveTagKeys.") {
			return nil, invalid("%.64s: session tags and PolicyArns are not supported here; Policy is.", parameter)
		}
	}
	account := form[1]
	role, absent := q.Directory.Role(q.ctx(), account, form[2])
	if err := q.mayAssume(arn, account, role, absent == nil, name, identity); err != nil {
		return nil, err
	}
	most := role.MaxSession
	if q.Key.Kind == iam.Role { // chained
		most = directory.DefaultSession
	}
	life, err := q.duration(most, directory.DefaultSession)
	if err != nil {
		return nil, err
	}
	if kept := q.Key.Session; kept != nil && kept.SourceIdentity != "" {
		if identity != "" && identity != kept.SourceIdentity {
			return nil, forbidden("The source identity of a session cannot be changed.")
		}
		identity = kept.SourceIdentity
	}
	now := q.Now().UTC().Truncate(time.Second)
	p := iam.Principal{
		Kind: iam.Role, Account: drs.Account{ID: account, Region: q.Region}, Name: role.Name, ID: role.ID,
		Session: &iam.Session{Name: name, Issued: now, Expires: now.Add(life), SourceIdentity: identity, Policy: limit},
	}
	credentials, err := q.issue(p)
	type assumed struct {
		ID  string `xml:"AssumedRoleId"`
		ARN string `xml:"Arn"`
	}
	return struct {
		Credentials     credentialsShape
		AssumedRoleUser assumed
		SourceIdentity  string `xml:",omitempty"`
	}{credentials, assumed{p.UserID(), p.ARN()}, identity}, err
}

func checkSessionPolicy(text string) error {
	if text == "" {
		return nil
	}
	if len(text) > maxSessionPolicy {
		return &refusal{status: http.StatusBadRequest, Code: "PackedPolicyTooLarge", Message: fmt.Sprintf("A session policy has at most %d characters.", maxSessionPolicy)}
	}
	if _, err := policy.Parse(text); err != nil {
		return &refusal{status: http.StatusBadRequest, Code: directory.CodeMalformed, Message: err.Error()}
	}
	return nil
}

// mayAssume answers the same for a role that does not exist and one that does not
// trust the caller: what other accounts have is nobody's business.
func (q *request) mayAssume(arn, account string, role directory.Role, exists bool, session, identity string) error {
	const action = "sts:AssumeRole"
	c := q.context()
	c.Set("sts:RoleSessionName", session)
	if id := q.form.Get("ExternalId"); id != "" {
		c.Set("sts:ExternalId", id)
	}
	if identity != "" {
		c.Set("sts:SourceIdentity", identity)
	}
	trust := policy.NotTrusted
	if exists {
		trust = role.TrustOf(q.Key.Principal, action, c)
	}
	decision, err := q.Guard.Decide(q.ctx(), q.Key.Principal, iam.Ask{Action: action, Resource: arn, Context: c})
	switch {
	case decision == policy.NoStatement && trust == policy.DirectlyTrusted && account == q.account:
		return nil
	case trust == policy.NotTrusted:
		return forbidden("User: %s is not authorized to perform: %s on resource: %s", q.Key.ARN(), action, arn)
	}
	return err
}
