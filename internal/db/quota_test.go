package db_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// Servers extended from another account take no place of the account's own, and
// all of them together have a bound.
func TestQuotasOfServers(t *testing.T) {
	ctx := t.Context()
	d, err := db.Create(ctx, filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	mine, staging := drs.Account{ID: "111122223333", Region: "eu-west-1"}, drs.Account{ID: "444455556666", Region: "eu-west-1"}
	most := drs.DefaultQuotas.SourceServers
	register := func(account drs.Account, name string) (drs.SourceServerID, error) {
		server, _, err := d.RegisterServer(ctx, db.Registration{Account: account, HardwareID: name, Most: 2, MostInAll: most})
		return server.ID, err
	}
	extend := func(id drs.SourceServerID) error {
		return d.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
			_, err := tx.InsertExtended(ctx, drs.SourceServer{Account: mine, Staging: drs.Staging{Account: staging, Server: id}}, most)
			return err
		})
	}
	refused := func(err error, code drs.QuotaCode) {
		t.Helper()
		var quota *drs.Error
		if !errors.As(err, &quota) || quota.Kind != drs.KindQuotaExceeded || quota.Quota != code {
			t.Errorf("%v, want %s", err, code)
		}
	}
	var last drs.SourceServerID
	for _, name := range []string{"a", "b"} {
		if last, err = register(staging, name); err == nil {
			err = extend(last)
		}
		if err == nil {
			_, err = register(mine, name)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = register(mine, "c")
	refused(err, drs.QuotaReplicatingServers)

	var columns string
	if err := d.SQL().QueryRowContext(ctx, "SELECT group_concat(name) FROM pragma_table_info('source_servers')").Scan(&columns); err != nil {
		t.Fatal(err)
	}
	values := strings.NewReplacer("id,", "id || i,", "hardware_id,", "hardware_id || i,", "staging_server", "staging_server || i").Replace(columns)
	_, err = d.SQL().ExecContext(ctx, fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
		INSERT INTO source_servers (%s) SELECT %s FROM n, (SELECT * FROM source_servers WHERE account = ? AND staging_server <> '' LIMIT 1)`,
		most-4, columns, values), mine.ID)
	if err != nil {
		t.Fatal(err)
	}
	other, err := register(staging, "a")
	if err == nil {
		err = d.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
			_, err := tx.InsertExtended(ctx, drs.SourceServer{Account: mine, Staging: drs.Staging{Account: staging, Server: other + "x"}}, most)
			return err
		})
	}
	refused(err, drs.QuotaSourceServers)
}
