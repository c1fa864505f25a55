package iam

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"

	"lifeboat/internal/drs"
)

// AccessKey lets its holder call the API in the name of a principal.
type AccessKey struct {
	ID     string // AKIA, or ASIA for temporary ones, and 16 capital letters or digits
	Secret Secret // 40 characters
	Principal
}

var (
	accessKeyID = regexp.MustCompile(`^AKIA[A-Z2-7]{16}$`)
	accountID   = regexp.MustCompile(`^[0-9]{12}$`)
)

// NewAccessKey makes a random access key of an account's root. It is kept nowhere.
func NewAccessKey(account drs.Account) AccessKey { return NewKeyOf(RootOf(account)) }

// NewKeyOf makes a random access key of a principal. It is kept nowhere.
func NewKeyOf(p Principal) AccessKey {
	id, secret := make([]byte, 10), make([]byte, 30)
	rand.Read(id) // never fails: crypto/rand aborts the program instead
	rand.Read(secret)
	prefix := "AKIA"
	if p.Session != nil {
		prefix = "ASIA"
	}
	return AccessKey{
		ID:        prefix + base32.StdEncoding.EncodeToString(id),
		Secret:    Secret(base64.StdEncoding.EncodeToString(secret)),
		Principal: p,
	}
}

// Keyring holds access keys in memory, by ID. It implements KeySource and is
// safe for concurrent use as long as nobody writes to it.
type Keyring map[string]AccessKey

// NewKeyring makes a keyring of the given keys.
func NewKeyring(keys ...AccessKey) Keyring {
	ring := Keyring{}
	for _, k := range keys {
		ring[k.ID] = k
	}
	return ring
}

// AccessKey implements KeySource.
func (r Keyring) AccessKey(_ context.Context, id string) (AccessKey, error) {
	key, ok := r[id]
	if !ok {
		return AccessKey{}, ErrUnknownKey
	}
	return key, nil
}

// adminKeyFile is the stored form of the admin access key. The secret is sealed
// with AES-256-GCM under a key derived from the master key; all other members
// are bound to it as additional data.
type adminKeyFile struct {
	Version   int    `json:"version"`
	ID        string `json:"accessKeyId"`
	AccountID string `json:"accountId"`
	Region    string `json:"region"`
	Sealed    []byte `json:"sealedSecret"` // nonce, then ciphertext and tag
}

const (
	adminKeyVersion = 1
	adminKeyPurpose = "admin access key v1"
)

// CreateAdminKey makes the admin access key of an account and keeps it at path,
// its secret sealed with the master key. The file is durable when it returns;
// an existing one is fs.ErrExist.
func CreateAdminKey(path string, master []byte, account drs.Account) (AccessKey, error) {
	if !accountID.MatchString(account.ID) || account.Region == "" {
		return AccessKey{}, fmt.Errorf("create admin access key: account %q in region %q: want 12 digits and a region", account.ID, account.Region)
	}
	key := NewAccessKey(account)
	box, err := NewBox(master, adminKeyPurpose)
	if err != nil {
		return AccessKey{}, err
	}
	file := adminKeyFile{Version: adminKeyVersion, ID: key.ID, AccountID: account.ID, Region: account.Region}
	file.Sealed = box.Seal([]byte(key.Secret.Reveal()), file.bound())
	data, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return AccessKey{}, fmt.Errorf("create admin access key: %w", err)
	}
	if err := files.CreateFile("create admin access key", path, append(data, '\n'), private); err != nil {
		return AccessKey{}, err
	}
	return key, nil
}

// LoadAdminKey reads the key that CreateAdminKey kept. A wrong master key looks
// like damage: *DamagedError.
func LoadAdminKey(path string, master []byte) (AccessKey, error) {
	data, err := readFile(path)
	if err != nil {
		return AccessKey{}, err
	}
	damaged := func(reason string) (AccessKey, error) {
		return AccessKey{}, &DamagedError{Path: path, Reason: reason}
	}
	var file adminKeyFile
	if err := json.Unmarshal(data, &file); err != nil {
		return damaged("it is not JSON")
	}
	if file.Version != adminKeyVersion {
		return damaged(fmt.Sprintf("version %d is not known to this server", file.Version))
	}
	box, err := NewBox(master, adminKeyPurpose)
	if err != nil {
		return AccessKey{}, err
	}
	secret, err := box.Open(file.Sealed, file.bound())
	if err != nil {
		return damaged(err.Error())
	}
	if !accessKeyID.MatchString(file.ID) || !accountID.MatchString(file.AccountID) {
		return damaged("the access key ID or account is malformed")
	}
	return AccessKey{
		ID: file.ID, Secret: Secret(secret),
		Principal: RootOf(drs.Account{ID: file.AccountID, Region: file.Region}),
	}, nil
}

// bound is what the sealed secret vouches for.
func (f adminKeyFile) bound() string {
	return fmt.Sprintf("%d\n%s\n%s\n%s", f.Version, f.ID, f.AccountID, f.Region)
}
