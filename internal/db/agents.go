package db

import (
	"context"
	"fmt"
	"time"

	"lifeboat/internal/drs"
)

// SetAgentCertificate makes one certificate, by its serial number, the only one
// that speaks for a source server.
func (d *DB) SetAgentCertificate(ctx context.Context, server drs.SourceServerID, serial string) error {
	_, err := d.write.NewRaw("INSERT INTO agent_certificates (source_server, serial, issued) VALUES (?, ?, ?) "+
		"ON CONFLICT (source_server) DO UPDATE SET serial = excluded.serial, issued = excluded.issued",
		server, serial, stampOf(time.Now())).Exec(ctx)
	if err != nil {
		return fmt.Errorf("keep certificate of %s: %w", server, err)
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
