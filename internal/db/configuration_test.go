package db_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// notConfigured are the tables that a configuration does not hold, and why.
var notConfigured = map[string]string{
	"source_servers":           "each has a record of its own in the vault; extended ones are in Configuration.Extended",
	"recovery_points":          "the vault knows them",
	"recovery_instances":       "each has a record beside its disks",
	"jobs":                     "history",
	"job_servers":              "history",
	"job_networks":             "history",
	"job_log":                  "history",
	"plan_executions":          "history",
	"plan_execution_steps":     "history",
	"plan_execution_servers":   "history",
	"deliveries":               "history",
	"client_tokens":            "good for minutes",
	"vault_purges":             "a server that waits to be deleted comes back and is deleted again by who wants that",
	"record_marks":             "of what is in the vault, and set anew from it",
	"identity_generation":      "a counter",
	"configuration_generation": "a counter",
	"goose_db_version":         "made by migrations",
	"sqlite_sequence":          "SQLite's own",
}

func query(t *testing.T, d *db.DB, q string) []string {
	t.Helper()
	rows, err := d.SQL().QueryContext(t.Context(), q)
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

func configuration(t *testing.T, d *db.DB) (db.Configuration, int64, []byte) {
	t.Helper()
	c, generation, err := d.Configuration(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return c, generation, text
}

// Whoever adds a table says whether it comes back from the vault.
func TestEveryTableIsConfigurationOrNot(t *testing.T) {
	d := open(t)
	c, _, _ := configuration(t, d)
	for _, table := range query(t, d, "SELECT name FROM sqlite_schema WHERE type = 'table'") {
		_, kept := c.Tables[table]
		if _, not := notConfigured[table]; kept == not {
			t.Errorf("table %s: list it in configured (with triggers in a migration), or in notConfigured with the reason", table)
		}
	}
}

// fill puts a row into every table of the configuration. All texts are one JSON
// document, so that references hold.
func fill(t *testing.T, d *db.DB, server drs.SourceServerID) {
	t.Helper()
	c, before, _ := configuration(t, d)
	// What refers to another table happens to have the longer name.
	tables := slices.SortedFunc(maps.Keys(c.Tables), func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) })
	for _, table := range tables {
		insert(t, d, table, server)
	}
	c, after, _ := configuration(t, d)
	if after != before+int64(len(c.Tables)) {
		t.Errorf("generation went from %d to %d with %d rows", before, after, len(c.Tables))
	}
}

func insert(t *testing.T, d *db.DB, table string, server drs.SourceServerID) {
	t.Helper()
	values := query(t, d, fmt.Sprintf(`SELECT CASE
		WHEN name = 'source_server' AND '%s' = 'agent_certificates' THEN '''%s'''
		WHEN type = 'TEXT' THEN '''{"text":"ö"}'''
		WHEN type = 'BLOB' THEN 'x''00ff10'''
		ELSE '7' END FROM pragma_table_info('%s')`, table, server, table))
	if _, err := d.SQL().ExecContext(t.Context(), "INSERT INTO "+table+" VALUES ("+strings.Join(values, ", ")+")"); err != nil {
		t.Fatalf("%s: %v", table, err)
	}
}

// What was set up comes back as it was, every column of every table.
func TestConfigurationComesBack(t *testing.T) {
	d, ctx := open(t), t.Context()
	server := register(t, d, "machine-01")
	fill(t, d, server.ID)
	mine := drs.Account{ID: "999999999999", Region: account.Region}
	var extended drs.SourceServer
	if err := d.InTx(ctx, func(ctx context.Context, tx db.Tx) (err error) {
		extended, err = tx.InsertExtended(ctx, drs.SourceServer{Account: mine, Properties: server.Properties, Tags: drs.Tags{"a": "b"},
			Staging: drs.Staging{Account: account, Server: server.ID}}, 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	record, err := d.ServerRecord(ctx, server.ID)
	if err != nil {
		t.Fatal(err)
	}
	_, _, want := configuration(t, d)

	var kept db.Configuration
	if err := json.Unmarshal(want, &kept); err != nil {
		t.Fatal(err)
	}
	restore := func(t *testing.T, c db.Configuration) (*db.DB, error) {
		t.Helper()
		again, err := db.Create(ctx, filepath.Join(t.TempDir(), "again.db"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { again.Close() })
		return again, again.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
			if _, err := tx.RestoreServer(ctx, record); err != nil {
				return err
			}
			return tx.RestoreConfiguration(ctx, c)
		})
	}
	again, err := restore(t, kept)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, got := configuration(t, again); string(got) != string(want) {
		t.Errorf("came back as\n%s\nwant\n%s", got, want)
	}
	back, err := again.SourceServer(ctx, mine, extended.ID)
	if err != nil {
		t.Fatal(err)
	}
	back.LifeCycle.LastSeen, back.Replication = extended.LifeCycle.LastSeen, extended.Replication
	if !reflect.DeepEqual(back, extended) {
		t.Errorf("extended server %+v, want %+v", back, extended)
	}

	kept.Tables["novelties"] = nil
	if _, err := restore(t, kept); !errors.Is(err, db.ErrNewerConfiguration) {
		t.Errorf("a table of a later version: %v", err)
	}
	delete(kept.Tables, "novelties")
	kept.Tables["accounts"][0]["x) VALUES (1); --"] = db.Cell{V: int64(1)}
	if _, err := restore(t, kept); !errors.Is(err, db.ErrNewerConfiguration) {
		t.Errorf("a column of a later version: %v", err)
	}
}

// Each change is noticed; what an agent tells all the time is not one.
func TestConfigurationGeneration(t *testing.T) {
	d, ctx := open(t), t.Context()
	generation := func() int64 {
		t.Helper()
		n, err := d.ConfigurationGeneration(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	server := register(t, d, "machine-01")
	fill(t, d, server.ID)
	before := generation()
	if _, err := d.SQL().ExecContext(ctx, "UPDATE source_servers SET last_seen = 9, tags = '{}'"); err != nil {
		t.Fatal(err)
	}
	if n := generation(); n != before {
		t.Errorf("a source server's row counts as configuration")
	}
	c, _, _ := configuration(t, d)
	noticed := func(change string) {
		t.Helper()
		n := generation()
		if _, err := d.SQL().ExecContext(ctx, change); err != nil {
			t.Fatal(err)
		}
		if generation() == n {
			t.Errorf("%s: not noticed", change)
		}
	}
	tables := slices.SortedFunc(maps.Keys(c.Tables), func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	for _, table := range tables {
		column := slices.Sorted(maps.Keys(c.Tables[table][0]))[0]
		noticed("UPDATE " + table + " SET " + column + " = " + column)
	}
	for _, table := range tables { // those with references first
		noticed("DELETE FROM " + table)
	}
}

// A launch that was going on when the database was lost has failed: its job is gone.
func TestRecordsTellTheLastLaunch(t *testing.T) {
	d, ctx := open(t), t.Context()
	server := register(t, d, "machine-01")
	for set, want := range map[drs.LastLaunchResult]drs.LastLaunchResult{
		drs.LastLaunchPending: drs.LastLaunchFailed, drs.LastLaunchSucceeded: drs.LastLaunchSucceeded, drs.LastLaunchNotStarted: drs.LastLaunchNotStarted,
	} {
		status := map[drs.LastLaunchResult]drs.LaunchStatus{drs.LastLaunchPending: drs.LaunchInProgress, drs.LastLaunchSucceeded: drs.LaunchLaunched}[set]
		if err := d.InTx(ctx, func(ctx context.Context, tx db.Tx) error {
			return tx.SetLastLaunch(ctx, &drs.LastLaunch{Job: "drsjob-0123456789abcdef0", Drill: true, Status: status}, set, server.ID)
		}); err != nil {
			t.Fatal(err)
		}
		record, err := d.ServerRecord(ctx, server.ID)
		if err != nil {
			t.Fatal(err)
		}
		s, err := record.Server()
		if err != nil || s.LastLaunchResult != want || s.LifeCycle.LastLaunch == nil || !s.LifeCycle.LastLaunch.Drill {
			t.Errorf("%s: %s, %+v, %v; want %s", set, s.LastLaunchResult, s.LifeCycle.LastLaunch, err, want)
		}
		if set == drs.LastLaunchPending && s.LifeCycle.LastLaunch.Status != drs.LaunchFailed {
			t.Errorf("the launch is %s", s.LifeCycle.LastLaunch.Status)
		}
	}
}

func FuzzConfiguration(f *testing.F) {
	f.Add([]byte(`{"tables":{"webhooks":[{"id":"a","secret":{"base64":"AAE="},"created":5,"x":null,"y":true}]},"extended":[{}]}`))
	f.Add([]byte(`{"tables":{"a":[{"b":1e400}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var c, again db.Configuration
		if json.Unmarshal(text, &c) != nil {
			return
		}
		first, err := json.Marshal(c)
		if err != nil {
			t.Skip() // raw members of records are checked when a server is made of them
		}
		if err := json.Unmarshal(first, &again); err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		second, err := json.Marshal(again)
		if err != nil || string(first) != string(second) {
			t.Fatalf("%s, then %s, %v", first, second, err)
		}
	})
}
