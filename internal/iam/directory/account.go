package directory

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"time"

	"lifeboat/internal/iam"
)

// Account is an account as people speak of it.
type Account struct {
	ID      string    `json:"id"` // 12 digits
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

const maxAccounts = 1000

var (
	accountForm = regexp.MustCompile(`^[0-9]{12}$`)
	nameForm    = regexp.MustCompile(`^[\w+=,.@-]+$`)
	titleForm   = regexp.MustCompile(`^[\w+=,.@ -]{1,64}$`)
)

// CreateAccount makes an account and the access key of its root, whose secret is
// told this once. An empty id makes one up.
func (d *Directory) CreateAccount(ctx context.Context, id, name string) (made Account, root iam.AccessKey, err error) {
	if !titleForm.MatchString(name) {
		return made, root, refuse(CodeInvalid, "The name of an account has 1 to 64 letters, digits, spaces and characters of +=,.@_-.")
	}
	if id == "" {
		n, err := rand.Int(rand.Reader, big.NewInt(900_000_000_000))
		if err != nil {
			return made, root, err
		}
		id = n.Add(n, big.NewInt(100_000_000_000)).String()
	}
	if !accountForm.MatchString(id) {
		return made, root, refuse(CodeInvalid, "The number of an account has 12 digits.")
	}
	err = d.change(ctx, func(c *change) error {
		if c.accounts[id] != nil {
			return refuse(CodeExists, "Account %s exists already.", id)
		}
		if len(c.accounts) >= maxAccounts {
			return refuse(CodeLimit, "There are %d accounts, the most that one server keeps.", maxAccounts)
		}
		for _, a := range c.accounts {
			if a.Name == name {
				return refuse(CodeExists, "Account %s has the name %s already.", a.ID, name)
			}
		}
		made = Account{ID: id, Name: name, Created: d.now().UTC()}
		c.keep(kindAccount, id, "", made)
		root = d.newKey(c, iam.RootOf(d.place(id)))
		return nil
	})
	return made, root, err
}

// Accounts lists all accounts, by number.
func (d *Directory) Accounts(ctx context.Context) ([]Account, error) {
	s, err := d.state(ctx)
	if err != nil {
		return nil, err
	}
	out := []Account{}
	for _, id := range slices.Sorted(maps.Keys(s.accounts)) {
		out = append(out, s.accounts[id].Account)
	}
	return out, nil
}

// CreateRootKey makes another access key of an account's root, for when the last
// one is lost.
func (d *Directory) CreateRootKey(ctx context.Context, account string) (key iam.AccessKey, err error) {
	err = d.change(ctx, func(c *change) error {
		if c.accounts[account] == nil {
			return absent("account", account)
		}
		if n := len(c.keysOf(account, "")); n >= maxKeys {
			return refuse(CodeLimit, "The root of account %s has %d access keys, the most it may have. Delete one first.", account, n)
		}
		key = d.newKey(c, iam.RootOf(d.place(account)))
		return nil
	})
	return key, err
}

// newID makes the ID of something; prefix tells of what.
func newID(prefix string) string {
	raw := make([]byte, 10)
	rand.Read(raw) // never fails: crypto/rand aborts the program instead
	return prefix + base32.StdEncoding.EncodeToString(raw)
}

func checkName(what, name string, most int) error {
	if len(name) > most || !nameForm.MatchString(name) {
		return refuse(CodeInvalid, "The name of a %s has 1 to %d letters, digits and characters of +=,.@_-.", what, most)
	}
	return nil
}

func checkPath(path string) error {
	if path == "" || path == "/" {
		return nil
	}
	return refuse(CodeInvalid, "Path %s: this server keeps everything under the path /. Leave the path out.", strings.ToValidUTF8(path, "?"))
}
