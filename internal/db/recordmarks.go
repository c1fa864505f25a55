package db

import (
	"context"
	"errors"
	"fmt"

	"lifeboat/internal/drs"
)

// RecordMark returns under which number, and with which SHA-256, a source server's record
// was last to be put into the vault; the installation's where server is empty. number is
// 0 where that was never noted.
func (d *DB) RecordMark(ctx context.Context, server drs.SourceServerID) (number uint64, sum []byte, err error) {
	err = absent(d.read.NewRaw("SELECT number, sum FROM record_marks WHERE source_server = ?", string(server)).Scan(ctx, &number, &sum))
	if errors.Is(err, ErrAbsent) {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, fmt.Errorf("look up the mark of record %q: %w", server, err)
	}
	return number, sum, nil
}

// SetRecordMark notes it, durably.
func (d *DB) SetRecordMark(ctx context.Context, server drs.SourceServerID, number uint64, sum []byte) error {
	_, err := d.write.NewRaw("INSERT INTO record_marks (source_server, number, sum) VALUES (?, ?, ?) "+
		"ON CONFLICT (source_server) DO UPDATE SET number = excluded.number, sum = excluded.sum", string(server), int64(number), sum).Exec(ctx)
	if err != nil {
		return fmt.Errorf("set the mark of record %q: %w", server, err)
	}
	return nil
}
