package drs_test

import (
	"regexp"
	"slices"
	"testing"

	"lifeboat/internal/drs"
)

func TestNewIDsHaveTheFormTheyAreParsedBy(t *testing.T) {
	for range 100 {
		if _, err := drs.ParseSourceServerID(string(drs.NewSourceServerID())); err != nil {
			t.Error(err)
		}
		if _, err := drs.ParseRecoverySnapshotID(string(drs.NewRecoverySnapshotID())); err != nil {
			t.Error(err)
		}
		if _, err := drs.ParseJobID(string(drs.NewJobID())); err != nil {
			t.Error(err)
		}
		if _, err := drs.ParseRecoveryInstanceID(string(drs.NewRecoveryInstanceID())); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "s-", "s-0123456789abcdef", "s-0123456789abcdef01", "s-0123456789abcde/f", "pit-0123456789abcdef0", "s-0123456789abcdef0\n"} {
		if id, err := drs.ParseSourceServerID(bad); err == nil {
			t.Errorf("%q was taken for a source server ID: %s", bad, id)
		}
	}
}

func TestARN(t *testing.T) {
	account := drs.Account{ID: "123456789012", Region: "eu-west-1"}
	arn := account.ARN(drs.TypeSourceServer, "s-0123456789abcdef0")
	// The pattern of the API's model.
	if !regexp.MustCompile(`^arn:(?:[0-9a-zA-Z_-]+:){3}([0-9]{12,}):source-server/(s-[0-9a-zA-Z]{17})$`).MatchString(arn) {
		t.Errorf("%s is not what the model demands", arn)
	}
	got, err := drs.ParseARN(arn)
	want := drs.Resource{Account: account, Type: drs.TypeSourceServer, ID: "s-0123456789abcdef0"}
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "arn:aws:drs", "arn:aws:ec2:eu-west-1:123456789012:instance/i-1", "arn:aws:drs:eu-west-1:123456789012:job", "arn:aws:drs:eu-west-1:123456789012:/x"} {
		if r, err := drs.ParseARN(bad); err == nil {
			t.Errorf("%q was taken for an ARN: %+v", bad, r)
		}
	}
}

func TestReplicationStates(t *testing.T) {
	for _, c := range []struct {
		from, to drs.ReplicationState
		ok       bool
	}{
		{drs.ReplicationInitiating, drs.ReplicationInitialSync, true},
		{drs.ReplicationInitialSync, drs.ReplicationCreatingSnapshot, true},
		{drs.ReplicationCreatingSnapshot, drs.ReplicationContinuous, true},
		{drs.ReplicationContinuous, drs.ReplicationBacklog, true},
		{drs.ReplicationContinuous, drs.ReplicationContinuous, true},
		{drs.ReplicationContinuous, drs.ReplicationInitialSync, false},
		{drs.ReplicationBacklog, drs.ReplicationStalled, true},
		{drs.ReplicationStalled, drs.ReplicationContinuous, true},
		{drs.ReplicationStopped, drs.ReplicationContinuous, false},
		{drs.ReplicationStopped, drs.ReplicationInitiating, true},
		{drs.ReplicationDisconnected, drs.ReplicationStalled, false},
		{"", drs.ReplicationContinuous, false},
	} {
		got, err := c.from.Next(c.to)
		if (err == nil) != c.ok {
			t.Errorf("%s -> %s: %v", c.from, c.to, err)
		}
		if want := map[bool]drs.ReplicationState{true: c.to, false: c.from}[c.ok]; got != want {
			t.Errorf("%s -> %s gives %s", c.from, c.to, got)
		}
	}
}

func TestLaunchAndJobStatesNeverGoBack(t *testing.T) {
	launch := []drs.LaunchStatus{drs.LaunchPending, drs.LaunchInProgress, drs.LaunchLaunched, drs.LaunchTerminated}
	for i, from := range launch {
		for j, to := range launch {
			_, err := from.Next(to)
			if j < i && err == nil {
				t.Errorf("launch status %s went back to %s", from, to)
			}
			if j == i && err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := drs.LaunchFailed.Next(drs.LaunchLaunched); err == nil {
		t.Error("a failed launch became a launched one")
	}
	for _, from := range []drs.JobStatus{drs.JobStarted, drs.JobCompleted} {
		if _, err := from.Next(drs.JobPending); err == nil {
			t.Errorf("a job went from %s back to PENDING", from)
		}
	}
	if _, err := drs.JobPending.Next(drs.JobCompleted); err == nil {
		t.Error("a job was completed before it started")
	}
}

func TestInDiskOrder(t *testing.T) {
	disks := []drs.Disk{{Device: "boot"}, {Device: "data"}}
	got := drs.InDiskOrder(disks, []string{"old", "data", "boot", "older"}, func(s string) drs.DiskName { return drs.DiskName{Device: s} })
	if want := []string{"boot", "data", "old", "older"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
