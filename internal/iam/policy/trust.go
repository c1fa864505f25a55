package policy

import (
	"regexp"
	"slices"
	"strings"
)

// Trust is how far a trust policy trusts somebody.
type Trust int

const (
	// NotTrusted: no statement names the principal, or one denies.
	NotTrusted Trust = iota
	// AccountTrusted: the principal's account is named; its own policies must allow
	// the principal to assume the role.
	AccountTrusted
	// DirectlyTrusted: the principal itself is named. Within one account that is
	// enough.
	DirectlyTrusted
)

// principals are who a statement of a trust policy names.
type principals struct {
	negated  bool
	everyone bool
	accounts []string
	arns     []string
}

var (
	accountForm = regexp.MustCompile(`^[0-9]{12}$`)
	rootForm    = regexp.MustCompile(`^arn:aws:iam::([0-9]{12}):root$`)
	userForm    = regexp.MustCompile(`^arn:aws:(iam|sts)::[0-9]{12}:(user|role|assumed-role)/.+$`)
)

func readPrincipals(m member) (*principals, error) {
	p := &principals{negated: m.name == "NotPrincipal"}
	if m.value == "*" {
		p.everyone = true
		return p, nil
	}
	if !m.object || len(m.members) == 0 {
		return nil, m.wrong(`want "*" or {"AWS": …}`)
	}
	for _, k := range m.members {
		switch k.name {
		case "AWS":
		case "Service", "Federated", "CanonicalUser":
			// Nobody here is a service or federated, so these match nobody.
			if _, err := k.strings(); err != nil {
				return nil, err
			}
			continue
		default:
			return nil, k.wrong("there is no such kind of principal")
		}
		names, err := k.strings()
		if err != nil {
			return nil, err
		}
		for i, name := range names {
			root := rootForm.FindStringSubmatch(name)
			switch {
			case name == "*":
				p.everyone = true
			case accountForm.MatchString(name):
				p.accounts = append(p.accounts, name)
			case root != nil:
				p.accounts = append(p.accounts, root[1])
			case userForm.MatchString(name):
				p.arns = append(p.arns, name)
			default:
				return nil, k.at(i).wrong("%q is no principal: want an account number, or the ARN of a root, user, role or assumed role, without wildcards", name)
			}
		}
	}
	return p, nil
}

// trust tells how a statement names a principal, which goes by several ARNs: its
// own and, of a session, that of its role.
func (p *principals) trust(account string, arns []string) Trust {
	found := NotTrusted
	switch {
	case p.everyone, slices.ContainsFunc(arns, func(arn string) bool { return slices.Contains(p.arns, arn) }):
		found = DirectlyTrusted
	case slices.Contains(p.accounts, account):
		found = AccountTrusted
	}
	if !p.negated {
		return found
	}
	if found == NotTrusted {
		return DirectlyTrusted
	}
	return NotTrusted
}

// Trusts tells whether a trust policy lets a principal do the action, such as
// sts:AssumeRole. arns are all names of the principal, of the account given.
func (d *Document) Trusts(account string, arns []string, action string, c Context) Trust {
	best := NotTrusted
	for _, s := range d.statements {
		if s.principals == nil || !s.covers(strings.ToLower(action)) || !s.applies(c) {
			continue
		}
		named := s.principals.trust(account, arns)
		if named == NotTrusted {
			continue
		}
		if !s.allow {
			return NotTrusted
		}
		best = max(best, named)
	}
	return best
}
