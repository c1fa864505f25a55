package blobtest

import (
	"context"
	"errors"
	"sync"

	"lifeboat/internal/vault/blob"
)

// Outcome is what becomes of an operation that a Faults store fails.
type Outcome int

const (
	Refused       Outcome = iota // an error, and nothing was done
	DoneButFailed                // an error, although it was done
	ThenDead                     // done, and this and all later operations fail
	DeadBefore                   // not done, and all later operations fail
	outcomes
)

// Outcomes are all of them.
var Outcomes = []Outcome{Refused, DoneButFailed, ThenDead, DeadBefore}

func (o Outcome) String() string {
	return [outcomes]string{"refused", "done but failed", "done, then dead", "dead before"}[o]
}

// ErrInjected is the error of a failed operation.
var ErrInjected = errors.New("injected fault")

// Faults is a store whose Nth operation fails.
type Faults struct {
	blob.Store
	mu      sync.Mutex
	left    int // operations until the fault; below zero: it is past
	outcome Outcome
	dead    bool
}

// NewFaults makes operation n of s, counted from 1, end with the outcome; 0: none does.
func NewFaults(s blob.Store, n int, outcome Outcome) *Faults {
	return &Faults{Store: s, left: n, outcome: outcome}
}

// Arm makes operation n from now on, counted from 1, end with the outcome; 0: none does.
// What was armed before is forgotten, but a store that is dead stays so.
func (f *Faults) Arm(n int, outcome Outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left, f.outcome = n, outcome
}

// Kill makes all further operations fail, as the end of a process does.
func (f *Faults) Kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead = true
}

// Dead tells whether all operations fail.
func (f *Faults) Dead() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

// Hit tells whether the fault has happened.
func (f *Faults) Hit() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left < 0
}

func (f *Faults) do(op func() error) error {
	f.mu.Lock()
	if f.dead {
		f.mu.Unlock()
		return ErrInjected
	}
	fault := false
	if f.left > 0 {
		if f.left--; f.left == 0 {
			f.left, fault = -1, true
			f.dead = f.outcome == ThenDead || f.outcome == DeadBefore
		}
	}
	f.mu.Unlock()
	if !fault {
		return op()
	}
	if f.outcome == DoneButFailed || f.outcome == ThenDead {
		_ = op() // the caller is told another tale
	}
	return ErrInjected
}

// PutIfAbsent implements blob.Store.
func (f *Faults) PutIfAbsent(ctx context.Context, name string, parts ...[]byte) error {
	return f.do(func() error { return f.Store.PutIfAbsent(ctx, name, parts...) })
}

// ReadAt implements blob.Store.
func (f *Faults) ReadAt(ctx context.Context, name string, p []byte, off int64) (n int, err error) {
	err = f.do(func() (err error) {
		n, err = f.Store.ReadAt(ctx, name, p, off)
		return err
	})
	if errors.Is(err, ErrInjected) {
		n = 0
	}
	return n, err
}

// Size implements blob.Store.
func (f *Faults) Size(ctx context.Context, name string) (n int64, err error) {
	err = f.do(func() (err error) {
		n, err = f.Store.Size(ctx, name)
		return err
	})
	return n, err
}

// List implements blob.Store.
func (f *Faults) List(ctx context.Context, folder string) (names []string, err error) {
	err = f.do(func() (err error) {
		names, err = f.Store.List(ctx, folder)
		return err
	})
	return names, err
}

// Delete implements blob.Store.
func (f *Faults) Delete(ctx context.Context, name string) error {
	return f.do(func() error { return f.Store.Delete(ctx, name) })
}
