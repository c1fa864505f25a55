package directory

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"lifeboat/internal/iam/policy"
)

// Policy is a document that can be attached to users and roles of its account.
type Policy struct {
	Name        string    `json:"name"`
	ID          string    `json:"id"` // ANPA…
	Description string    `json:"description,omitempty"`
	Version     int       `json:"version"` // counts the documents it has had
	Text        string    `json:"document"`
	Created     time.Time `json:"created"`
	Updated     time.Time `json:"updated"`

	ARN      string `json:"-"`
	Attached int    `json:"-"` // to how many users, roles and groups

	document *policy.Document
}

const maxPolicies = 1500

func policyARN(account, name string) string { return "arn:aws:iam::" + account + ":policy/" + name }

// parse completes a state that was read: documents, and what is counted.
func (s *state) parse() error {
	for id, a := range s.accounts {
		var err error
		for name, p := range a.policies {
			p.ARN = policyARN(id, name)
			if p.document, err = policy.Parse(p.Text); err != nil {
				return fmt.Errorf("policy %s: %w", p.ARN, err)
			}
		}
		var all []*Grants
		for name, r := range a.roles {
			if r.trust, err = policy.ParseTrust(r.Trust); err != nil {
				return fmt.Errorf("trust policy of role %s: %w", name, err)
			}
			all = append(all, &r.Grants)
		}
		for _, u := range a.users {
			all = append(all, &u.Grants)
		}
		for _, name := range slices.Sorted(maps.Keys(a.groups)) {
			g := a.groups[name]
			all = append(all, &g.Grants)
			for _, user := range g.Members {
				a.groupsOf[user] = append(a.groupsOf[user], g)
			}
		}
		for _, g := range all {
			if err := g.parse(); err != nil {
				return err
			}
			a.count(g.Attached)
		}
	}
	return nil
}

func (a *account) count(arns []string) {
	for _, arn := range arns {
		if p := a.policyByARN(arn); p != nil {
			p.Attached++
		}
	}
}

func (a *account) policyByARN(arn string) *Policy {
	_, name, _ := strings.Cut(arn, ":policy/")
	if p := a.policies[name]; p != nil && p.ARN == arn {
		return p
	}
	return nil
}

// managed are the policies that every account has.
func managed(arn string) *policy.Managed {
	for _, m := range policy.ManagedPolicies() {
		if m.ARN() == arn {
			return &m
		}
	}
	return nil
}

func managedPolicy(m policy.Managed) Policy {
	return Policy{Name: m.Name, ID: "ANPA" + strings.ToUpper(m.Name), Description: m.Description, Version: 1, Text: m.Document.String(), ARN: m.ARN(), document: m.Document}
}

// CreatePolicy keeps a policy; it is attached to nobody yet.
func (d *Directory) CreatePolicy(ctx context.Context, account, path, name, description, text string) (made Policy, err error) {
	if err := checkName("policy", name, 128); err != nil {
		return made, err
	}
	if err := checkPath(path); err != nil {
		return made, err
	}
	if len(description) > 1000 {
		return made, refuse(CodeInvalid, "The description of a policy has at most 1000 characters.")
	}
	if _, err := policy.Parse(text); err != nil {
		return made, refuse(CodeMalformed, "%v", err)
	}
	err = d.change(ctx, func(c *change) error {
		a := c.account(account)
		if a.policies[name] != nil {
			return refuse(CodeExists, "A policy called %s already exists.", name)
		}
		if len(a.policies) >= maxPolicies {
			return refuse(CodeLimit, "The account has %d policies, the most it may have.", maxPolicies)
		}
		now := d.now().UTC()
		made = Policy{Name: name, ID: newID("ANPA"), Description: description, Version: 1, Text: text, Created: now, Updated: now, ARN: policyARN(account, name)}
		c.keep(kindPolicy, account, name, made)
		return nil
	})
	return made, err
}

// ReplacePolicy gives a policy a new document, which holds for the next request.
// The earlier one is not kept.
func (d *Directory) ReplacePolicy(ctx context.Context, account, arn, text string) (made Policy, err error) {
	if _, err := policy.Parse(text); err != nil {
		return made, refuse(CodeMalformed, "%v", err)
	}
	err = d.change(ctx, func(c *change) error {
		p, err := c.ownPolicy(account, arn)
		if err != nil {
			return err
		}
		p.Text, p.Version, p.Updated = text, p.Version+1, d.now().UTC()
		c.keep(kindPolicy, account, p.Name, p)
		made = *p
		return nil
	})
	return made, err
}

// DeletePolicy removes a policy that is attached to nobody.
func (d *Directory) DeletePolicy(ctx context.Context, account, arn string) error {
	return d.change(ctx, func(c *change) error {
		p, err := c.ownPolicy(account, arn)
		if err != nil {
			return err
		}
		if p.Attached > 0 {
			return refuse(CodeConflict, "Cannot delete a policy attached to entities.")
		}
		c.drop(kindPolicy, account, p.Name)
		return nil
	})
}

func (c *change) ownPolicy(account, arn string) (*Policy, error) {
	if managed(arn) != nil {
		return nil, refuse("AccessDenied", "Policy %s is built in and cannot be changed.", arn)
	}
	if p := c.existing(account).policyByARN(arn); p != nil {
		return p, nil
	}
	return nil, refuse(CodeAbsent, "Policy %s was not found.", arn)
}

// Policy returns one policy, of the account or built in.
func (d *Directory) Policy(ctx context.Context, account, arn string) (Policy, error) {
	if m := managed(arn); m != nil {
		return managedPolicy(*m), nil
	}
	s, err := d.state(ctx)
	if err != nil {
		return Policy{}, err
	}
	if p := s.existing(account).policyByARN(arn); p != nil {
		return *p, nil
	}
	return Policy{}, refuse(CodeAbsent, "Policy %s was not found.", arn)
}

// Policies lists the policies of an account, by name, then those that are built in.
func (d *Directory) Policies(ctx context.Context, account string) (own, builtIn []Policy, err error) {
	s, err := d.state(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range policy.ManagedPolicies() {
		builtIn = append(builtIn, managedPolicy(m))
	}
	return sorted(s.existing(account).policies), builtIn, nil
}
