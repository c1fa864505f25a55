package directory

import (
	"context"
	"slices"
	"time"
)

// Group gives its policies to all its users.
type Group struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"` // AGPA…
	Created time.Time `json:"created"`
	Members []string  `json:"members,omitempty"` // names of users
	Grants
}

const (
	maxGroups   = 300
	maxGroupsOf = 10 // of one user
)

// CreateGroup makes a group without users.
func (d *Directory) CreateGroup(ctx context.Context, account, name, path string) (made Group, err error) {
	if err := checkName("group", name, 128); err != nil {
		return made, err
	}
	if err := checkPath(path); err != nil {
		return made, err
	}
	err = d.change(ctx, func(c *change) error {
		a := c.account(account)
		if a.groups[name] != nil {
			return refuse(CodeExists, "Group with name %s already exists.", name)
		}
		if len(a.groups) >= maxGroups {
			return refuse(CodeLimit, "The account has %d groups, the most it may have.", maxGroups)
		}
		made = Group{Name: name, ID: newID("AGPA"), Created: d.now().UTC()}
		c.keep(kindGroup, account, name, made)
		return nil
	})
	return made, err
}

// Group returns one group.
func (d *Directory) Group(ctx context.Context, account, name string) (Group, error) {
	s, err := d.state(ctx)
	if err != nil {
		return Group{}, err
	}
	if g := s.existing(account).groups[name]; g != nil {
		return *g, nil
	}
	return Group{}, absent("group", name)
}

// Groups lists the groups of an account, by name; only those of a user unless that is
// empty.
func (d *Directory) Groups(ctx context.Context, account, user string) ([]Group, error) {
	s, err := d.state(ctx)
	if err != nil {
		return nil, err
	}
	a := s.existing(account)
	if user == "" {
		return sorted(a.groups), nil
	}
	if a.users[user] == nil {
		return nil, absent("user", user)
	}
	out := []Group{}
	for _, g := range a.groupsOf[user] {
		out = append(out, *g)
	}
	return out, nil
}

// SetMember puts a user into a group, or out of it; again changes nothing.
func (d *Directory) SetMember(ctx context.Context, account, group, user string, in bool) error {
	return d.change(ctx, func(c *change) error {
		a := c.account(account)
		g := a.groups[group]
		switch {
		case g == nil:
			return absent("group", group)
		case a.users[user] == nil:
			return absent("user", user)
		}
		at := slices.Index(g.Members, user)
		switch {
		case in && at < 0:
			if len(a.groupsOf[user]) >= maxGroupsOf {
				return refuse(CodeLimit, "Cannot exceed quota for GroupsPerUser: %d.", maxGroupsOf)
			}
			g.Members = append(g.Members, user)
			slices.Sort(g.Members)
		case !in && at >= 0:
			g.Members = slices.Delete(g.Members, at, at+1)
		default:
			return nil
		}
		c.keep(kindGroup, account, group, g)
		return nil
	})
}

// DeleteGroup removes a group that has neither users nor policies.
func (d *Directory) DeleteGroup(ctx context.Context, account, name string) error {
	return d.change(ctx, func(c *change) error {
		g := c.account(account).groups[name]
		switch {
		case g == nil:
			return absent("group", name)
		case len(g.Members) > 0:
			return refuse(CodeConflict, "Cannot delete entity, must remove users from group first.")
		}
		if err := g.mayGo(); err != nil {
			return err
		}
		c.drop(kindGroup, account, name)
		return nil
	})
}
