package recovery

import (
	"context"
	"time"

	"lifeboat/internal/drs"
)

// removedLater ends what a job's log says of an instance that was not removed.
const removedLater = " Nothing needs to be done: the server tries again by itself until the instance is gone."

// removeLeavings removes, every so often until ctx ends, what is still there of
// instances whose removal began and failed, as it does while the vault's store is
// away. What a job removes meanwhile is waited for and found gone.
func (s *Service) removeLeavings(ctx context.Context) {
	ticker := time.NewTicker(s.RemoveEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		instances, err := s.DB.AllInstances(ctx)
		if err != nil && ctx.Err() == nil {
			s.Log.Error("leavings of instances were not looked for", "err", err)
		}
		for _, i := range instances {
			if i.State != drs.InstanceShuttingDown {
				continue
			}
			err := s.remove(ctx, i)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				s.Log.Warn("instance was still not removed", "instance", i.ID, "retry_in", s.RemoveEvery, "err", err)
				continue
			}
			s.Log.Info("instance was removed at a later try", "instance", i.ID)
		}
	}
}
