package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/blob/blobtest"
)

// failing is a store whose writes and reads fail as told.
type failing struct {
	blob.Store
	write, read error
}

func (f *failing) PutIfAbsent(ctx context.Context, name string, parts ...[]byte) error {
	if f.write != nil {
		return f.write
	}
	return f.Store.PutIfAbsent(ctx, name, parts...)
}

func (f *failing) List(ctx context.Context, folder string) ([]string, error) {
	if f.read != nil {
		return nil, f.read
	}
	return f.Store.List(ctx, folder)
}

func TestStoreWatchTellsWhatIsWrongUntilItIsOver(t *testing.T) {
	store := &failing{Store: blobtest.NewMem()}
	w := watchStore(store, "")
	for i, c := range []struct {
		write, read error
		says        []string // in this order
		away        bool
	}{
		{nil, nil, nil, false},
		{fmt.Errorf("put x: %w", blob.ErrNoSpace), nil, []string{"the vault is full: free or add space"}, false},
		{fmt.Errorf("put x: %w", blob.ErrReadOnly), nil, []string{"the vault is read-only: make its place writable"}, false},
		{context.Canceled, nil, []string{"the vault is read-only"}, false}, // it tells nothing
		{fmt.Errorf("%w (503 SlowDown: %s)", blob.ErrUnreachable, strings.Repeat("<x>", 1000)), nil, []string{"cannot be reached or is overloaded (503 SlowDown: <x>"}, true},
		{nil, fmt.Errorf("list: %w", syscall.EIO), []string{"the disk of the vault reports errors: look into the kernel's log"}, true},
		{fmt.Errorf("%w: expired", blob.ErrCredentials), blob.ErrUnreachable, []string{"cannot be reached", "does not accept the server's keys (expired)"}, true},
		{blob.ErrExists, nil, nil, false},
	} {
		store.write, store.read = c.write, c.read
		_ = w.PutIfAbsent(t.Context(), fmt.Sprintf("a/%d", i), []byte("x"))
		_, _ = w.List(t.Context(), "")
		got, away := w.troubles()
		if len(got) != len(c.says) || away != c.away {
			t.Errorf("%d: %q, away: %v", i, got, away)
			continue
		}
		for n, says := range c.says {
			if !strings.Contains(got[n], says) || len(got[n]) > 500 {
				t.Errorf("%d: %q, want %q", i, got[n], says)
			}
		}
	}
	if text := scarceSpace(t.TempDir() + "/none"); text != "" {
		t.Errorf("a directory that is not there: %s", text)
	}
}

type waitsForever struct{ called chan struct{} }

func (w waitsForever) TakePoint(ctx context.Context, _ drs.SourceServerID) (drs.RecoveryPoint, error) {
	close(w.called)
	<-ctx.Done()
	return drs.RecoveryPoint{}, context.Cause(ctx)
}

// Who waits for a point is let go when the store goes away meanwhile.
func TestPointTakerDoesNotWaitForAStoreThatIsAway(t *testing.T) {
	w := watchStore(blobtest.NewMem(), "")
	agent := waitsForever{make(chan struct{})}
	go func() {
		<-agent.called
		w.note(true, blob.ErrNoSpace) // the agent hears of that by itself
		w.note(true, nil)
		w.note(true, blob.ErrUnreachable)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	_, err := pointTaker{agent, w}.TakePoint(ctx, "s-0123456789abcdef0")
	var store errStore
	if !errors.As(err, &store) || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("TakePoint: %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := (pointTaker{waitsForever{make(chan struct{})}, watchStore(blobtest.NewMem(), "")}).TakePoint(ended, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that left: %v", err)
	}
}
