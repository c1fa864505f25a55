package recovery

import (
	"context"
	"errors"
	"fmt"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// choosePoint returns the recovery point that a server is launched from: the one
// that was named, or one taken on demand, or when that cannot be had the newest
// consistent one. The job's log tells which.
//
// failed is the reason why there is none, for the job's log; err means that the
// job could not go on.
func (r serverRun) choosePoint(ctx context.Context) (point drs.RecoveryPoint, failed error, err error) {
	s, server := r.service, r.held
	if r.part.Snapshot != "" {
		point, failed = s.DB.Point(ctx, r.part.Snapshot)
		if failed != nil && !errors.Is(failed, db.ErrAbsent) {
			return point, nil, failed
		}
		if failed != nil {
			return point, failed, r.log(ctx, drs.JobLogItem{
				Event: drs.EventUsingPreviousSnapshotFailed, RawError: explain(failed),
			})
		}
		return point, nil, r.log(ctx, drs.JobLogItem{Event: drs.EventUsingPreviousSnapshot, Note: describe(point)})
	}

	if err := r.log(ctx, drs.JobLogItem{Event: drs.EventSnapshotStart}); err != nil {
		return point, nil, err
	}
	taking, cancel := context.WithTimeout(ctx, s.PointWait)
	defer cancel()
	point, failed = s.Points.TakePoint(taking, server)
	if ctx.Err() != nil {
		return point, nil, ctx.Err()
	}
	if failed == nil && !point.Bootable() {
		failed = fmt.Errorf("the agent could only take a fuzzy point (%s): the disks changed while they were read", point.ID)
	}
	if failed == nil {
		return point, nil, r.log(ctx, drs.JobLogItem{Event: drs.EventSnapshotEnd, Note: describe(point)})
	}
	if err := r.log(ctx, drs.JobLogItem{Event: drs.EventSnapshotFail, RawError: explain(failed)}); err != nil {
		return point, nil, err
	}
	point, failed = s.DB.LatestPoint(ctx, server)
	if failed != nil && !errors.Is(failed, db.ErrAbsent) {
		return point, nil, failed
	}
	if failed != nil {
		return point, failed, r.log(ctx, drs.JobLogItem{
			Event: drs.EventUsingPreviousSnapshotFailed, RawError: explain(failed),
		})
	}
	return point, nil, r.log(ctx, drs.JobLogItem{Event: drs.EventUsingPreviousSnapshot, Note: describe(point)})
}

func describe(p drs.RecoveryPoint) string {
	return fmt.Sprintf("recovery point %s of %s, consistency: %s", p.ID, p.Taken.Format("2006-01-02T15:04:05.000Z"), p.Consistency)
}
