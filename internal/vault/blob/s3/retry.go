package s3

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// attempts is how often one operation is asked for at most.
	attempts = 6
	// firstDelay doubles with every attempt; the delay is a random part of it.
	firstDelay = 100 * time.Millisecond
	maxDelay   = 5 * time.Second
)

// retry runs an attempt until its error is another than ErrUnreachable, attempts or
// time are used up, or ctx ends. An attempt ends when it has not called moved for the
// store's patience.
func (s *Store) retry(ctx context.Context, attempt func(ctx context.Context, moved func()) error) error {
	begun := time.Now()
	for n := 1; ; n++ {
		err := s.once(ctx, attempt)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !errors.Is(err, ErrUnreachable) || n == attempts || time.Since(begun) > 4*s.patience {
			return err
		}
		delay := min(s.delay<<(n-1), maxDelay)
		pause := time.NewTimer(delay/2 + rand.N(delay/2+1)) //nolint:gosec // it only spreads requests
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return context.Cause(ctx)
		}
	}
}

func (s *Store) once(parent context.Context, attempt func(ctx context.Context, moved func()) error) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	stall := time.AfterFunc(s.patience, func() { cancel(errStalled) })
	defer stall.Stop()
	err := attempt(ctx, func() { stall.Reset(s.patience) })
	if err != nil && parent.Err() == nil && errors.Is(context.Cause(ctx), errStalled) {
		return fmt.Errorf("%w (%w)", ErrUnreachable, errStalled)
	}
	return err
}
