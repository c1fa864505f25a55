package iam

import (
	"strconv"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/iam/policy"
)

// Kind tells root, users and roles apart.
type Kind string

const (
	Root Kind = "Root" // of an account: may do everything in it
	User Kind = "IAMUser"
	Role Kind = "AssumedRole"
)

// Principal is who calls.
type Principal struct {
	Kind    Kind
	Account drs.Account
	// Name and ID are the user's or role's, empty for root. The ID is never used
	// again, not even for another one of the same name.
	Name, ID string
	// Session is set where temporary credentials sign.
	Session *Session
}

// Session is what temporary credentials stand for.
type Session struct {
	Name           string    // as the caller of AssumeRole chose; empty for GetSessionToken
	Issued         time.Time // and
	Expires        time.Time
	SourceIdentity string
	Policy         string // limits what the role's own policies allow; empty: does not
}

// RootOf is the principal that owns an account.
func RootOf(account drs.Account) Principal { return Principal{Kind: Root, Account: account} }

// ARN names the principal as AWS does.
func (p Principal) ARN() string {
	switch p.Kind {
	case User:
		return "arn:aws:iam::" + p.Account.ID + ":user/" + p.Name
	case Role:
		return "arn:aws:sts::" + p.Account.ID + ":assumed-role/" + p.Name + "/" + p.sessionName()
	}
	return "arn:aws:iam::" + p.Account.ID + ":root"
}

// RoleARN names the role of a session.
func (p Principal) RoleARN() string { return RoleARN(p.Account.ID, p.Name) }

// RoleARN names a role.
func RoleARN(account, name string) string { return "arn:aws:iam::" + account + ":role/" + name }

// UserID is what aws:userid and GetCallerIdentity tell.
func (p Principal) UserID() string {
	switch p.Kind {
	case User:
		return p.ID
	case Role:
		return p.ID + ":" + p.sessionName()
	}
	return p.Account.ID
}

func (p Principal) sessionName() string {
	if p.Session == nil {
		return ""
	}
	return p.Session.Name
}

// Names are all ARNs that a trust policy may name the principal by.
func (p Principal) Names() []string {
	if p.Kind == Role {
		return []string{p.ARN(), p.RoleARN()}
	}
	return []string{p.ARN()}
}

// Describe sets the condition keys that speak of the principal.
func (p Principal) Describe(c policy.Context) {
	c.Set("aws:PrincipalAccount", p.Account.ID)
	c.Set("aws:userid", p.UserID())
	switch p.Kind {
	case Root:
		c.Set("aws:PrincipalType", "Account")
		c.Set("aws:PrincipalArn", p.ARN())
	case User:
		c.Set("aws:PrincipalType", "User")
		c.Set("aws:PrincipalArn", p.ARN())
		c.Set("aws:username", p.Name)
	case Role:
		c.Set("aws:PrincipalType", "AssumedRole")
		c.Set("aws:PrincipalArn", p.RoleARN())
	}
	if s := p.Session; s != nil {
		c.Set("aws:TokenIssueTime", s.Issued.UTC().Format(time.RFC3339))
		if s.SourceIdentity != "" {
			c.Set("aws:SourceIdentity", s.SourceIdentity)
		}
	}
}

// Moment sets the condition keys that speak of the time.
func Moment(c policy.Context, now time.Time) {
	c.Set("aws:CurrentTime", now.UTC().Format(time.RFC3339))
	c.Set("aws:EpochTime", strconv.FormatInt(now.Unix(), 10))
}
