package iam

import (
	"context"
	"errors"
	"fmt"

	"lifeboat/internal/drs"
	"lifeboat/internal/iam/policy"
)

// NamedPolicy is a policy with the ARN that refusals tell of.
type NamedPolicy struct {
	ARN      string
	Document *policy.Document
}

// PolicySource finds what may be asked of policies about a principal: all that
// are attached to it. It answers ErrUnknownPrincipal for one that is gone.
type PolicySource interface {
	PoliciesOf(ctx context.Context, p Principal) ([]NamedPolicy, error)
}

// ErrUnknownPrincipal is what a PolicySource answers for a user or role that was
// deleted since its credentials were made.
var ErrUnknownPrincipal = errors.New("no such user or role")

// Guard decides who may do what. Safe for concurrent use.
type Guard struct{ Policies PolicySource }

// Ask is one thing that a caller wants to do.
type Ask struct {
	Action   string // as in drs:StartRecovery
	Resource string // an ARN, or *
	// Context holds what is known of the request and of this resource.
	Context policy.Context
}

// Authorize returns nil when the principal may do all that is asked; else
// *drs.Error of KindAccessDenied that names the first it may not do, *AuthError
// for a principal that is gone. Other errors mean that the policies could not be
// looked up.
func (g *Guard) Authorize(ctx context.Context, p Principal, asks ...Ask) error {
	rules, err := g.rulesOf(ctx, p)
	if err != nil {
		return err
	}
	for _, ask := range asks {
		if _, refusal := rules.evaluate(p, ask); refusal != nil {
			return refusal
		}
	}
	return nil
}

// AuthorizeEvery is Authorize of what reaches all resources of a kind at once, such
// as arn:aws:drs:eu-west-1:111122223333:source-server/*: it must be allowed on them
// all and denied on none.
func (g *Guard) AuthorizeEvery(ctx context.Context, p Principal, ask Ask) error {
	rules, err := g.rulesOf(ctx, p)
	if err != nil {
		return err
	}
	if _, err := rules.evaluate(p, ask); err != nil {
		return err
	}
	request := policy.Request{Action: ask.Action, Resource: ask.Resource, Context: ask.Context}
	for _, named := range rules.own {
		if named.Document.DeniesSome(request) {
			return denied(p, ask, "with an explicit deny on some of these resources in an identity-based policy: "+named.ARN)
		}
	}
	if rules.session != nil && rules.session.DeniesSome(request) {
		return denied(p, ask, "with an explicit deny on some of these resources in a session policy")
	}
	return nil
}

// Decide is Authorize of one thing for those who go on although no policy allows
// it. The error is that of Authorize; the decision is ExplicitDeny where anything
// else than a missing allow is in the way.
func (g *Guard) Decide(ctx context.Context, p Principal, ask Ask) (policy.Decision, error) {
	rules, err := g.rulesOf(ctx, p)
	if err != nil {
		return policy.ExplicitDeny, err
	}
	return rules.evaluate(p, ask)
}

// MayAtAll is Authorize for a request that names no resource that could be looked
// at: the action must be allowed on something.
func (g *Guard) MayAtAll(ctx context.Context, p Principal, action string) error {
	rules, err := g.rulesOf(ctx, p)
	if err != nil {
		return err
	}
	_, err = rules.judge(p, Ask{Action: action, Resource: "*"}, func(d *policy.Document) policy.Decision { return d.Mentions(action) })
	return err
}

// rules are the policies of a principal; session limits them where it is set.
type rules struct {
	own     []NamedPolicy
	session *policy.Document
}

func (g *Guard) rulesOf(ctx context.Context, p Principal) (r rules, err error) {
	if p.Kind == Root {
		r.own = []NamedPolicy{{ARN: p.ARN(), Document: everything}}
	} else {
		r.own, err = g.Policies.PoliciesOf(ctx, p)
	}
	if errors.Is(err, ErrUnknownPrincipal) {
		return r, refuseKey("its user or role was deleted")
	}
	if err != nil {
		return r, fmt.Errorf("look up policies of %s: %w", p.ARN(), err)
	}
	if p.Session != nil && p.Session.Policy != "" {
		if r.session, err = policy.Parse(p.Session.Policy); err != nil {
			return r, fmt.Errorf("session policy of %s: %w", p.ARN(), err)
		}
	}
	return r, nil
}

// everything is what root may do.
var everything = func() *policy.Document {
	d, err := policy.Parse(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`)
	if err != nil {
		panic(err)
	}
	return d
}()

func (r rules) evaluate(p Principal, ask Ask) (policy.Decision, error) {
	request := policy.Request{Action: ask.Action, Resource: ask.Resource, Context: ask.Context}
	return r.judge(p, ask, func(d *policy.Document) policy.Decision { return d.Evaluate(request) })
}

func (r rules) judge(p Principal, ask Ask, evaluate func(*policy.Document) policy.Decision) (policy.Decision, error) {
	const kind = "identity-based policy"
	allowed := false
	for _, named := range r.own {
		switch evaluate(named.Document) {
		case policy.ExplicitDeny:
			return policy.ExplicitDeny, denied(p, ask, "with an explicit deny in an "+kind+": "+named.ARN)
		case policy.Allowed:
			allowed = true
		}
	}
	if r.session != nil {
		switch evaluate(r.session) {
		case policy.ExplicitDeny:
			return policy.ExplicitDeny, denied(p, ask, "with an explicit deny in a session policy")
		case policy.NoStatement:
			return policy.ExplicitDeny, denied(p, ask, "because no session policy allows the "+ask.Action+" action")
		}
	}
	if !allowed {
		return policy.NoStatement, denied(p, ask, "because no "+kind+" allows the "+ask.Action+" action")
	}
	return policy.Allowed, nil
}

// denied is the refusal in the words of AWS, which tools parse.
func denied(p Principal, ask Ask, why string) error {
	return &drs.Error{Kind: drs.KindAccessDenied, Message: fmt.Sprintf(
		"User: %s is not authorized to perform: %s on resource: %s %s", p.ARN(), ask.Action, ask.Resource, why)}
}
