package directory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"lifeboat/internal/iam"
)

// Key is an access key without its secret.
type Key struct {
	ID      string    `json:"id"` // AKIA…
	Account string    `json:"account"`
	User    string    `json:"user,omitempty"` // empty: of the account's root
	Active  bool      `json:"active"`
	Created time.Time `json:"created"`
	Sealed  []byte    `json:"sealed"` // the secret, in the box "access keys v1"
}

// maxKeys is how many access keys one user may have, as on AWS: one to use and
// one to change to.
const maxKeys = 2

func (k *Key) bound() string { return k.ID + "/" + k.Account + "/" + k.User }

// newKey makes an access key and keeps it.
func (d *Directory) newKey(c *change, p iam.Principal) iam.AccessKey {
	made := iam.NewKeyOf(p)
	key := Key{ID: made.ID, Account: p.Account.ID, User: p.Name, Active: true, Created: d.now().UTC()}
	key.Sealed = d.box.Seal([]byte(made.Secret.Reveal()), key.bound())
	c.keep(kindKey, key.Account, key.ID, key)
	return made
}

func (s *state) keysOf(account, user string) []*Key {
	var out []*Key
	for _, k := range s.keys {
		if k.Account == account && k.User == user {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b *Key) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// CreateKey makes an access key of a user. Its secret is told this once.
func (d *Directory) CreateKey(ctx context.Context, account, user string) (made iam.AccessKey, created time.Time, err error) {
	err = d.change(ctx, func(c *change) error {
		u := c.account(account).users[user]
		if u == nil {
			return absent("user", user)
		}
		if n := len(c.keysOf(account, user)); n >= maxKeys {
			return refuse(CodeLimit, "Cannot exceed quota for AccessKeysPerUser: %d. Delete one that is no longer used.", n)
		}
		created = d.now().UTC()
		made = d.newKey(c, u.principal(d, account))
		return nil
	})
	return made, created, err
}

// Keys lists the access keys of a user, oldest first; of root for the empty name.
func (d *Directory) Keys(ctx context.Context, account, user string) ([]Key, error) {
	s, err := d.state(ctx)
	if err != nil {
		return nil, err
	}
	if user != "" && s.existing(account).users[user] == nil {
		return nil, absent("user", user)
	}
	out := []Key{}
	for _, k := range s.keysOf(account, user) {
		out = append(out, *k)
	}
	return out, nil
}

// SetKeyActive lets an access key sign, or not. It holds for the next request.
func (d *Directory) SetKeyActive(ctx context.Context, account, user, id string, active bool) error {
	return d.change(ctx, func(c *change) error {
		k, err := c.key(account, user, id)
		if err != nil {
			return err
		}
		k.Active = active
		c.keep(kindKey, account, id, k)
		return nil
	})
}

// DeleteKey removes an access key for good.
func (d *Directory) DeleteKey(ctx context.Context, account, user, id string) error {
	return d.change(ctx, func(c *change) error {
		if _, err := c.key(account, user, id); err != nil {
			return err
		}
		c.drop(kindKey, account, id)
		return nil
	})
}

func (c *change) key(account, user, id string) (*Key, error) {
	k := c.keys[id]
	if k == nil || k.Account != account || k.User != user {
		return nil, refuse(CodeAbsent, "The Access Key with id %s cannot be found.", id)
	}
	return k, nil
}

// KeyOwner returns the user of an access key of the account.
func (d *Directory) KeyOwner(ctx context.Context, account, id string) (user string, err error) {
	s, err := d.state(ctx)
	if err != nil {
		return "", err
	}
	k := s.keys[id]
	if k == nil || k.Account != account {
		return "", refuse(CodeAbsent, "The Access Key with id %s cannot be found.", id)
	}
	return k.User, nil
}

// AccessKey implements iam.KeySource.
func (d *Directory) AccessKey(ctx context.Context, id string) (iam.AccessKey, error) {
	if id == d.admin.ID {
		return d.admin, nil
	}
	s, err := d.state(ctx)
	if err != nil {
		return iam.AccessKey{}, err
	}
	k := s.keys[id]
	if k == nil || !k.Active {
		return iam.AccessKey{}, iam.ErrUnknownKey
	}
	p := iam.RootOf(d.place(k.Account))
	if k.User != "" {
		u := s.existing(k.Account).users[k.User]
		if u == nil {
			return iam.AccessKey{}, iam.ErrUnknownKey
		}
		p = u.principal(d, k.Account)
	}
	secret, err := d.box.Open(k.Sealed, k.bound())
	if err != nil {
		return iam.AccessKey{}, fmt.Errorf("access key %s: %w", id, err)
	}
	return iam.AccessKey{ID: id, Secret: iam.Secret(secret), Principal: p}, nil
}
