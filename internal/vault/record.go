package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"lifeboat/internal/drs"
	"lifeboat/internal/vault/blob"
	"lifeboat/internal/vault/envelope"
	"lifeboat/internal/vault/seal"
)

// maxRecord bounds a record, in bytes.
const maxRecord = 4 << 20

// PutRecord keeps a document about a server beside its data, encrypted: what would be
// lost with the tables otherwise. What it says is the caller's. It is durable when
// PutRecord returns, replaces the one before, and costs nothing when it equals it.
// ErrNewerRecord: the one before is later than what marks know of, and stays; without
// marks, which may be nil, whatever there is gets replaced.
func (v *Vault) PutRecord(ctx context.Context, server drs.SourceServerID, document []byte, marks Marks) error {
	key, err := v.dataKey(ctx, server)
	if err == nil && len(document) > maxRecord {
		err = fmt.Errorf("%d bytes, want at most %d", len(document), maxRecord)
	}
	if err == nil {
		err = v.documents(recordsFolder(server), ".record", envelope.Record, server, key).put(ctx, document, marks)
	}
	if err != nil {
		return fmt.Errorf("put record of %s: %w", server, err)
	}
	return nil
}

// Record returns the newest document about a server. ErrAbsent: there is none.
func (v *Vault) Record(ctx context.Context, server drs.SourceServerID) ([]byte, error) {
	key, err := v.dataKey(ctx, server)
	if err != nil {
		return nil, fmt.Errorf("read record: %w", err)
	}
	document, _, err := v.documents(recordsFolder(server), ".record", envelope.Record, server, key).newest(ctx)
	if err != nil {
		return nil, fmt.Errorf("read record of %s: %w", server, err)
	}
	return document, nil
}

// maxOwnRecord bounds the record of the vault as a whole, in bytes.
const maxOwnRecord = 64 << 20

// PutOwnRecord keeps a document that is about no single server, like PutRecord.
func (v *Vault) PutOwnRecord(ctx context.Context, document []byte, marks Marks) error {
	if len(document) > maxOwnRecord {
		return fmt.Errorf("put the vault's record: %d bytes, want at most %d", len(document), maxOwnRecord)
	}
	if err := v.ownRecords().put(ctx, document, marks); err != nil {
		return fmt.Errorf("put the vault's record: %w", err)
	}
	return nil
}

// OwnRecord returns the newest such document. ErrAbsent: there is none.
func (v *Vault) OwnRecord(ctx context.Context) ([]byte, error) {
	document, _, err := v.ownRecords().newest(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the vault's record: %w", err)
	}
	return document, nil
}

func (v *Vault) ownRecords() documents {
	return v.documents(ownRecords, ".record", envelope.Record, "", v.own)
}

// documents are sealed objects of one folder of which the newest counts.
type documents struct {
	v              *Vault
	folder, suffix string
	kind           envelope.Kind
	server         drs.SourceServerID
	key            seal.Key
}

func (v *Vault) documents(folder, suffix string, kind envelope.Kind, server drs.SourceServerID, key seal.Key) documents {
	return documents{v, folder, suffix, kind, server, key}
}

func (d documents) name(number uint64) string {
	return fmt.Sprintf("%s%016x%s", d.folder, number, d.suffix)
}

// newest returns the newest document that is sound, and the number of the newest of
// all, 0 with ErrAbsent when there is none.
func (d documents) newest(ctx context.Context) (document []byte, number uint64, err error) {
	for range 8 { // one may be replaced while it is looked for
		names, err := d.v.store.List(ctx, d.folder)
		if err != nil {
			return nil, 0, err
		}
		numbers := numbered(names, d.suffix)
		if len(numbers) == 0 {
			return nil, 0, ErrAbsent
		}
		number = numbers[len(numbers)-1]
		var first error
		for _, n := range slices.Backward(numbers) {
			document, err := d.read(ctx, n)
			if err == nil {
				if first != nil {
					d.v.log.Warn("the newest document cannot be used, an older one is", "object", d.name(number), "err", first)
				}
				return document, number, nil
			}
			if !damaged(err) && !errors.Is(err, blob.ErrAbsent) {
				return nil, number, err
			}
			if first == nil {
				first = err
			}
		}
		if !errors.Is(first, blob.ErrAbsent) {
			return nil, number, first
		}
	}
	return nil, number, errors.New("it changes all the time")
}

func (d documents) read(ctx context.Context, number uint64) ([]byte, error) {
	env, err := d.v.readSealed(ctx, d.name(number), d.kind, d.key)
	if err != nil {
		return nil, err
	}
	if env.Number != number || env.Server != string(d.server) {
		return nil, &CorruptError{Object: d.name(number), Reason: "swapped with another one"}
	}
	return env.Body, nil
}

// put stores a document unless it is the newest already, and deletes all but the
// newest and the one before it.
func (d documents) put(ctx context.Context, document []byte, marks Marks) error {
	before, number, err := d.newest(ctx)
	if err != nil && !errors.Is(err, ErrAbsent) && !damaged(err) {
		return err
	}
	same := err == nil && bytes.Equal(before, document)
	if number, err = d.next(ctx, number, document, same, marks); err != nil || same {
		return err
	}
	if err := d.create(ctx, number, document); err != nil {
		return err
	}
	return d.trim(ctx, number)
}

// create stores the document of a number, or returns blob.ErrExists.
func (d documents) create(ctx context.Context, number uint64, document []byte) error {
	stored, _, err := envelope.Encode(envelope.Header{Kind: d.kind, Cipher: d.v.cipher, Number: number, Server: string(d.server)}, d.key, document)
	if err != nil {
		return err
	}
	err = d.v.store.PutIfAbsent(ctx, d.name(number), stored)
	if errors.Is(err, blob.ErrExists) { // a put whose answer was lost finds itself
		if there, readErr := d.read(ctx, number); readErr == nil && bytes.Equal(there, document) {
			return nil
		}
	}
	return err
}

// trim deletes all documents before the one that precedes number.
func (d documents) trim(ctx context.Context, number uint64) error {
	names, err := d.v.store.List(ctx, d.folder)
	if err != nil {
		return err
	}
	var older []uint64
	for _, n := range numbered(names, d.suffix) {
		if n < number {
			older = append(older, n)
		}
	}
	for _, n := range older[:max(0, len(older)-1)] {
		if err := d.v.store.Delete(ctx, d.name(n)); err != nil && !errors.Is(err, blob.ErrAbsent) {
			return err
		}
	}
	return nil
}
