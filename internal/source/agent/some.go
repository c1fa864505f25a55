package agent

import (
	"context"

	"lifeboat/internal/source/blocktrack"
)

// someDisks is a tracker of some of the agent's disks, while others are gone. It
// names nothing of those: they are read as a whole when they come back.
type someDisks struct {
	blocktrack.Watcher
	at    []int // the place among all disks of each that is tracked
	disks int
}

func (s someDisks) Swap(ctx context.Context) ([]blocktrack.Changes, error) {
	named, err := s.Watcher.Swap(ctx)
	if err != nil {
		return nil, err
	}
	changes := make([]blocktrack.Changes, s.disks)
	for i, c := range named {
		changes[s.at[i]] = c
	}
	return changes, nil
}
