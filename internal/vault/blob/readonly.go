package blob

import (
	"context"
	"fmt"
)

// ReadOnly is a store that refuses every change with ErrReadOnly.
func ReadOnly(s Store) Store { return readOnly{s} }

type readOnly struct{ Store }

func (readOnly) PutIfAbsent(_ context.Context, name string, _ ...[]byte) error {
	return fmt.Errorf("put %s: %w", name, ErrReadOnly)
}

func (readOnly) Delete(_ context.Context, name string) error {
	return fmt.Errorf("delete %s: %w", name, ErrReadOnly)
}
