package directory

import (
	"context"
	"time"

	"lifeboat/internal/iam"
	"lifeboat/internal/iam/policy"
)

// Role is what somebody may become for a while.
type Role struct {
	Name        string        `json:"name"`
	ID          string        `json:"id"` // AROA…
	Description string        `json:"description,omitempty"`
	Trust       string        `json:"trust"` // the trust policy
	MaxSession  time.Duration `json:"maxSession"`
	Created     time.Time     `json:"created"`
	Grants

	trust *policy.Document
}

// Limits of a role's sessions.
const (
	MinSession     = 15 * time.Minute
	DefaultSession = time.Hour
	LongestSession = 12 * time.Hour
)

const maxRoles = 1000

// CreateRole makes a role that may do nothing yet; of the role given, ID, Created
// and Grants are set here.
func (d *Directory) CreateRole(ctx context.Context, account, path string, r Role) (made Role, err error) {
	if err := checkName("role", r.Name, 64); err != nil {
		return made, err
	}
	if err := checkPath(path); err != nil {
		return made, err
	}
	if r.MaxSession == 0 {
		r.MaxSession = DefaultSession
	}
	if err := r.check(); err != nil {
		return made, err
	}
	if err := checkTrust(r.Trust); err != nil {
		return made, err
	}
	err = d.change(ctx, func(c *change) error {
		a := c.account(account)
		if a.roles[r.Name] != nil {
			return refuse(CodeExists, "Role with name %s already exists.", r.Name)
		}
		if len(a.roles) >= maxRoles {
			return refuse(CodeLimit, "The account has %d roles, the most it may have.", maxRoles)
		}
		made = r
		made.ID, made.Created, made.Grants = newID("AROA"), d.now().UTC(), Grants{}
		c.keep(kindRole, account, r.Name, made)
		return nil
	})
	return made, err
}

func (r Role) check() error {
	switch {
	case r.MaxSession < DefaultSession || r.MaxSession > LongestSession:
		return refuse(CodeInvalid, "MaxSessionDuration must be 3600 to 43200 seconds.")
	case len(r.Description) > 1000:
		return refuse(CodeInvalid, "The description of a role has at most 1000 characters.")
	}
	return nil
}

// UpdateRole changes the description of a role and how long its sessions may be; nil
// and zero leave them.
func (d *Directory) UpdateRole(ctx context.Context, account, name string, description *string, longest time.Duration) error {
	return d.change(ctx, func(c *change) error {
		r := c.account(account).roles[name]
		if r == nil {
			return absent("role", name)
		}
		if description != nil {
			r.Description = *description
		}
		if longest != 0 {
			r.MaxSession = longest
		}
		if err := r.check(); err != nil {
			return err
		}
		c.keep(kindRole, account, name, r)
		return nil
	})
}

func checkTrust(text string) error {
	if _, err := policy.ParseTrust(text); err != nil {
		return refuse(CodeMalformed, "%v", err)
	}
	return nil
}

// Role returns one role.
func (d *Directory) Role(ctx context.Context, account, name string) (Role, error) {
	s, err := d.state(ctx)
	if err != nil {
		return Role{}, err
	}
	if r := s.existing(account).roles[name]; r != nil {
		return *r, nil
	}
	return Role{}, absent("role", name)
}

// Roles lists the roles of an account, by name.
func (d *Directory) Roles(ctx context.Context, account string) ([]Role, error) {
	s, err := d.state(ctx)
	if err != nil {
		return nil, err
	}
	return sorted(s.existing(account).roles), nil
}

// SetTrust replaces a role's trust policy. Sessions that it let begin go on.
func (d *Directory) SetTrust(ctx context.Context, account, name, trust string) error {
	if err := checkTrust(trust); err != nil {
		return err
	}
	return d.change(ctx, func(c *change) error {
		r := c.account(account).roles[name]
		if r == nil {
			return absent("role", name)
		}
		r.Trust = trust
		c.keep(kindRole, account, name, r)
		return nil
	})
}

// DeleteRole removes a role that has no policies. Its sessions end with it.
func (d *Directory) DeleteRole(ctx context.Context, account, name string) error {
	return d.change(ctx, func(c *change) error {
		r := c.account(account).roles[name]
		if r == nil {
			return absent("role", name)
		}
		if err := r.mayGo(); err != nil {
			return err
		}
		c.drop(kindRole, account, name)
		return nil
	})
}

// TrustOf tells how a role trusts a principal to do an action, in a context.
func (r Role) TrustOf(p iam.Principal, action string, c policy.Context) policy.Trust {
	return r.trust.Trusts(p.Account.ID, p.Names(), action, c)
}
