// Package directory keeps accounts and who may use them: users, roles, policies
// and access keys.
//
// All of it is read into memory and decided on there; a change is durable when
// its method returns. A copy is used only while the tables are of the generation
// that it was read from, so that servers that share tables agree: a key that one
// has deleted is refused by all from then on.
//
// Refusals are *Error, in the words of the AWS IAM API.
package directory

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
	"lifeboat/internal/iam"
)

// Store keeps identities; *db.DB is one.
type Store interface {
	Identities(ctx context.Context) ([]db.Identity, int64, error)
	IdentityGeneration(ctx context.Context) (int64, error)
	ChangeIdentities(ctx context.Context, f func([]db.Identity) (put, remove []db.Identity, err error)) error
}

// Directory is safe for concurrent use.
type Directory struct {
	store  Store
	box    *iam.Box
	region string
	admin  iam.AccessKey // of the data directory: the root of the default account
	now    func() time.Time

	mu   sync.Mutex
	copy *state // nil: not read yet
}

// New returns the directory of a store. Secrets are sealed with the master key;
// admin is the key that always works, whatever the tables say.
func New(store Store, master []byte, admin iam.AccessKey) (*Directory, error) {
	box, err := iam.NewBox(master, "access keys v1")
	if err != nil {
		return nil, err
	}
	return &Directory{store: store, box: box, region: admin.Account.Region, admin: admin, now: time.Now}, nil
}

// Error refuses a change, with the code of the AWS IAM API.
type Error struct {
	Code    string
	Message string
}

func (e *Error) Error() string { return e.Message }

// The codes of an Error.
const (
	CodeAbsent    = "NoSuchEntity"
	CodeExists    = "EntityAlreadyExists"
	CodeLimit     = "LimitExceeded"
	CodeConflict  = "DeleteConflict"
	CodeMalformed = "MalformedPolicyDocument"
	CodeInvalid   = "ValidationError"
)

func refuse(code, format string, args ...any) *Error {
	return &Error{code, fmt.Sprintf(format, args...)}
}

func absent(what, name string) *Error {
	return refuse(CodeAbsent, "The %s with name %s cannot be found.", what, name)
}

// state is everything, as of one generation. It is not changed once it is shared.
type state struct {
	generation int64
	accounts   map[string]*account
	keys       map[string]*Key // by ID, of all accounts
}

// account is one account with all that belongs to it.
type account struct {
	Account
	users    map[string]*User
	roles    map[string]*Role
	groups   map[string]*Group
	policies map[string]*Policy  // by name
	groupsOf map[string][]*Group // by user
}

const (
	kindAccount = "account"
	kindUser    = "user"
	kindRole    = "role"
	kindGroup   = "group"
	kindPolicy  = "policy"
	kindKey     = "access-key"
)

// read makes the state of what is stored. The default account is there always.
func (d *Directory) read(all []db.Identity, generation int64) (*state, error) {
	s := &state{generation: generation, accounts: map[string]*account{}, keys: map[string]*Key{}}
	s.account(d.admin.Account.ID).Name = "default"
	for _, i := range all {
		a := s.account(i.Account)
		var err error
		switch i.Kind {
		case kindAccount:
			err = json.Unmarshal(i.Body, &a.Account)
		case kindUser:
			a.users[i.Name], err = decoded[User](i.Body)
		case kindRole:
			a.roles[i.Name], err = decoded[Role](i.Body)
		case kindGroup:
			a.groups[i.Name], err = decoded[Group](i.Body)
		case kindPolicy:
			a.policies[i.Name], err = decoded[Policy](i.Body)
		case kindKey:
			s.keys[i.Name], err = decoded[Key](i.Body)
		default:
			err = fmt.Errorf("a newer lifeboat wrote it")
		}
		if err != nil {
			return nil, fmt.Errorf("read %s %s of account %s: %w", i.Kind, i.Name, i.Account, err)
		}
	}
	return s, s.parse()
}

func decoded[T any](body json.RawMessage) (*T, error) {
	out := new(T)
	return out, json.Unmarshal(body, out)
}

func (s *state) account(id string) *account {
	if s.accounts[id] == nil {
		s.accounts[id] = &account{
			Account: Account{ID: id}, users: map[string]*User{}, roles: map[string]*Role{}, groups: map[string]*Group{},
			policies: map[string]*Policy{}, groupsOf: map[string][]*Group{},
		}
	}
	return s.accounts[id]
}

// state returns the present state.
func (d *Directory) state(ctx context.Context) (*state, error) {
	generation, err := d.store.IdentityGeneration(ctx)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	known := d.copy
	d.mu.Unlock()
	if known != nil && known.generation == generation {
		return known, nil
	}
	all, generation, err := d.store.Identities(ctx)
	if err != nil {
		return nil, err
	}
	s, err := d.read(all, generation)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.copy == nil || d.copy.generation < generation {
		d.copy = s
	}
	return s, nil
}

// change collects what a transaction does.
type change struct {
	*state
	put, remove []db.Identity
	err         error
}

func (c *change) keep(kind, account, name string, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		c.err = fmt.Errorf("keep %s %s: %w", kind, name, err)
	}
	c.put = append(c.put, db.Identity{Kind: kind, Account: account, Name: name, Body: text})
}

func (c *change) drop(kind, account, name string) {
	c.remove = append(c.remove, db.Identity{Kind: kind, Account: account, Name: name})
}

// change runs f on a fresh state, which it may alter, and stores what it keeps
// and drops.
func (d *Directory) change(ctx context.Context, f func(*change) error) error {
	return d.store.ChangeIdentities(ctx, func(all []db.Identity) (put, remove []db.Identity, err error) {
		s, err := d.read(all, 0)
		if err != nil {
			return nil, nil, err
		}
		c := &change{state: s}
		if err := f(c); err != nil {
			return nil, nil, err
		}
		return c.put, c.remove, c.err
	})
}

// place is the account with its region.
func (d *Directory) place(id string) drs.Account { return drs.Account{ID: id, Region: d.region} }
