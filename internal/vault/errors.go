package vault

import (
	"errors"

	"lifeboat/internal/vault/blob"
)

var (
	// ErrAbsent: the named server, branch or point does not exist. A damaged or
	// unreadable object is never reported as absent.
	ErrAbsent = errors.New("absent")
	// ErrExists: what was to be created exists already.
	ErrExists = errors.New("exists already")
	// ErrFenced: another writer took over the branch. This writer is finished;
	// nothing it did since its last successful Commit is in the vault.
	ErrFenced = errors.New("another writer took over this branch")
	// ErrWrongKey: the master key is not the one this vault was sealed with.
	ErrWrongKey = errors.New("wrong master key for this vault")
	// ErrNewerFormat: a newer version of the program wrote this; upgrade to read it.
	ErrNewerFormat = blob.ErrNewerFormat
	// ErrNotVault: the store holds no vault. Create makes one.
	ErrNotVault = errors.New("no vault here")
)

// CorruptError is the evidence of damage: which object, where, and why.
// Find it with errors.As.
type CorruptError = blob.CorruptError
