package db

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lifeboat/internal/drs"
)

// SetAgentCertificate makes one certificate, by its serial number, the only one
// that speaks for a source server.
func (d *DB) SetAgentCertificate(ctx context.Context, server drs.SourceServerID, serial string) error {
	_, err := d.write.NewRaw("INSERT INTO agent_certificates (source_server, serial, issued) VALUES (?, ?, ?) "+
		"ON CONFLICT (source_server) DO UPDATE SET serial = excluded.serial, issued = excluded.issued, offered = ''",
		server, serial, stampOf(time.Now())).Exec(ctx)
	if err != nil {
		return fmt.Errorf("keep certificate of %s: %w", server, err)
	}
	return nil
}

// OfferAgentCertificate makes a second certificate good beside the one that speaks
// for a source server, in place of any that was offered before, until one of the
// two is shown. ErrAbsent: current does not speak for the server any more.
func (d *DB) OfferAgentCertificate(ctx context.Context, server drs.SourceServerID, current, offered string) error {
	if _, err := d.AgentCertificate(ctx, server); errors.Is(err, ErrAbsent) {
		// It is of a time when none was kept: any was good, and from now on these are.
		_, err := d.write.NewRaw("INSERT INTO agent_certificates (source_server, serial, issued) VALUES (?, ?, ?) ON CONFLICT (source_server) DO NOTHING",
			server, current, stampOf(time.Now())).Exec(ctx)
		if err != nil {
			return fmt.Errorf("keep certificate of %s: %w", server, err)
		}
	}
	result, err := d.write.NewRaw("UPDATE agent_certificates SET offered = ? WHERE source_server = ? AND serial = ?", offered, server, current).Exec(ctx)
	return changedOne(result, err, server)
}

// TakeAgentCertificate makes the certificate that was offered the only one that
// speaks for a source server. ErrAbsent: it was not offered, or another one was
// since.
func (d *DB) TakeAgentCertificate(ctx context.Context, server drs.SourceServerID, offered string) error {
	result, err := d.write.NewRaw("UPDATE agent_certificates SET serial = offered, offered = '', issued = ? WHERE source_server = ? AND offered = ? AND offered <> ''",
		stampOf(time.Now()), server, offered).Exec(ctx)
	return changedOne(result, err, server)
}

func changedOne(result interface{ RowsAffected() (int64, error) }, err error, server drs.SourceServerID) error {
	var n int64
	if err == nil {
		n, err = result.RowsAffected()
	}
	if err == nil && n == 0 {
		err = ErrAbsent
	}
	if err != nil {
		return fmt.Errorf("change certificate of %s: %w", server, err)
	}
	return nil
}

// AgentCertificate returns the serial number of the certificate that speaks for a
// source server, or ErrAbsent where none is kept: then any does that was issued to
// it.
func (d *DB) AgentCertificate(ctx context.Context, server drs.SourceServerID) (serial string, err error) {
	err = d.read.NewRaw("SELECT serial FROM agent_certificates WHERE source_server = ?", server).Scan(ctx, &serial)
	if err != nil {
		return "", fmt.Errorf("look up certificate of %s: %w", server, absent(err))
	}
	return serial, nil
}
