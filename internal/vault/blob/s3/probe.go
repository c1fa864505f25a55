package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"lifeboat/internal/vault/blob"
)

// probes is the folder of the objects that probe makes. No object of a vault can have
// its name, and listings do not show it.
const probes = ".lifeboat-probe/"

// probe finds out by doing whether the store keeps what a vault relies on.
func (s *Store) probe(ctx context.Context, readOnly bool) error {
	if _, err := s.list(ctx, ""); err != nil {
		return err
	}
	if readOnly {
		return nil
	}
	folder := probes + newTag() + "/"
	var made []string
	defer func() {
		for _, name := range made {
			_ = s.remove(context.WithoutCancel(ctx), s.prefix+name) // a left-over probe is hidden and harmless
		}
	}()
	// Several at once: a store that looks first and creates then lets two pass.
	first, second := folder+"created", folder+"raced"
	made = append(made, first, second)
	if err := s.probeCreate(ctx, first); err != nil {
		return err
	}
	if err := s.probeRead(ctx, first); err != nil {
		return err
	}
	if err := s.probeRace(ctx, second); err != nil {
		return err
	}
	return s.probeList(ctx, folder, first, second)
}

var probeContent = []byte("lifeboat probes what this store keeps")

func (s *Store) probeCreate(ctx context.Context, name string) error {
	tag := newTag()
	err := s.put(ctx, name, tag, [][]byte{probeContent})
	if errors.Is(err, errRefused) {
		return fmt.Errorf("%w: a conditional create is refused: %w", ErrCannotFence, err)
	}
	if err != nil {
		return fmt.Errorf("create an object on trial: %w", err)
	}
	switch err := s.put(ctx, name, newTag(), [][]byte{[]byte("another content")}); {
	case err == nil:
		return fmt.Errorf("%w: it let a second create replace the first", ErrCannotFence)
	case !errors.Is(err, blob.ErrExists):
		return fmt.Errorf("%w: a second create is not answered with 412 Precondition Failed: %w", ErrCannotFence, err)
	}
	info, err := s.stat(ctx, name)
	if err != nil {
		return fmt.Errorf("look at an object just created: %w", err)
	}
	if info.UserMetadata[tagKey] != tag {
		return fmt.Errorf("%w: it does not keep the metadata of objects", ErrCannotFence)
	}
	return nil
}

func (s *Store) probeRead(ctx context.Context, name string) error {
	p := make([]byte, 9)
	n, err := s.readAt(ctx, s.prefix+name, p, 5)
	if err != nil {
		return fmt.Errorf("read an object just created: %w", err)
	}
	if !bytes.Equal(p[:n], probeContent[5:14]) {
		return fmt.Errorf("%w: a part of an object reads as %q, want %q", ErrCannotFence, p[:n], probeContent[5:14])
	}
	return nil
}

// racers is how many creates of one name are under way at once.
const racers = 8

func (s *Store) probeRace(ctx context.Context, name string) error {
	errs := make([]error, racers)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() { errs[i] = s.put(ctx, name, newTag(), [][]byte{{byte(i)}}) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, blob.ErrExists):
			return fmt.Errorf("create one object from several sides: %w", err)
		}
	}
	if won != 1 {
		return fmt.Errorf("%w: of %d creates of one object at once %d were told that they made it", ErrCannotFence, racers, won)
	}
	return nil
}

func (s *Store) probeList(ctx context.Context, folder string, want ...string) error {
	names, err := s.list(ctx, folder)
	if err != nil {
		return fmt.Errorf("list objects just created: %w", err)
	}
	slices.Sort(want)
	if !slices.Equal(names, want) {
		return fmt.Errorf("%w: a listing shows %q of the objects just created, want %q", ErrCannotFence, names, want)
	}
	return nil
}
