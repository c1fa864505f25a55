package db

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

type pointRow struct {
	bun.BaseModel `bun:"table:recovery_points"`

	ID           string `bun:",pk"`
	SourceServer string
	Expected     stamp
	Taken        stamp
	Consistency  string
	Method       string
	Epoch        int64
	Freeze       int64 // nanoseconds
}

func (r pointRow) resource() drs.RecoveryPoint {
	return drs.RecoveryPoint{
		ID: drs.RecoverySnapshotID(r.ID), SourceServer: drs.SourceServerID(r.SourceServer),
		Expected: r.Expected.Time(), Taken: r.Taken.Time(),
		Consistency: drs.Consistency(r.Consistency), Method: drs.CutMethod(r.Method), Epoch: uint64(r.Epoch),
		Freeze: time.Duration(r.Freeze),
	}
}

func pointRowOf(p drs.RecoveryPoint) pointRow {
	return pointRow{
		ID: string(p.ID), SourceServer: string(p.SourceServer),
		Expected: stampOf(p.Expected), Taken: stampOf(p.Taken),
		Consistency: string(p.Consistency), Method: string(p.Method), Epoch: int64(p.Epoch),
		Freeze: int64(p.Freeze),
	}
}

// AddPoint puts a committed point into the catalogue; again changes nothing. The
// points of a server whose replication has ended are not kept, and one that was
// committed just before is none that anybody was promised.
func (d *DB) AddPoint(ctx context.Context, p drs.RecoveryPoint) error {
	row := pointRowOf(p)
	err := d.InTx(ctx, func(ctx context.Context, tx Tx) error {
		if ended, err := tx.ended(ctx, p.SourceServer); err != nil || ended {
			return err
		}
		result, err := tx.NewInsert().Model(&row).On("CONFLICT DO NOTHING").Exec(ctx)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 || !p.Bootable() {
			return err
		}
		return tx.emitPoint(ctx, p)
	})
	if err != nil {
		return fmt.Errorf("add recovery point %s: %w", p.ID, err)
	}
	return nil
}

// ReplacePoints makes the catalogue of one server equal to what the vault holds, and
// writes nothing but the difference. No point may be committed or dropped between
// the caller's look at the vault and its return.
func (d *DB) ReplacePoints(ctx context.Context, server drs.SourceServerID, points []drs.RecoveryPoint) error {
	err := d.InTx(ctx, func(ctx context.Context, tx Tx) error {
		var there []string
		if err := tx.NewSelect().Model((*pointRow)(nil)).Column("id").Where("source_server = ?", server).Scan(ctx, &there); err != nil {
			return err
		}
		gone := make(map[string]bool, len(there))
		for _, id := range there {
			gone[id] = true
		}
		var fresh []pointRow
		for _, p := range points {
			if gone[string(p.ID)] {
				delete(gone, string(p.ID))
			} else {
				fresh = append(fresh, pointRowOf(p))
			}
		}
		for len(fresh) > 0 {
			some := fresh[:min(pointBatch, len(fresh))]
			if _, err := tx.NewInsert().Model(&some).Exec(ctx); err != nil {
				return err
			}
			fresh = fresh[len(some):]
		}
		return tx.dropPoints(ctx, slices.Collect(maps.Keys(gone)))
	})
	if err != nil {
		return fmt.Errorf("catalogue the recovery points of %s: %w", server, err)
	}
	return nil
}

// RetirePoints takes points off the catalogue before the vault drops them, and returns
// those that it took off: a point that a recovery instance began at, or that a job
// which is not completed was asked to launch, stays. Afterwards no job can ask for them.
func (d *DB) RetirePoints(ctx context.Context, ids []drs.RecoverySnapshotID) (retired []drs.RecoverySnapshotID, err error) {
	err = d.InTx(ctx, func(ctx context.Context, tx Tx) error {
		used, err := tx.pointsInUse(ctx)
		if err != nil {
			return err
		}
		var gone []string
		for _, id := range ids {
			if !used[string(id)] {
				retired, gone = append(retired, id), append(gone, string(id))
			}
		}
		return tx.dropPoints(ctx, gone)
	})
	if err != nil {
		return nil, fmt.Errorf("retire %d recovery points: %w", len(ids), err)
	}
	return retired, nil
}

// pointsInUse are the points of all instances and of all jobs that are not completed.
func (tx Tx) pointsInUse(ctx context.Context) (map[string]bool, error) {
	var ids []string
	err := tx.NewRaw(`SELECT point FROM recovery_instances UNION SELECT s.snapshot FROM job_servers s
		JOIN jobs j ON j.id = s.job WHERE j.status <> ? AND s.snapshot <> ''`, string(drs.JobCompleted)).Scan(ctx, &ids)
	used := make(map[string]bool, len(ids))
	for _, id := range ids {
		used[id] = true
	}
	return used, err
}

// pointBatch is how many points one statement is about.
const pointBatch = 500

func (tx Tx) dropPoints(ctx context.Context, ids []string) error {
	for len(ids) > 0 {
		some := ids[:min(pointBatch, len(ids))]
		if _, err := tx.NewDelete().Model((*pointRow)(nil)).Where("id IN (?)", bun.List(some)).Exec(ctx); err != nil {
			return err
		}
		ids = ids[len(some):]
	}
	return nil
}

// PointFilter narrows a listing; zero members do not. Fuzzy points are listed
// only when asked for.
type PointFilter struct {
	From, To     time.Time // both inclusive, of the point's taken time
	IncludeFuzzy bool
	Descending   bool
}

// Points lists the recovery points of one server by time.
func (d *DB) Points(ctx context.Context, server drs.SourceServerID, f PointFilter, page Page) ([]drs.RecoveryPoint, string, error) {
	var rows []pointRow
	q := d.read.NewSelect().Model(&rows).Where("source_server = ?", server)
	if !f.From.IsZero() {
		q = q.Where("taken >= ?", stampOf(f.From))
	}
	if !f.To.IsZero() {
		q = q.Where("taken <= ?", stampOf(f.To))
	}
	if !f.IncludeFuzzy {
		q = q.Where("consistency <> ?", string(drs.Fuzzy))
	}
	q, err := page.by(q, "taken", "id", f.Descending)
	if err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list recovery points of %s: %w", server, err)
	}
	rows, next := cut(page, rows, func(r pointRow) cursor { return cursor{int64(r.Taken), r.ID} })
	return convert(rows, pointRow.resource), next, nil
}

// PointOfEpoch returns the point that an epoch of a server became, or ErrAbsent.
func (d *DB) PointOfEpoch(ctx context.Context, server drs.SourceServerID, epoch uint64) (drs.RecoverySnapshotID, error) {
	var row pointRow
	err := d.read.NewSelect().Model(&row).Where("source_server = ? AND epoch = ?", server, int64(epoch)).Limit(1).Scan(ctx)
	if err != nil {
		return "", fmt.Errorf("look up the recovery point of epoch %d of %s: %w", epoch, server, absent(err))
	}
	return drs.RecoverySnapshotID(row.ID), nil
}

// Point returns one recovery point, or ErrAbsent.
func (d *DB) Point(ctx context.Context, id drs.RecoverySnapshotID) (drs.RecoveryPoint, error) {
	return point(ctx, d.read, id)
}

// Point is DB.Point within the transaction.
func (tx Tx) Point(ctx context.Context, id drs.RecoverySnapshotID) (drs.RecoveryPoint, error) {
	return point(ctx, tx, id)
}

func point(ctx context.Context, db bun.IDB, id drs.RecoverySnapshotID) (drs.RecoveryPoint, error) {
	var row pointRow
	if err := db.NewSelect().Model(&row).Where("id = ?", id).Scan(ctx); err != nil {
		return drs.RecoveryPoint{}, fmt.Errorf("look up recovery point %s: %w", id, absent(err))
	}
	return row.resource(), nil
}

// LatestPoint returns the newest point of a server that may be chosen without
// being named, or ErrAbsent. The newest is the one committed last: the order of
// commits is sure, that of clocks is not.
func (d *DB) LatestPoint(ctx context.Context, server drs.SourceServerID) (drs.RecoveryPoint, error) {
	var row pointRow
	err := d.read.NewSelect().Model(&row).Where("source_server = ? AND consistency <> ?", server, string(drs.Fuzzy)).
		Order("epoch DESC", "taken DESC", "id DESC").Limit(1).Scan(ctx)
	if err != nil {
		return drs.RecoveryPoint{}, fmt.Errorf("look up the latest recovery point of %s: %w", server, absent(err))
	}
	return row.resource(), nil
}

// HaveLatest tells which of the servers have a point that LatestPoint returns.
func (tx Tx) HaveLatest(ctx context.Context, servers []drs.SourceServerID) (map[drs.SourceServerID]bool, error) {
	var ids []string
	err := tx.NewSelect().Model((*serverRow)(nil)).Column("id").Where("id IN (?)", bun.List(servers)).
		Where("EXISTS (SELECT 1 FROM recovery_points WHERE source_server = server_row.id AND consistency <> ?)", string(drs.Fuzzy)).
		Scan(ctx, &ids)
	if err != nil {
		return nil, fmt.Errorf("look up recovery points: %w", err)
	}
	have := make(map[drs.SourceServerID]bool, len(ids))
	for _, id := range ids {
		have[drs.SourceServerID(id)] = true
	}
	return have, nil
}

// PointTotal is how many recovery points a server has, and when the newest of those that
// may be chosen without being named was taken; zero: there is none.
type PointTotal struct {
	Points int64
	Newest time.Time
}

// PointTotals returns it of every source server.
func (d *DB) PointTotals(ctx context.Context) (map[drs.SourceServerID]PointTotal, error) {
	var rows []struct {
		ID     string
		Points int64
		Newest *stamp
	}
	err := d.read.NewRaw(`SELECT id, (SELECT COUNT(*) FROM recovery_points WHERE source_server = source_servers.id) AS points,
		(SELECT taken FROM recovery_points WHERE source_server = source_servers.id AND consistency <> ? ORDER BY epoch DESC, taken DESC LIMIT 1) AS newest
		FROM source_servers`, string(drs.Fuzzy)).Scan(ctx, &rows)
	if err != nil {
		return nil, fmt.Errorf("count recovery points: %w", err)
	}
	out := make(map[drs.SourceServerID]PointTotal, len(rows))
	for _, r := range rows {
		total := PointTotal{Points: r.Points}
		if r.Newest != nil {
			total.Newest = r.Newest.Time()
		}
		out[drs.SourceServerID(r.ID)] = total
	}
	return out, nil
}
