package directory

import (
	"context"
	"maps"
	"slices"
	"time"

	"lifeboat/internal/iam"
)

// User is a person or program with access keys.
type User struct {
	Name    string    `json:"name"`
	ID      string    `json:"id"` // AIDA…
	Created time.Time `json:"created"`
	Grants
}

const maxUsers = 5000

// CreateUser makes a user who may do nothing yet.
func (d *Directory) CreateUser(ctx context.Context, account, name, path string) (made User, err error) {
	if err := checkName("user", name, 64); err != nil {
		return made, err
	}
	if err := checkPath(path); err != nil {
		return made, err
	}
	err = d.change(ctx, func(c *change) error {
		a := c.account(account)
		if a.users[name] != nil {
			return refuse(CodeExists, "User with name %s already exists.", name)
		}
		if len(a.users) >= maxUsers {
			return refuse(CodeLimit, "The account has %d users, the most it may have.", maxUsers)
		}
		made = User{Name: name, ID: newID("AIDA"), Created: d.now().UTC()}
		c.keep(kindUser, account, name, made)
		return nil
	})
	return made, err
}

// User returns one user.
func (d *Directory) User(ctx context.Context, account, name string) (User, error) {
	s, err := d.state(ctx)
	if err != nil {
		return User{}, err
	}
	if u := s.existing(account).users[name]; u != nil {
		return *u, nil
	}
	return User{}, absent("user", name)
}

// Users lists the users of an account, by name.
func (d *Directory) Users(ctx context.Context, account string) ([]User, error) {
	s, err := d.state(ctx)
	if err != nil {
		return nil, err
	}
	return sorted(s.existing(account).users), nil
}

// DeleteUser removes a user that has neither access keys, policies nor groups.
func (d *Directory) DeleteUser(ctx context.Context, account, name string) error {
	return d.change(ctx, func(c *change) error {
		u := c.account(account).users[name]
		switch {
		case u == nil:
			return absent("user", name)
		case len(c.keysOf(account, name)) > 0:
			return refuse(CodeConflict, "Cannot delete entity, must delete access keys first.")
		case len(c.account(account).groupsOf[name]) > 0:
			return refuse(CodeConflict, "Cannot delete entity, must remove users from group first.")
		}
		if err := u.mayGo(); err != nil {
			return err
		}
		c.drop(kindUser, account, name)
		return nil
	})
}

// existing is account for readers, who must not add to a shared state.
func (s *state) existing(id string) *account {
	if a := s.accounts[id]; a != nil {
		return a
	}
	return &account{}
}

func sorted[T any](of map[string]*T) []T {
	out := []T{}
	for _, name := range slices.Sorted(maps.Keys(of)) {
		out = append(out, *of[name])
	}
	return out
}

func (u *User) principal(d *Directory, account string) iam.Principal {
	return iam.Principal{Kind: iam.User, Account: d.place(account), Name: u.Name, ID: u.ID}
}
