package db_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// A listing shows what is in the tables, whoever wrote it and however, and shows
// what did not change without making it again.
func TestListingsShowEveryChange(t *testing.T) {
	d := open(t)
	ctx := t.Context()
	a, b := register(t, d, "hw-01"), register(t, d, "hw-02")
	now := time.Now()
	job := drs.Job{
		ID: drs.NewJobID(), Account: account, Type: drs.JobLaunch, Initiated: drs.CreatedNetwork, Status: drs.JobPending, Created: now,
		Servers:  []drs.ParticipatingServer{{SourceServer: a.ID, Status: drs.LaunchPending}},
		Networks: []drs.ParticipatingNetwork{{SourceNetwork: "sn-1", Status: drs.LaunchPending}},
	}
	tx := func(f func(context.Context, db.Tx) error) func() error {
		return func() error { return d.InTx(ctx, f) }
	}
	raw := func(query string, args ...any) func() error {
		return func() error { _, err := d.SQL().ExecContext(ctx, query, args...); return err }
	}
	if err := d.InTx(ctx, func(ctx context.Context, tx db.Tx) error { return tx.InsertJob(ctx, job) }); err != nil {
		t.Fatal(err)
	}
	servers := func() []*db.Listed[drs.SourceServer] {
		t.Helper()
		list, _, err := d.ListSourceServers(ctx, account, db.SourceServerFilter{}, db.Page{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	jobs := func() []*db.Listed[drs.Job] {
		t.Helper()
		list, _, err := d.ListJobs(ctx, account, db.JobFilter{}, db.Page{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	show := func() string {
		out := ""
		for _, l := range servers() {
			out += fmt.Sprintf("%+v\n", l.V)
		}
		for _, l := range jobs() {
			out += fmt.Sprintf("%+v\n", l.V)
		}
		return out
	}
	seen := map[string]string{show(): "the start"}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"a report", func() error {
			return d.ReportReplication(ctx, a.ID, drs.DataReplicationInfo{State: drs.ReplicationInitialSync}, now.Add(time.Hour))
		}},
		{"properties", func() error { return d.UpdateProperties(ctx, a.ID, drs.SourceProperties{Hostname: "other"}) }},
		{"tags", func() error {
			return d.ChangeTags(ctx, drs.Resource{Account: account, Type: drs.TypeSourceServer, ID: string(b.ID)}, func(tags drs.Tags) error { tags["x"] = "y"; return nil })
		}},
		{"a last launch", tx(func(ctx context.Context, tx db.Tx) error {
			return tx.SetLastLaunch(ctx, &drs.LastLaunch{Job: job.ID}, drs.LastLaunchPending, a.ID, b.ID)
		})},
		{"an instance", tx(func(ctx context.Context, tx db.Tx) error { return tx.SetRecoveryInstance(ctx, a.ID, "i-1") })},
		{"the job's status", tx(func(ctx context.Context, tx db.Tx) error { return tx.SetJobStatus(ctx, job.ID, drs.JobStarted) })},
		{"the status of a server in a job", tx(func(ctx context.Context, tx db.Tx) error {
			return tx.SetLaunchStatus(ctx, job.ID, a.ID, "", drs.LaunchInProgress, "i-1")
		})},
		{"action runs", tx(func(ctx context.Context, tx db.Tx) error {
			return tx.SetActionRuns(ctx, job.ID, a.ID, []drs.LaunchActionRun{{ID: "run"}})
		})},
		{"the status of a network in a job", tx(func(ctx context.Context, tx db.Tx) error {
			return tx.SetNetworkStatus(ctx, job.ID, "sn-1", drs.LaunchInProgress)
		})},
		{"tags of a job", func() error {
			return d.ChangeTags(ctx, drs.Resource{Account: account, Type: drs.TypeJob, ID: string(job.ID)}, func(tags drs.Tags) error { tags["x"] = "y"; return nil })
		}},
		{"a statement of somebody else", raw("UPDATE source_servers SET agent_version = '2.0.0'")},
		{"a server that leaves a job", raw("DELETE FROM job_servers")},
		{"a server that is gone", raw("DELETE FROM source_servers WHERE id = ?", string(b.ID))},
		{"the same server, another row", raw(`INSERT INTO source_servers (id, account, region, hardware_id, agent_version, added, last_launch_result,
			properties, replication, replication_configuration, launch_configuration)
			SELECT ?, account, region, 'hw-02', '9.9.9', added + 1, last_launch_result, properties, replication, replication_configuration, launch_configuration FROM source_servers`, string(b.ID))},
		{"another job", tx(func(ctx context.Context, tx db.Tx) error {
			return tx.InsertJob(ctx, drs.Job{ID: drs.NewJobID(), Account: account, Type: drs.JobLaunch, Status: drs.JobPending, Created: now})
		})},
		{"a job that is gone", raw("DELETE FROM jobs WHERE id = ?", string(job.ID))},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		after := show()
		if before, ok := seen[after]; ok {
			t.Errorf("after %s, the listings show what they did after %s", step.what, before)
		}
		seen[after] = step.what
	}
	first, again := servers(), servers()
	for i := range first {
		if first[i] != again[i] {
			t.Errorf("%s was made again although nothing changed", first[i].V.ID)
		}
	}
	if one, two := jobs(), jobs(); len(one) != 1 || one[0] != two[0] {
		t.Errorf("jobs %v and %v: want one, the same", one, two)
	}
	if err := d.UpdateProperties(ctx, a.ID, drs.SourceProperties{Hostname: "third"}); err != nil {
		t.Fatal(err)
	}
	if again := servers(); first[0] == again[0] || first[1] != again[1] {
		t.Error("a change of one server made both again, or neither")
	}
}
