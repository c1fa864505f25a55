package agent

import (
	"context"
	"errors"

	"lifeboat/internal/source/blocktrack"
)

// watchers are trackers of the agent's disks: of one disk at most one. They name nothing
// of disks that none of them watches: those are read as a whole when they come back.
type watchers struct {
	parts []watched
	disks int
	// apart tells whether what is written to a disk does not matter to points.
	apart func(disk int) bool
}

// watched is a tracker of some disks.
type watched struct {
	blocktrack.Watcher
	at []int // the place among all disks of each that is tracked
}

func (w watchers) Name() string { return w.parts[0].Name() }

// Swap is of a moment that lies between its call and its return: what a part names later
// than another is no less named.
func (w watchers) Swap(ctx context.Context) ([]blocktrack.Changes, error) {
	changes := make([]blocktrack.Changes, w.disks)
	for _, part := range w.parts {
		named, err := part.Swap(ctx)
		if err != nil {
			return nil, err
		}
		for i, c := range named {
			changes[part.at[i]] = c
		}
	}
	return changes, nil
}

// Quiet leaves out parts of which no disk matters to points.
func (w watchers) Quiet() (bool, error) {
	for _, part := range w.parts {
		matters := false
		for _, i := range part.at {
			matters = matters || !w.apart(i)
		}
		if !matters {
			continue
		}
		if quiet, err := part.Quiet(); err != nil || !quiet {
			return false, err
		}
	}
	return true, nil
}

func (w watchers) Close() error {
	var errs []error
	for _, part := range w.parts {
		errs = append(errs, part.Close())
	}
	return errors.Join(errs...)
}

// alongside is the agent's live tracker, if it has one, with another beside it.
func (a *agent) alongside(part watched) watchers {
	w := watchers{disks: len(a.disks.all), apart: func(i int) bool {
		return i < len(a.disks.all) && a.disks.all[i].joining.Load()
	}}
	switch live := a.live.(type) {
	case nil:
	case watchers:
		w.parts = append(w.parts, live.parts...)
	default:
		all := watched{Watcher: live}
		for i := range len(a.todo) {
			all.at = append(all.at, i)
		}
		w.parts = append(w.parts, all)
	}
	w.parts = append(w.parts, part)
	return w
}
