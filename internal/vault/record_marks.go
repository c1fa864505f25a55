package vault

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/envelope"
)

// Marks are what the writer of records remembers of them outside the vault: of each, the
// number under which it last set out to put it, and the SHA-256 of what. A writer that was
// set back to an earlier state is known by marks that the vault has passed.
type Marks interface {
	// RecordMark returns the mark of a server's record; of the vault's own where server is
	// empty. number is 0 where none was ever set.
	RecordMark(ctx context.Context, server drs.SourceServerID) (number uint64, sum []byte, err error)
	// SetRecordMark is durable when it returns.
	SetRecordMark(ctx context.Context, server drs.SourceServerID, number uint64, sum []byte) error
}

// ErrNewerRecord: the vault holds a later record than its writer knows of.
var ErrNewerRecord = errors.New("the vault's record is newer than the database, as if that was put back from an old copy: " +
	"start the server anew, and it tells what to do")

// CheckRecord returns ErrNewerRecord when the vault holds a later record than marks know
// of: of a server, or the vault's own where server is empty.
func (v *Vault) CheckRecord(ctx context.Context, server drs.SourceServerID, marks Marks) error {
	d, err := v.recordDocuments(ctx, server)
	if err != nil {
		return err
	}
	number, err := d.latest(ctx)
	if err == nil {
		_, _, err = d.passed(ctx, number, marks)
	}
	if err != nil {
		return fmt.Errorf("check record %s: %w", d.folder, err)
	}
	return nil
}

// MarkRecord makes marks know of the record that the vault holds, so that its next put
// replaces it. One that is absent, or cannot be read, needs no mark.
func (v *Vault) MarkRecord(ctx context.Context, server drs.SourceServerID, marks Marks) error {
	d, err := v.recordDocuments(ctx, server)
	if err != nil {
		return err
	}
	number, err := d.latest(ctx)
	if err != nil || number == 0 {
		return err
	}
	document, err := d.read(ctx, number)
	if err != nil && !damaged(err) {
		return fmt.Errorf("mark record %s: %w", d.name(number), err)
	}
	sum := sha256.Sum256(document)
	return marks.SetRecordMark(ctx, server, number, sum[:])
}

func (v *Vault) recordDocuments(ctx context.Context, server drs.SourceServerID) (documents, error) {
	if server == "" {
		return v.ownRecords(), nil
	}
	key, err := v.dataKey(ctx, server)
	if err != nil {
		return documents{}, fmt.Errorf("look at the record of %s: %w", server, err)
	}
	return v.documents(recordsFolder(server), ".record", envelope.Record, server, key), nil
}

// latest returns the number of the newest document, sound or not; 0: there is none.
func (d documents) latest(ctx context.Context) (uint64, error) {
	names, err := d.v.store.List(ctx, d.folder)
	if err != nil {
		return 0, err
	}
	numbers := numbered(names, d.suffix)
	if len(numbers) == 0 {
		return 0, nil
	}
	return numbers[len(numbers)-1], nil
}

// passed returns the mark, or ErrNewerRecord when the newest document, of the given
// number, came after it.
func (d documents) passed(ctx context.Context, newest uint64, marks Marks) (number uint64, sum []byte, err error) {
	number, sum, err = marks.RecordMark(ctx, d.server)
	if err != nil || number == 0 || newest < number {
		return number, sum, err
	}
	if newest > number {
		return number, sum, ErrNewerRecord
	}
	// Under the very number: the writer was set back to the moment before it put it, and
	// had put something else, too.
	document, err := d.read(ctx, newest)
	if damaged(err) {
		return number, sum, nil
	}
	if now := sha256.Sum256(document); err == nil && !bytes.Equal(now[:], sum) {
		err = ErrNewerRecord
	}
	return number, sum, err
}

// next returns the number under which a document is to be put after the newest one, and
// sets its mark. same: it is the newest itself.
func (d documents) next(ctx context.Context, newest uint64, document []byte, same bool, marks Marks) (uint64, error) {
	if marks == nil {
		return newest + 1, nil
	}
	marked, sum, err := d.passed(ctx, newest, marks)
	if err != nil && (!same || !errors.Is(err, ErrNewerRecord)) {
		return 0, err
	}
	now := sha256.Sum256(document)
	switch {
	case same && marked >= newest:
		return newest, nil
	case same:
		return newest, marks.SetRecordMark(ctx, d.server, newest, now[:])
	case marked > newest && bytes.Equal(sum, now[:]):
		return marked, nil // its put was cut short
	}
	// What was to be put under the mark before may arrive yet.
	number := max(newest, marked) + 1
	return number, marks.SetRecordMark(ctx, d.server, number, now[:])
}
