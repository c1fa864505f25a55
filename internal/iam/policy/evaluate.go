package policy

import (
	"slices"
	"strings"
)

// Request is one question: may this action be done on this resource?
type Request struct {
	Action   string // as in drs:StartRecovery; its case does not count
	Resource string // an ARN, or * for actions that know no resources
	Context  Context
}

// Decision is the answer of policies.
type Decision int

const (
	// NoStatement: nothing allows it, so it is denied.
	NoStatement Decision = iota
	Allowed
	// ExplicitDeny: a statement denies it, whatever others allow.
	ExplicitDeny
)

// Evaluate returns the decision of one policy. Of several, an ExplicitDeny wins
// over Allowed, and Allowed over NoStatement.
func (d *Document) Evaluate(r Request) Decision {
	decision := NoStatement
	for _, s := range d.statements {
		if !s.covers(r.Action) || !s.reaches(r) || !s.applies(r.Context) {
			continue
		}
		if !s.allow {
			return ExplicitDeny
		}
		decision = Allowed
	}
	return decision
}

// DeniesSome tells whether a policy denies the action on some resource of the kind
// that r names, as in arn:aws:drs:eu-west-1:111122223333:source-server/*. Nothing is
// known of single ones, so any tags are taken to be those that a condition is about.
func (d *Document) DeniesSome(r Request) bool {
	return slices.ContainsFunc(d.statements, func(s statement) bool {
		return !s.allow && s.covers(r.Action) && s.reachesSome(r) &&
			!slices.ContainsFunc(s.conditions, func(c condition) bool { return !strings.HasPrefix(c.key, "aws:resourcetag/") && !c.holds(r.Context) })
	})
}

// reachesSome tells whether a statement may be about resources of a kind.
func (s *statement) reachesSome(r Request) bool {
	segments := splitARN(r.Resource)
	kind, _, _ := strings.Cut(segments[len(segments)-1], "*")
	return s.notRes || slices.ContainsFunc(s.resources, func(p resourcePattern) bool {
		own := p.segments[arnSegments-1]
		if p.all || len(own) == 0 {
			return p.all
		}
		return strings.HasPrefix(own[0].literal, kind) || strings.HasPrefix(kind, own[0].literal)
	})
}

// Mentions tells whether a policy allows the action on anything, under whatever
// conditions, and does not deny it altogether. It is for requests too broken to
// name what they are about.
func (d *Document) Mentions(action string) Decision {
	decision := NoStatement
	for _, s := range d.statements {
		switch {
		case !s.covers(action):
		case s.allow:
			decision = Allowed
		case len(s.conditions) == 0 && !s.notRes && slices.ContainsFunc(s.resources, func(r resourcePattern) bool { return r.all }):
			return ExplicitDeny
		}
	}
	return decision
}

func (s *statement) covers(action string) bool {
	action = strings.ToLower(action)
	return slices.ContainsFunc(s.actions, func(p pattern) bool { return p.match(action) }) != s.notActions
}

func (s *statement) reaches(r Request) bool {
	return slices.ContainsFunc(s.resources, func(p resourcePattern) bool { return p.match(r.Resource, r.Context) }) != s.notRes
}

func (s *statement) applies(c Context) bool {
	return !slices.ContainsFunc(s.conditions, func(k condition) bool { return !k.holds(c) })
}
