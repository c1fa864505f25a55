package db

import (
	"context"
	"fmt"

	"github.com/uptrace/bun"

	"lifeboat/internal/drs"
)

type jobLogRow struct {
	bun.BaseModel `bun:"table:job_log"`

	Seq          int64 `bun:",pk,autoincrement"`
	Job          string
	Step         string
	Time         stamp
	Event        string
	SourceServer string
	Instance     string
	RawError     string
	Note         string
	Conversion   document[*drs.Conversion]
	Network      document[*drs.NetworkEvent]
}

// Log adds a line to a job's log. step names the line within the job: writing
// the same step again changes nothing, so that a step repeated after a crash is
// told once.
func (tx Tx) Log(ctx context.Context, step string, item drs.JobLogItem) error {
	row := jobLogRow{
		Job: string(item.Job), Step: step, Time: stampOf(item.Time), Event: string(item.Event),
		SourceServer: string(item.SourceServer), Instance: string(item.Instance),
		RawError: item.RawError, Note: item.Note, Conversion: document[*drs.Conversion]{item.Conversion},
		Network: document[*drs.NetworkEvent]{item.Network},
	}
	if _, err := tx.NewInsert().Model(&row).On("CONFLICT DO NOTHING").Exec(ctx); err != nil {
		return fmt.Errorf("log %s of job %s: %w", item.Event, item.Job, err)
	}
	return nil
}

// JobLog lists the log of one job in order of time.
func (d *DB) JobLog(ctx context.Context, id drs.JobID, page Page) ([]drs.JobLogItem, string, error) {
	var rows []jobLogRow
	q, err := page.by(d.read.NewSelect().Model(&rows).Where("job = ?", id), "seq", "job", false)
	if err != nil {
		return nil, "", err
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", fmt.Errorf("list the log of job %s: %w", id, err)
	}
	rows, next := cut(page, rows, func(r jobLogRow) cursor { return cursor{r.Seq, r.Job} })
	return convert(rows, func(r jobLogRow) drs.JobLogItem {
		return drs.JobLogItem{
			Job: drs.JobID(r.Job), Time: r.Time.Time(), Event: drs.JobEvent(r.Event),
			SourceServer: drs.SourceServerID(r.SourceServer), Instance: drs.RecoveryInstanceID(r.Instance),
			RawError: r.RawError, Note: r.Note, Conversion: r.Conversion.V, Network: r.Network.V,
		}
	}), next, nil
}
