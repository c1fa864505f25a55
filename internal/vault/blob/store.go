// Package blob says what the vault needs of the place where its objects lie,
// and keeps them in a local directory.
package blob

import (
	"context"
	"errors"
	"fmt"
)

// Store keeps immutable objects by name. Names are slash-separated paths of
// letters, digits, '-', '_' and '.', no part starting with a dot. All methods are
// safe for concurrent use, also from several processes.
type Store interface {
	// PutIfAbsent creates an object from the concatenated parts. When it returns
	// nil the whole object is durable. ErrExists: the name is taken, by an object
	// that is durable too. After any other error the object may or may not
	// exist, but is whole if it does. The parts may be reused after return.
	PutIfAbsent(ctx context.Context, name string, parts ...[]byte) error
	// ReadAt fills p from offset off and returns how many bytes it read, with
	// io.EOF when the object ends before p is full. ErrAbsent: no such object.
	ReadAt(ctx context.Context, name string, p []byte, off int64) (int, error)
	// Size returns the object's length in bytes, or ErrAbsent.
	Size(ctx context.Context, name string) (int64, error)
	// List returns, sorted, what lies directly in a folder ("" or a path ending in
	// a slash): objects by full name, and folders, ending in a slash, that hold at
	// least one object. Every object listed is durable. A folder that does
	// not exist is empty.
	List(ctx context.Context, folder string) ([]string, error)
	// Delete removes an object durably. ErrAbsent: no such object.
	Delete(ctx context.Context, name string) error
}

var (
	// ErrAbsent: no object of that name.
	ErrAbsent = errors.New("no such object")
	// ErrExists: an object of that name exists already.
	ErrExists = errors.New("object exists already")
	// ErrNoSpace: the store is full. Nothing was stored; free space and try again.
	ErrNoSpace = errors.New("the store is full: free some space and try again")
	// ErrReadOnly: the store refuses writes. Nothing was stored.
	ErrReadOnly = errors.New("the store is read-only: make it writable and try again")
	// ErrNewerFormat: an object carries a version this program does not know.
	ErrNewerFormat = errors.New("written by a newer version: upgrade this program to read it")
)

// CorruptError says that stored bytes are not what was written.
type CorruptError struct {
	Object string // name of the damaged object
	Offset int64  // where in the object, in bytes; 0 when it concerns the whole
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("corrupt object %s at byte %d: %s", e.Object, e.Offset, e.Reason)
}
