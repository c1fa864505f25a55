package server

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/db"
	"lifeboat/internal/drs"
)

// A scrape tells of each source server what an alarm is made of.
func TestMetricsOfSourceServers(t *testing.T) {
	ctx := t.Context()
	d, err := db.Create(ctx, filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	account := drs.Account{ID: "123456789012", Region: "us-east-1"}
	var ids []drs.SourceServerID
	for _, name := range []string{"db1", "new"} {
		server, _, err := d.RegisterServer(ctx, db.Registration{Account: account, HardwareID: name, Properties: drs.SourceProperties{Hostname: name}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, server.ID)
	}
	now := time.Now().UTC()
	for i, consistency := range []drs.Consistency{drs.CrashConsistent, drs.CrashConsistent, drs.Fuzzy} {
		taken := now.Add(-time.Hour * time.Duration(3-i))
		if err := d.AddPoint(ctx, drs.RecoveryPoint{
			ID: drs.NewRecoverySnapshotID(), SourceServer: ids[0], Epoch: uint64(i + 2), Taken: taken, Expected: taken, Consistency: consistency, Method: drs.QuietPass,
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, state := range []drs.ReplicationState{drs.ReplicationInitiating, drs.ReplicationInitialSync, drs.ReplicationContinuous, drs.ReplicationBacklog} {
		if err := d.ReportReplication(ctx, ids[0], drs.DataReplicationInfo{
			State: state, AsOf: now.Add(-time.Minute), Disks: []drs.ReplicatedDisk{{Device: "/dev/vda", Backlogged: 4096}},
			Error: &drs.DataReplicationErr{Code: drs.SnapshotsFailure, Raw: "full"},
		}, now); err != nil {
			t.Fatalf("%s: %v", state, err)
		}
	}
	families, err := newMetrics(d, slog.New(slog.DiscardHandler)).Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				if l.GetName() != "source_server" {
					labels = append(labels, l.GetValue())
				}
			}
			got[strings.TrimPrefix(family.GetName(), "lifeboat_")+" "+strings.Join(labels, " ")] = m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"replication_state db1 BACKLOG": 1, "replication_error SNAPSHOTS_FAILURE db1": 1, "replication_backlog_bytes db1": 4096,
		"recovery_points db1": 3, "recovery_points new": 0, "source_servers BACKLOG": 1,
	} {
		if value, there := got[name]; !there || value != want {
			t.Errorf("%s is %v (%v), want %v", name, value, there, want)
		}
	}
	if age := got["newest_point_age_seconds db1"]; age < 7200 || age > 7200+600 {
		t.Errorf("the newest consistent point is %v s old, want two hours", age)
	}
	for _, name := range []string{"newest_point_age_seconds new", "replication_error new"} {
		if value, there := got[name]; there {
			t.Errorf("%s is %v, want none", name, value)
		}
	}
}

// Every metric of the server is described.
func TestMetricsAreDocumented(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, ours, found := strings.Cut(string(document), "## The server")
	if !found {
		t.Fatal("docs/metrics.md has no part about the server")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`NewDesc\(\s*"lifeboat_([a-z_]+)"`).FindAllStringSubmatch(string(text), -1) {
			if !regexp.MustCompile(fmt.Sprintf("`%s[`{]", m[1])).MatchString(ours) {
				t.Errorf("docs/metrics.md does not describe lifeboat_%s", m[1])
			}
		}
	}
}
