package directory

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"lifeboat/internal/iam"
	"lifeboat/internal/iam/policy"
)

// Grants are the policies of one user, role or group.
type Grants struct {
	Attached []string          `json:"attached,omitempty"` // ARNs
	Inline   map[string]string `json:"inline,omitempty"`   // documents of its own, by name

	inline map[string]*policy.Document // as Inline says
}

const (
	maxAttached = 10 // to one user, role or group
	// maxInline bounds the inline policies of one user, role or group: in characters of
	// their documents together.
	maxInline = 10_240
)

// parse completes grants that were read.
func (g *Grants) parse() (err error) {
	g.inline = make(map[string]*policy.Document, len(g.Inline))
	for name, text := range g.Inline {
		if g.inline[name], err = policy.Parse(text); err != nil {
			return fmt.Errorf("inline policy %s: %w", name, err)
		}
	}
	return nil
}

// mayGo refuses to delete whom they are of.
func (g *Grants) mayGo() error {
	switch {
	case len(g.Attached) > 0:
		return refuse(CodeConflict, "Cannot delete entity, must detach all policies first.")
	case len(g.Inline) > 0:
		return refuse(CodeConflict, "Cannot delete entity, must delete policies first.")
	}
	return nil
}

// named are the policies with their documents; of is whose they are.
func (a *account) named(g *Grants, of Holder) []iam.NamedPolicy {
	var out []iam.NamedPolicy
	for _, arn := range g.Attached {
		if m := managed(arn); m != nil {
			out = append(out, iam.NamedPolicy{ARN: arn, Document: m.Document})
		} else if own := a.policyByARN(arn); own != nil {
			out = append(out, iam.NamedPolicy{ARN: arn, Document: own.document})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(g.inline)) {
		out = append(out, iam.NamedPolicy{ARN: fmt.Sprintf("%s of %s", name, of), Document: g.inline[name]})
	}
	return out
}

// Holder is whom policies are of.
type Holder struct {
	Kind iam.Kind // iam.User, iam.Role or GroupKind
	Name string
}

// GroupKind is that of the Holder that is a group.
const GroupKind iam.Kind = "Group"

// String names the holder in refusals, as in group/operators.
func (h Holder) String() string {
	switch h.Kind {
	case iam.Role:
		return "role/" + h.Name
	case GroupKind:
		return "group/" + h.Name
	}
	return "user/" + h.Name
}

func (h Holder) absent() error {
	switch h.Kind {
	case iam.Role:
		return absent("role", h.Name)
	case GroupKind:
		return absent("group", h.Name)
	}
	return absent("user", h.Name)
}

// grants finds a holder's policies and what keeps the holder.
func (a *account) grants(h Holder) (g *Grants, kind string, body any, err error) {
	if u := a.users[h.Name]; h.Kind == iam.User && u != nil {
		return &u.Grants, kindUser, u, nil
	}
	if r := a.roles[h.Name]; h.Kind == iam.Role && r != nil {
		return &r.Grants, kindRole, r, nil
	}
	if of := a.groups[h.Name]; h.Kind == GroupKind && of != nil {
		return &of.Grants, kindGroup, of, nil
	}
	return nil, "", nil, h.absent()
}

// grant changes the policies of a holder under f.
func (d *Directory) grant(ctx context.Context, account string, h Holder, f func(*change, *Grants) error) error {
	return d.change(ctx, func(c *change) error {
		g, kind, body, err := c.existing(account).grants(h)
		if err != nil {
			return err
		}
		if err := f(c, g); err != nil {
			return err
		}
		c.keep(kind, account, h.Name, body)
		return nil
	})
}

// Attach lets a policy speak of a holder; again changes nothing.
func (d *Directory) Attach(ctx context.Context, account string, h Holder, arn string) error {
	return d.grant(ctx, account, h, func(c *change, g *Grants) error {
		if managed(arn) == nil && c.existing(account).policyByARN(arn) == nil {
			return refuse(CodeAbsent, "Policy %s does not exist or is not attachable.", arn)
		}
		if slices.Contains(g.Attached, arn) {
			return nil
		}
		if len(g.Attached) >= maxAttached {
			return refuse(CodeLimit, "Cannot exceed quota for PoliciesPerUser, PoliciesPerRole or PoliciesPerGroup: %d.", maxAttached)
		}
		g.Attached = append(g.Attached, arn)
		return nil
	})
}

// Detach ends what Attach began.
func (d *Directory) Detach(ctx context.Context, account string, h Holder, arn string) error {
	return d.grant(ctx, account, h, func(_ *change, g *Grants) error {
		i := slices.Index(g.Attached, arn)
		if i < 0 {
			return refuse(CodeAbsent, "Policy %s was not found.", arn)
		}
		g.Attached = slices.Delete(g.Attached, i, i+1)
		return nil
	})
}

// PutInline gives a holder a policy of its own, or a new document to the one of that
// name.
func (d *Directory) PutInline(ctx context.Context, account string, h Holder, name, text string) error {
	if err := checkName("policy", name, 128); err != nil {
		return err
	}
	if _, err := policy.Parse(text); err != nil {
		return refuse(CodeMalformed, "%v", err)
	}
	return d.grant(ctx, account, h, func(_ *change, g *Grants) error {
		if g.Inline == nil {
			g.Inline = map[string]string{}
		}
		g.Inline[name] = text
		total := 0
		for _, text := range g.Inline {
			total += len(text)
		}
		if total > maxInline {
			return refuse(CodeLimit, "Maximum policy size of %d bytes exceeded for %s.", maxInline, h)
		}
		return nil
	})
}

// DeleteInline removes a policy of a holder's own.
func (d *Directory) DeleteInline(ctx context.Context, account string, h Holder, name string) error {
	return d.grant(ctx, account, h, func(_ *change, g *Grants) error {
		if _, ok := g.Inline[name]; !ok {
			return noInline(h, name)
		}
		delete(g.Inline, name)
		return nil
	})
}

func noInline(h Holder, name string) error {
	return refuse(CodeAbsent, "The policy with name %s of %s cannot be found.", name, h)
}

// Granted returns the policies of a holder, which must not be changed.
func (d *Directory) Granted(ctx context.Context, account string, h Holder) (Grants, error) {
	s, err := d.state(ctx)
	if err != nil {
		return Grants{}, err
	}
	g, _, _, err := s.existing(account).grants(h)
	if err != nil {
		return Grants{}, err
	}
	return *g, nil
}

// Inline returns one policy of a holder's own.
func (d *Directory) Inline(ctx context.Context, account string, h Holder, name string) (text string, err error) {
	g, err := d.Granted(ctx, account, h)
	if err != nil {
		return "", err
	}
	text, ok := g.Inline[name]
	if !ok {
		return "", noInline(h, name)
	}
	return text, nil
}

// PoliciesOf implements iam.PolicySource.
func (d *Directory) PoliciesOf(ctx context.Context, p iam.Principal) ([]iam.NamedPolicy, error) {
	s, err := d.state(ctx)
	if err != nil {
		return nil, err
	}
	a := s.existing(p.Account.ID)
	switch u, r := a.users[p.Name], a.roles[p.Name]; {
	case p.Kind == iam.User && u != nil && u.ID == p.ID:
		out := a.named(&u.Grants, Holder{iam.User, u.Name})
		for _, of := range a.groupsOf[u.Name] {
			out = append(out, a.named(&of.Grants, Holder{GroupKind, of.Name})...)
		}
		return out, nil
	case p.Kind == iam.Role && r != nil && r.ID == p.ID:
		return a.named(&r.Grants, Holder{iam.Role, r.Name}), nil
	}
	return nil, iam.ErrUnknownPrincipal
}
