package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/envelope"
)

// Owner says whose vault it is. Fencing by manifests keeps the data safe from any
// two writers; an owner keeps two servers, each with tables of its own, from undoing
// each other's points and configurations.
type Owner struct {
	Installation string    `json:"installation"` // ID of the data directory
	Host         string    `json:"host"`
	Since        time.Time `json:"since"`
}

// OwnedError: the vault belongs to another installation.
type OwnedError struct{ Owner Owner }

func (e *OwnedError) Error() string {
	return fmt.Sprintf("the vault belongs to another data directory, on host %s, last started at %s: start that server; "+
		"or when that data directory is lost for good, make a new one over the vault with `lifeboat vault rebuild`",
		e.Owner.Host, e.Owner.Since.UTC().Format(time.RFC3339))
}

// ErrDisowned: another server took the vault over.
var ErrDisowned = errors.New("another server took over this vault")

// Ownership is the right to run the vault, until another process takes it.
type Ownership struct {
	docs   documents
	number uint64
}

// CurrentOwner returns whose vault it is, or ErrAbsent when nobody ever owned it.
func (v *Vault) CurrentOwner(ctx context.Context) (Owner, error) {
	owner, _, err := v.owner(ctx)
	if err != nil {
		return Owner{}, fmt.Errorf("read the vault's owner: %w", err)
	}
	return owner, nil
}

func (v *Vault) owner(ctx context.Context) (owner Owner, number uint64, err error) {
	body, number, err := v.ownerDocuments().newest(ctx)
	if err != nil {
		return owner, number, err
	}
	if err := json.Unmarshal(body, &owner); err != nil {
		return owner, number, &CorruptError{Object: ownerName(number), Offset: envelope.HeaderSize, Reason: "impossible body: " + err.Error()}
	}
	return owner, number, nil
}

func (v *Vault) ownerDocuments() documents {
	return v.documents(ownersFolder, ".owner", envelope.Owner, "", v.own)
}

// Own makes the vault the owner's, durably; who held it before, also an earlier
// process of the same installation, finds out by Check. An *OwnedError refuses to take
// it from another installation unless takeOver.
func (v *Vault) Own(ctx context.Context, owner Owner, takeOver bool) (*Ownership, error) {
	now, number, err := v.owner(ctx)
	switch {
	case errors.Is(err, ErrAbsent), damaged(err): // nobody's, or it cannot be known
	case err != nil:
		return nil, fmt.Errorf("own the vault: %w", err)
	case now.Installation != owner.Installation && !takeOver:
		return nil, &OwnedError{now}
	}
	body, err := json.Marshal(owner)
	if err != nil {
		return nil, fmt.Errorf("own the vault: %w", err)
	}
	o := &Ownership{v.ownerDocuments(), number + 1}
	if err := o.docs.create(ctx, o.number, body); err != nil {
		if errors.Is(err, blob.ErrExists) {
			err = fmt.Errorf("another server takes it at this very moment: look which one is to have it, then start again: %w", ErrDisowned)
		}
		return nil, fmt.Errorf("own the vault: %w", err)
	}
	if err := o.docs.trim(ctx, o.number); err != nil {
		return nil, fmt.Errorf("own the vault: %w", err)
	}
	return o, nil
}

// Check returns ErrDisowned once another process owns the vault. Other errors
// say that it could not be found out.
func (o *Ownership) Check(ctx context.Context) error {
	names, err := o.docs.v.store.List(ctx, o.docs.folder)
	if err != nil {
		return fmt.Errorf("look who owns the vault: %w", err)
	}
	numbers := numbered(names, o.docs.suffix)
	if n := len(numbers); n > 0 && numbers[n-1] > o.number {
		return ErrDisowned
	}
	return nil
}
