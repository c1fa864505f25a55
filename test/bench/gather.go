package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// fillSite makes the data of a server whose account has a large history.
func (b *bench) fillSite(ctx context.Context, at string) (err error) {
	s, err := b.newSite(ctx, at)
	if err != nil {
		return err
	}
	account, err := s.accountOf(ctx)
	if err := errors.Join(err, s.close(ctx)); err != nil {
		return err
	}
	if err := gather(ctx, filepath.Join(s.Data(), "lifeboat.db"), account); err != nil {
		return fmt.Errorf("fill the tables: %w", err)
	}
	return nil
}

// gather writes a large account's history, in a few statements: row by row it would
// take longer than to measure it.
func gather(ctx context.Context, tables string, account drs.Account) (err error) {
	d, err := db.Open(ctx, tables)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	mac := func(n int) string { return fmt.Sprintf("02:00:00:00:00:%02x", n) }
	first, _, err := d.RegisterServer(ctx, db.Registration{
		Account: account, HardwareID: "first", AgentVersion: "1.0.0",
		Properties: drs.SourceProperties{
			LastUpdated: time.Now(), Hostname: "app-0", FQDN: "app-0.example.org", MachineID: strings.Repeat("0", 32),
			CPUs: []drs.CPU{{Cores: 4, ModelName: "Intel(R) Xeon(R) CPU @ 2.20GHz"}}, RAMBytes: 8 << 30, OS: "Debian GNU/Linux 12 (bookworm)",
			Architecture: "x86_64", BootMode: drs.BootBIOS,
			NetworkInterfaces: []drs.NetworkInterface{{MAC: mac(1), IPs: []string{"10.0.0.10/24"}, Primary: true}, {MAC: mac(2), IPs: []string{"10.1.0.10/24"}}},
			Disks:             []drs.Disk{{Device: "/dev/sda", Bytes: 32 << 30}, {Device: "/dev/sdb", Bytes: 256 << 30}},
		},
	})
	if err != nil {
		return err
	}
	info := drs.DataReplicationInfo{State: drs.ReplicationContinuous, AsOf: time.Now(), Begun: time.Now(), Disks: []drs.ReplicatedDisk{
		{Device: "/dev/sda", Total: 32 << 30, Replicated: 32 << 30, Rescanned: 32 << 30}, {Device: "/dev/sdb", Total: 256 << 30, Replicated: 256 << 30, Rescanned: 256 << 30},
	}}
	for _, step := range drs.InitiationSteps {
		info.Steps = append(info.Steps, drs.InitiationStep{Name: step, Status: drs.StepSucceeded})
	}
	if err := d.ReportReplication(ctx, first.ID, info, time.Now()); err != nil {
		return err
	}
	columns, err := columnsOf(ctx, d, "source_servers")
	if err != nil {
		return err
	}
	var values []string
	for _, c := range columns {
		switch c {
		case "id":
			c = `printf('s-%017x', n)`
		case "hardware_id":
			c = `printf('hw-%d', n)`
		case "added":
			c = `added + n`
		case "properties":
			c = `replace(replace(properties, 'app-0', printf('app-%d', n)), '02:00:00', printf('02:%02x:%02x', n / 256, n % 256))`
		case "tags":
			c = `json_object('application', printf('app-%d', n / 10), 'owner', 'operations')`
		}
		values = append(values, c)
	}
	const count = `WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < ?) `
	now := time.Now().UnixMicro()
	for _, step := range []struct {
		statement string
		args      []any
	}{
		{`INSERT INTO source_servers (` + strings.Join(columns, ", ") + `) ` + count + `SELECT ` + strings.Join(values, ", ") +
			` FROM source_servers, counted WHERE id = ?`, []any{manyServers - 1, string(first.ID)}},
		{`INSERT INTO jobs (id, account, region, type, initiated, status, created, ended, tags) ` + count +
			`SELECT printf('drsjob-%017x', n), ?, ?, 'LAUNCH', 'START_DRILL', 'COMPLETED', ? + n * 1000000, ? + n * 1000000 + 60000000, '{"drill":"quarterly"}' FROM counted`,
			[]any{manyJobs, account.ID, account.Region, now - (manyJobs+100)*1_000_000, now - (manyJobs+100)*1_000_000}},
		{`INSERT INTO job_servers (job, ordinal, source_server, snapshot, instance, status) ` + count +
			fmt.Sprintf(`SELECT printf('drsjob-%%017x', n / %d + 1), n %% %d, printf('s-%%017x', n %% %d + 1), '', printf('i-%%017x', n), 'TERMINATED' FROM counted WHERE n < ?`,
				serversOfJob, serversOfJob, manyServers-1),
			[]any{manyJobs * serversOfJob, manyJobs * serversOfJob}},
		{`INSERT INTO job_log (job, step, time, event, source_server) ` + count +
			fmt.Sprintf(`SELECT printf('drsjob-%%017x', n / %d + 1), n, ? + n, 'SNAPSHOT_END', printf('s-%%017x', n %% %d + 1) FROM counted WHERE n < ?`,
				linesPerJob, manyServers-1),
			[]any{manyJobs * linesPerJob, now, manyJobs * linesPerJob}},
	} {
		if _, err := d.SQL().ExecContext(ctx, step.statement, step.args...); err != nil {
			return err
		}
	}
	return nil
}

func columnsOf(ctx context.Context, d *db.DB, table string) ([]string, error) {
	rows, err := d.SQL().QueryContext(ctx, "SELECT name FROM pragma_table_info(?)", table)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var out []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		out = append(out, name)
	}
	return out, rows.Err()
}

// makeReady gives 200 servers a recovery point in the tables of a running server,
// and returns the request that recovers them.
func makeReady(ctx context.Context, tables string, account drs.Account) (body string, err error) {
	d, err := db.Open(ctx, tables)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	servers, _, err := d.SourceServers(ctx, account, db.SourceServerFilter{}, db.Page{Limit: 200})
	if err != nil {
		return "", err
	}
	var list []string
	for _, server := range servers {
		p := drs.RecoveryPoint{
			ID: drs.NewRecoverySnapshotID(), SourceServer: server.ID, Expected: time.Now(), Taken: time.Now(),
			Consistency: drs.CrashConsistent, Method: drs.QuietPass, Epoch: 1,
		}
		if err := d.AddPoint(ctx, p); err != nil {
			return "", err
		}
		list = append(list, fmt.Sprintf(`{"sourceServerID":%q,"recoverySnapshotID":%q}`, server.ID, p.ID))
	}
	return `{"isDrill":true,"sourceServers":[` + strings.Join(list, ",") + `]}`, nil
}
